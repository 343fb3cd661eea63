"""How errors reach a person, and with which exit code a command ends."""

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from omegaconf import DictConfig

from sr_train.ops.errors import SRTrainError

USER_ERROR = 2
INTERRUPTED = 130

Result = TypeVar("Result")

WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""Hydra's own switch, read before this program sets it for itself."""


def reported(job: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """Let a Hydra job end with code 2 and a message on what a user can mend.

    The exit passes through Hydra, which would add lines of its own to an exception.
    """

    @functools.wraps(job)
    def wrapped(cfg: DictConfig) -> Result:
        try:
            return job(cfg)
        except SRTrainError as err:
            raise SystemExit(report(err)) from err
        except OSError as err:
            if not is_outside(err):
                raise
            raise SystemExit(report(err)) from err

    return wrapped


def report(err: Exception) -> int:
    """Print an error for people; return the exit code."""
    if WANTS_TRACEBACK:
        traceback.print_exception(err)
    if isinstance(err, OSError):
        text = f"{err.filename}: {err.strerror}" if err.filename else str(err.strerror)
    else:
        text = str(err)
    sys.stderr.write(f"error: {text}\n")
    return USER_ERROR


def is_outside(err: OSError) -> bool:
    """Tell a full disk or an unusable path from a defect of ours."""
    return err.filename is not None or err.errno in {errno.ENOSPC, errno.EDQUOT}
