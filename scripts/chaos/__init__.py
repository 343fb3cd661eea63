"""Harnesses that break the program on purpose; see README.md in this folder."""
