"""Train, resume, validate and ship super-resolution and restoration networks."""

__version__ = "0.1.0"
