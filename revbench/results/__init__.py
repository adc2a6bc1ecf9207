"""Rows and runs on disk: the append-only journal, what is read back from it, and what is derived from it."""
