"""Decode a video from its start to its end: each frame with its number and time, and what is lost.

Frames are numbered from the first that can be decoded; missing ones have numbers too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer

from sr_train.api.errors import DataError
from sr_train.io.video.decoding import Decoder, Packets, Sent, Shown
from sr_train.io.video.ends import early_end
from sr_train.io.video.info import rate_of
from sr_train.io.video.losses import Losses
from sr_train.io.video.order import MOST_AHEAD, Gaps, Order, Slot, WrongTimesError
from sr_train.io.video.source import Source, codec_name, opened, start_of, video_stream

_STREAMS = ("mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v", "obu")
"""Containers that may be cut anywhere."""

Watch = Callable[[InputContainer, Sent, av.Packet], None]


@dataclass(frozen=True, slots=True)
class Placed:
    """A frame and its place in the video."""

    number: int
    time: Fraction
    """Seconds since the start of the file."""
    shown: Shown


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a file is read."""

    is_hasty: bool = True
    """Several frames at a time; frames of a damaged file may then be missing."""
    trusts_times: bool = True
    """Packets are shown when they say so."""


class _HastyError(Exception):
    """A file that is read hastily is damaged."""


def walk(source: Source, losses: Losses, watch: Watch | None = None) -> Iterator[Placed]:
    """Yield all frames of a file in their order.

    Args:
        source: path, or open binary file that can seek.
        losses: takes what could not be read.
        watch: called with each packet; again from the first, if the file is read anew.

    Raises:
        DataError: no such file, no video in it, or none of its frames can be decoded.
    """
    manner = _Manner()
    given, last = 0, -1
    while True:
        losses.clear()
        try:
            for placed in _walked(source, losses, watch, manner):
                # What came before the file was read anew came in the same order.
                if losses.given > given:
                    given, last = losses.given, max(placed.number, last + 1)
                    yield replace(placed, number=last)
            return
        except _HastyError:
            manner = replace(manner, is_hasty=False)
        except WrongTimesError:
            manner = replace(manner, trusts_times=False)


def _walked(
    source: Source, losses: Losses, watch: Watch | None, manner: _Manner
) -> Iterator[Placed]:
    with opened(source) as (container, name):
        stream = video_stream(container, name)
        packets = Packets(container, stream)
        decoder = Decoder(stream, hasty=manner.is_hasty)
        timeline = _Timeline(container, stream, losses, manner)
        for sent, packet in packets:
            if watch is not None:
                watch(container, sent, packet)
            timeline.send(sent)
            shown, has_failed = decoder.feed(sent, packet)
            yield from timeline.place(shown, sent.ordinal if has_failed else None)
        shown, has_failed = decoder.flush()
        yield from timeline.place(shown, packets.count if has_failed else None)
        timeline.finish()
        if losses.given == 0:
            raise DataError(f"{name}: holds no frame that can be decoded")
        early_end(source, container, stream, packets, losses)


class _Timeline:
    """Gives frames their numbers and times."""

    def __init__(
        self, container: InputContainer, stream: Any, losses: Losses, manner: _Manner
    ) -> None:
        self._losses = losses
        self._is_hasty = manner.is_hasty
        rate = rate_of(stream) or Fraction(25)
        self._order = Order(container, stream, rate, trusts_times=manner.trusts_times)
        self._gaps = Gaps(codec_name(stream), self._order.tick)
        self._origin = start_of(container)
        self._is_stream = container.format.name in _STREAMS
        self._hidden: set[int] = set()
        self._first_key: int | None = None
        self._size: tuple[int, int] | None = None
        self._next, self._time = 0, Fraction(0)

    def send(self, sent: Sent) -> None:
        """Take note of a packet that goes to the decoder."""
        if sent.is_key and self._first_key is None:
            self._first_key = sent.ordinal
        if sent.follows_damage:
            self._gaps.suspects.add(sent.ordinal)
        if sent.is_hidden:
            self._hidden.add(sent.ordinal)
        else:
            self._order.send(sent)

    def place(self, shown: list[Shown], failed: int | None) -> Iterator[Placed]:
        """Yield the frames that came out for a packet, after noting whether an error did."""
        if failed is not None:
            self._hurry_no_more()
            self._order.failed.add(failed)
            self._gaps.suspects.add(failed)
        for one in shown:
            if one.ordinal in self._hidden:
                continue
            size = (one.frame.width, one.frame.height)
            self._size = self._size or size
            self._order.expects_all &= not one.frame.interlaced_frame
            if one.is_flawed or size != self._size:
                self._gaps.suspects.add(one.ordinal)
                self._hurry_no_more()
            slot, lost = self._order.take(one.ordinal)
            for other in lost:
                self._lose(other)
            number, time = self._numbered((slot, one.ordinal))
            if size != self._size:
                self._losses.missing.add(number, time)
                continue
            self._losses.given += 1
            if one.is_flawed:
                self._losses.flawed.add(number, time)
            yield Placed(number, time, one)

    def finish(self) -> None:
        """Count the packets that are left."""
        for slot in self._order.rest():
            self._lose(slot)

    def _hurry_no_more(self) -> None:
        if self._is_hasty:
            raise _HastyError

    def _lose(self, slot: Slot) -> None:
        """Count a packet whose frame has not come, if it should have."""
        ordinal = slot[1]
        if self._next == 0 and self._is_of_the_start(ordinal):
            self._losses.undecodable_start += 1
        elif ordinal in self._order.failed or self._order.expects_all:
            self._hurry_no_more()
            self._losses.missing.add(*self._numbered(slot))

    def _is_of_the_start(self, ordinal: int) -> bool:
        """Return whether a frame before the first one needs what is not in the file."""
        if self._first_key is None or ordinal < self._first_key:
            # In a broadcast, errors are usual before the first key frame.
            return self._is_stream or not self._order.failed
        return not self._order.failed and ordinal > self._first_key

    def _numbered(self, slot: Slot) -> tuple[int, Fraction]:
        """Return the number and time that come next, after frames that are gone altogether."""
        missing = self._gaps.before(*slot)
        if missing:
            self._hurry_no_more()
            step = (self._at(slot[0]) - self._time) / (missing + 1)
            last = self._time + step * missing
            self._losses.missing.add(self._next, self._time + step, missing, last)
            self._next += missing
            self._time = last
        return self._next_at(slot[0])

    def _at(self, ticks: Fraction) -> Fraction:
        return ticks * self._order.tick - self._origin

    def _next_at(self, ticks: Fraction) -> tuple[int, Fraction]:
        time = self._at(ticks)
        if self._next > 0 and time <= self._time:
            time = self._time + self._order.tick
        elif self._next > 0 and time - self._time > MOST_AHEAD:
            time = self._time + self._order.step * self._order.tick
        self._time = time
        self._next += 1
        return self._next - 1, time
