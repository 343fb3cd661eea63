"""How errors reach a person, and with which exit code a command ends."""

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from omegaconf import DictConfig

from sr_train.api.errors import PluginError, SRTrainError
from sr_train.api.text import printable
from sr_train.utils.failures import in_words, users_place
from sr_train.utils.launch import Launch, SharedError

USER_ERROR = 2
INTERRUPTED = 130

_PATIENCE_BEFORE, _PATIENCE_AFTER = 60.0, 10.0
"""Seconds that a rank waits for rank 0 to report an error: it may be slower to find it."""

_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EFBIG,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}
"""Errors of the system that need no path to be distinguished from ours."""

Result = TypeVar("Result")

WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""Hydra's own switch, read before this program sets it for itself."""


def reported(job: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """Let a Hydra job end with code 2 and a message on what a user can fix.

    The exit passes through Hydra, which would add lines of its own to an exception.
    """

    @functools.wraps(job)
    def wrapped(cfg: DictConfig) -> Result:
        try:
            return job(cfg)
        except Exception as err:
            fault = user_error_of(err)
            if fault is None:
                raise
            raise SystemExit(report(fault)) from err

    return wrapped


def user_error_of(err: Exception) -> Exception | None:
    """Return what to report of an error that a user can fix; None for a defect of ours."""
    if isinstance(err, SRTrainError) or (isinstance(err, OSError) and is_environment_error(err)):
        return err
    if isinstance(err, RuntimeError):
        from sr_train.engine.distributed import fault_of_ranks

        fault = fault_of_ranks(err)
        if fault is not None:
            return fault
    if users_place(err) is not None:
        return PluginError(f"a part of your own failed: {in_words(err)}")
    return None


def message_of(err: Exception) -> str:
    """Return an error in words for people."""
    if isinstance(err, OSError):
        text = f"{err.filename}: {err.strerror}" if err.filename else str(err.strerror)
        return printable(text)
    return printable(str(err))


def report(err: Exception) -> int:
    """Print an error for people; return the exit code.

    Of several ranks, rank 0 reports what all of them met; another reports what only it met.
    """
    if WANTS_TRACEBACK:
        traceback.print_exception(err)
    text = message_of(err)
    launch = Launch.from_environment()
    if launch.rank == 0:
        sys.stderr.write(f"error: {text}\n")
        sys.stderr.flush()
    if launch.several:
        _among_ranks(launch, text, shared=isinstance(err, SharedError))
    return USER_ERROR


def _among_ranks(launch: Launch, text: str, *, shared: bool) -> None:
    """Let the other ranks know of rank 0's error; of another rank, report what rank 0 does not."""
    from sr_train.engine import rank_errors

    if launch.rank == 0:
        rank_errors.post(rank_errors.BEFORE, text)
        rank_errors.post(rank_errors.AFTER, text)
        return
    # A rank that ends first makes torchrun end the others, rank 0 in mid-sentence.
    if shared:
        told = rank_errors.read(rank_errors.AFTER, _PATIENCE_AFTER)
    else:
        told = rank_errors.read(rank_errors.BEFORE, _PATIENCE_BEFORE)
    if told != text:
        sys.stderr.write(f"rank {launch.rank}: error: {text}\n")


def is_environment_error(err: OSError) -> bool:
    """Tell a full or failing disk or an unusable path from a defect of ours."""
    return err.filename is not None or err.errno in _OF_THE_MACHINE
