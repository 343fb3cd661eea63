"""Train, resume, validate and ship super-resolution and restoration networks."""

from sr_train.config.packages import claim_names

__version__ = "0.1.0"

claim_names()  # before anything of `archs`, `losses`, `data` can be imported or unpickled
