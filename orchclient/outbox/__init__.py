"""The store: a journal, cursors and a desk in one SQLite file. The only code that speaks SQL."""
