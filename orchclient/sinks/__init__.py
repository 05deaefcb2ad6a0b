"""Dialects of destinations: render a batch as a request, read the answer as a verdict. No file, no socket, no SQL."""
