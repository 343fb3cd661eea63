"""What to report where one input fails, so that the others need not."""

import re
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2

from sr_train.api.errors import MOST_SHOWN, Problems, SRTrainError
from sr_train.api.text import one_line
from sr_train.utils.memory import is_out_of_memory

_DECODERS = (cv2.error, av.FFmpegError, UnicodeError, EOFError, struct.error, zlib.error)
"""What libraries raise about one file, where it slips through our own words."""


def told(err: Exception, source: Path) -> str | None:
    """Return what to report of an input that failed; None for a defect of ours."""
    name = one_line(source)
    if isinstance(err, SRTrainError):
        # A name as short as `f` stands in many words.
        is_named = re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", str(err))
        return str(err) if is_named else f"{name}: {err}"
    if is_out_of_memory(err):
        return (
            f"{name}: too large for the memory there is ({_first_line(err)}); give tiling.tile=512 "
            "or less, or cut it"
        )
    if isinstance(err, OSError):
        where = "" if err.filename in (None, name) else f" ({err.filename})"
        return f"{name}: {err.strerror or err}{where}"
    if isinstance(err, _DECODERS):
        return f"{name}: cannot be read or written: {type(err).__name__}: {_first_line(err)}"
    return None


def _first_line(err: Exception) -> str:
    # OpenCV's own line begins with a place in its source.
    words = err.err if isinstance(err, cv2.error) and err.err else str(err)
    lines = words.strip().splitlines()
    return lines[0][:200] if lines else type(err).__name__


@dataclass
class Failures:
    """Inputs that failed, of as many as there are."""

    told: list[str] = field(default_factory=list)
    """What to say about each, in order."""
    defect: Exception | None = None
    """The first error that no user can fix."""

    def add(self, err: Exception, source: Path, more: str = "") -> str:
        """Take note of an error of one input; return what to say about it.

        Args:
            err: what was raised.
            source: of the input.
            more: said after it.
        """
        why = told(err, source)
        if why is None:
            words = f"{type(err).__name__}: {_first_line(err)}"
            why = f"{one_line(source)}: a defect of this program: {words}"
            if self.defect is None:
                err.add_note(
                    f"while upscaling {one_line(source)}; the other inputs were gone through"
                )
                self.defect = err
        self.told.append(f"{why}{more}")
        return self.told[-1]

    def is_to_be_shown(self) -> bool:
        """Return whether the last failure is among the first, which are reported as they come."""
        return len(self.told) <= MOST_SHOWN

    def raise_any(self, total: int) -> None:
        """Raise what ends the command, if any of so many inputs failed.

        Raises:
            SRTrainError: naming the first ones, and how many there are.
            Exception: the first defect of ours.
        """
        if self.defect is not None:
            raise self.defect
        if self.told and total == 1:
            raise SRTrainError(self.told[0])
        if self.told:
            raise Problems(self.told, heading=f"{len(self.told)} of {total} inputs failed:")
