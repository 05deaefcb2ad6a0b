"""HTTP with servers that are not trusted: one line, one deadline, an answer that is read within limits."""
