"""Bodies that other services take, each made of a message; a file for each service."""
