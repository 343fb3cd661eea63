"""Where packets of a video belong on the screen, and where some must have been that are gone.

Where a container says when each packet is shown, a frame has the time of its packet. Some tell
but when a packet is decoded (AVI, ASF), nothing (bare streams) or what is wrong: there the frames
take the times in their order, whichever packets they come from.
"""

import heapq
from fractions import Fraction
from typing import Any

from av.container import InputContainer

from sr_train.io.video.decoding import CONSTANT, ONE_EACH, Sent
from sr_train.io.video.source import codec_name

DECODING_TIMES = ("avi", "asf")
"""Containers that say when a packet is decoded, not when it is shown."""
_MOST_REORDERED = 32
"""Packets between that of a frame and the last one that is shown before it, or fewer."""
_MOST_BACK = 2
"""Frames by which the times of decoding go back where they are only imprecise, or fewer."""
MOST_AHEAD = 3600
"""Seconds for which a frame is shown, or less."""
_MOST_PAUSE = 5
"""Seconds for which such a video may stand still, as menus do, or longer."""
_LEAST_EVEN = 2
"""Steps that mean a constant rate."""
_BESIDE = 4
"""Packets from damage within which a gap is its."""

Slot = tuple[Fraction, int]
"""Ticks at which a packet is shown, and its ordinal."""


class WrongTimesError(Exception):
    """Frames come out in another order than that of their times, or have none."""


class Order:
    """The packets of a stream that are on their way, in the order in which they are shown.

    Args:
        container: just opened.
        stream: of it.
        rate: frames per second.
        trusts_times: take each frame's time from its own packet, and raise `WrongTimesError`
            where that cannot be.
    """

    def __init__(
        self, container: InputContainer, stream: Any, rate: Fraction, *, trusts_times: bool
    ) -> None:
        self.tick = Fraction(stream.time_base)
        self.step = 1 / rate / self.tick
        """Ticks from one frame to the next; the mean where it varies."""
        self.failed: set[int] = set()
        """Ordinals of packets that could not be decoded."""
        self.last = Fraction(-1)
        """The latest slot so far."""
        self.expects_all = codec_name(stream) in ONE_EACH
        """Whether each packet must make a frame."""
        self._context = stream.codec_context
        self._trusts = trusts_times
        self._is_by_decoding = container.format.name in DECODING_TIMES
        self._stores_decoding = not container.format.name.startswith("matroska")
        # The index of an AVI has the true place of packets after damage.
        entries = stream.index_entries if container.format.name == "avi" else ()
        self._listed = {entry.pos: entry.timestamp for entry in entries}
        self._waiting: list[Slot] = []
        """Those whose frames are to come, as a heap."""
        self._unseen: dict[int, int | None] = {}
        """Ordinal and time of packets whose frames have not come, in the order of the file."""
        self._latest: Fraction | None = None
        self._last_pts: int | None = None
        self._saw_reordering = False
        self._last_dts: int | None = None
        self._shift = 0
        """Ticks by which times are late since they last jumped back."""
        self._offset: Fraction | None = None
        """Ticks from when packets are decoded to when they are shown."""

    def send(self, sent: Sent) -> None:
        """Take note of a packet whose frame is to be shown."""
        slot = self._slot(sent)
        if slot is None:
            return
        self._latest, self.last = slot, max(self.last, slot)
        if sent.pts is not None:
            self._saw_reordering |= self._last_pts is not None and sent.pts < self._last_pts
            self._last_pts = sent.pts
        heapq.heappush(self._waiting, (slot, sent.ordinal))
        self._unseen[sent.ordinal] = sent.pts

    def _slot(self, sent: Sent) -> Fraction | None:
        """Return where a packet belongs; None for one that has no time, as a second field."""
        own = sent.dts
        if sent.pos is not None and self._listed:
            # The index points at the header of eight bytes before the packet.
            own = self._listed.get(sent.pos - 8, own)
        elif self._trusts and not self._is_by_decoding:
            own = sent.pts
            if own is None:
                return None
        elif not self._stores_decoding:
            own = sent.pts
        if own is None:
            return Fraction(0) if self._latest is None else self._latest + self.step
        self._unwrap(sent)
        return Fraction(own + self._shift)

    def _unwrap(self, sent: Sent) -> None:
        """Let times continue where they jump, as where files were put after each other."""
        if sent.dts is None:
            return
        now = sent.dts + self._shift
        if self._last_dts is not None:
            ahead = now - self._last_dts
            if ahead < -_MOST_BACK * self.step or ahead * self.tick > MOST_AHEAD:
                self._shift += round(self.step) - ahead
                now = sent.dts + self._shift
        self._last_dts = now

    def take(self, ordinal: int) -> tuple[Fraction, list[Slot]]:
        """Return the slot of a frame, and those of packets that should have come before it.

        Raises:
            WrongTimesError: packets come in another order than that of their times.
        """
        lost: list[Slot] = []
        if self._trusts and not (self._is_by_decoding and self._context.has_b_frames):
            return self._take_own(ordinal, lost), lost
        own = self._unseen.pop(ordinal, None)
        while self._unseen and next(iter(self._unseen)) < ordinal - _MOST_REORDERED:
            late = next(iter(self._unseen))
            del self._unseen[late]
            if self.expects_all:
                self.failed.add(late)
        slot = self._next(lost)
        if self._offset is None:
            known = own is not None and not self._is_by_decoding
            self._offset = (own or 0) - slot if known else Fraction(0)
        return slot + self._offset, [(at + self._offset, other) for at, other in lost]

    def _next(self, lost: list[Slot]) -> Fraction:
        while self._waiting:
            slot, waiting = heapq.heappop(self._waiting)
            if waiting not in self.failed:
                return slot
            lost.append((slot, waiting))
        return self.last + self.step

    def _take_own(self, ordinal: int, lost: list[Slot]) -> Fraction:
        if ordinal not in self._unseen:
            raise WrongTimesError
        may_reorder = self._context.has_b_frames and not self._saw_reordering
        while True:
            slot, waiting = heapq.heappop(self._waiting)
            del self._unseen[waiting]
            if waiting == ordinal:
                return slot
            if may_reorder and waiting not in self.failed:
                raise WrongTimesError
            lost.append((slot, waiting))

    def rest(self) -> list[Slot]:
        """Return what has not come at the end."""
        return [(slot + (self._offset or 0), ordinal) for slot, ordinal in sorted(self._waiting)]


