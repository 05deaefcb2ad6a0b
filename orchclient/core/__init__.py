"""Pure decisions and values: no clock, no randomness, no file, no socket. Time and jitter come in as arguments."""
