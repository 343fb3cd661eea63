"""Feed clips frame by frame, and cut them where a frame cannot be had."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from sr_train.inference.clips import Frame
from sr_train.inference.extras import Extra
from sr_train.inference.faults import told
from sr_train.inference.wrapping import Pixels
from sr_train.io.formats.metadata import Metadata
from sr_train.utils.signals import Stop


@dataclass(frozen=True)
class Label:
    """What is kept of a frame while it is upscaled."""

    name: str
    """Without a suffix."""
    target: Path | None = None
    """The file of its result, for a frame that is an image."""
    time: Fraction | None = None
    """Seconds, of a frame of a video."""
    number: int = 0
    """From 0 on, of all frames of the source; those that are damaged are counted, too."""
    metadata: Metadata | None = None
    """Of a frame that is an image."""


@dataclass(frozen=True)
class Unread:
    """A frame that can be read."""

    path: Path
    """The file that it is in."""
    read: Callable[[], tuple[Pixels, Label]]


class Feeder:
    """Reads frames with their further inputs, and leaves out those that cannot be read.

    What follows such a frame is a clip of its own, as after any gap; so is what follows a change
    of size or depth, if that may be.

    Args:
        extra: the further inputs of the network.
        stop: says whether to end; asked before each frame.
        may_change: whether frames may be of several sizes, as images may and a video may not.
    """

    def __init__(self, extra: Extra, stop: Stop, may_change: bool) -> None:
        self.labels: deque[Label] = deque()
        """Of the frames that were fed and not taken out again, in order."""
        self.left_out: list[str] = []
        """A line on each frame that could not be read."""
        self._extra = extra
        self._stop = stop
        self._may_change = may_change
        self._ahead: tuple[Frame, Label] | None = None
        self._last: int | None = None

    def clips(self, run: Iterator[Unread]) -> Iterator[Iterator[Frame]]:
        """Yield the clips of a run, each to be taken to its end before the next.

        Raises:
            Stopped: where a signal came.
        """
        self._last = None
        self._ahead, _ = self._next(run)
        while self._ahead is not None:
            yield self._clip(run)

    def _clip(self, run: Iterator[Unread]) -> Iterator[Frame]:
        kind: tuple[object, ...] | None = None
        while self._ahead is not None:
            frame, label = self._ahead
            found = frame["lq"].shape, frame["lq"].dtype
            if kind not in (None, found) and self._may_change:
                return
            kind = found
            self.labels.append(label)
            yield frame
            self._ahead, is_cut = self._next(run)
            if is_cut:
                return

    def _next(self, run: Iterator[Unread]) -> tuple[tuple[Frame, Label] | None, bool]:
        """Return the next frame that can be read, and whether there was one before it."""
        for unread in run:
            self._stop.check()
            try:
                pixels, label = unread.read()
                frame = {"lq": pixels, **self._extra.of(label.name, label.number)}
            except Exception as err:
                why = told(err, unread.path)
                if why is None:
                    raise
                self.left_out.append(why)
                continue
            is_cut = self._last is not None and label.number != self._last + 1
            self._last = label.number
            return (frame, label), is_cut
        return None, False