class Gaps:
    """Finds frames of which not even packets are left, by the times of those beside them.

    A gap counts if the times before are those of a constant rate, and the file is damaged beside
    it, or its codec has no other.

    Args:
        codec: its name.
        tick: seconds.
    """

    def __init__(self, codec: str, tick: Fraction) -> None:
        self._most_unasked = _MOST_PAUSE / tick if codec in CONSTANT else Fraction(0)
        self._most = MOST_AHEAD / tick
        self.suspects: set[int] = set()
        """Ordinals of packets that are damaged, or come after damage."""
        self._last: Slot | None = None
        self._usual = Fraction(0)
        """Ticks from one frame to the next, mostly."""
        self._even = self._odd = 0

    def before(self, slot: Fraction, ordinal: int) -> int:
        """Return how many frames are missing between a frame and the one asked for before."""
        last, self._last = self._last, (slot, ordinal)
        if last is None:
            return 0
        step = slot - last[0]
        if self._is_usual(step):
            self._even += 1
            return 0
        missing = round(step / self._usual) - 1 if self._usual and step <= self._most else 0
        is_lost = step <= self._most_unasked or self._is_suspect(last[1], ordinal)
        if missing > 0 and self._even >= max(_LEAST_EVEN, 9 * self._odd) and is_lost:
            return missing
        self._odd += 1
        if self._odd > self._even:
            self._usual, self._even, self._odd = step, 1, 0
        return 0

    def _is_usual(self, step: Fraction) -> bool:
        # Containers round to milliseconds.
        return abs(step - self._usual) < max(self._usual / 4, Fraction(3, 2))

    def _is_suspect(self, one: int, other: int) -> bool:
        return any(is_beside(suspect, one, other) for suspect in self.suspects)


def is_beside(ordinal: int, one: int, other: int) -> bool:
    """Return whether a packet lies between two others or a few from one of them."""
    return min(one, other) - _BESIDE <= ordinal <= max(one, other) + _BESIDE
