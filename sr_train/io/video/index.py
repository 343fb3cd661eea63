"""The list of a video's packets and frames, by which any frame is found.

Where the container says when each packet is shown, and each packet makes one frame, the packets
alone tell the numbers of the frames, and nothing is decoded but the first few; else the file is
decoded once. Numbers are those of `read_timed_frames`.
"""

import zlib
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import av
import numpy as np
from av.container import InputContainer

from sr_train.io.video.decoding import ONE_EACH, Decoder, Packets, Sent
from sr_train.io.video.ends import early_end
from sr_train.io.video.info import FIELDS
from sr_train.io.video.losses import Losses
from sr_train.io.video.order import Gaps, is_beside
from sr_train.io.video.source import Source, codec_name, opened, video_stream
from sr_train.io.video.timeline import walk

_TIMED = ("mov", "matroska")
"""Containers that say when each packet is shown, as an encoder said it."""
_SEEKABLE = ONE_EACH | {
    *("mpeg4", "h263", "flv1", "vp6", "vp6f", "vp8", "theora", "msmpeg4v2", "msmpeg4v3", "wmv1"),
    *("wmv2", "wmv3", "vc1", "rv30", "rv40"),
}
"""Codecs whose key frames need nothing that was before."""
_HEAD = 8
"""Frames that are decoded to see whether they come as they are listed."""

_SHARING = ("mpeg", "ogg", "asf", "nut")
"""Containers of which packets are not distinguished by where they lie."""

Mark = tuple[int | None, int, int]
"""Place in the file, bytes and checksum of a packet."""


def mark_of(container: InputContainer, sent: Sent, packet: av.Packet) -> Mark:
    """Return what distinguishes a packet from others."""
    shares = container.format.name in _SHARING
    return None if shares else sent.pos, sent.size, zlib.crc32(packet)


@dataclass(frozen=True, slots=True)
class Key:
    """A packet from which decoding can start."""

    ordinal: int
    number: int
    """Of its frame; -1 if that is not shown."""
    ticks: int | None
    """For seeking to it; None: only its place in the file is known."""
    mark: Mark


@dataclass
class _Listed:
    """The packets of a stream, and those of its frames in their order."""

    ordinals: list[int] = field(default_factory=list)
    """Of the packet of each frame; -1 for one that is missing."""
    sent: list[Sent] = field(default_factory=list)
    marks: dict[int, Mark] = field(default_factory=dict)
    """Of key frames."""

    def add(self, container: InputContainer, sent: Sent, packet: av.Packet) -> None:
        """Add a packet; the first one begins the list anew."""
        if sent.ordinal == 0:
            self.sent, self.marks = [], {}
        self.sent.append(sent)
        if sent.is_key or sent.ordinal == 0:
            self.marks[sent.ordinal] = mark_of(container, sent, packet)

    def place(self, number: int, ordinal: int) -> None:
        """Add a frame; numbers left out are missing."""
        self.ordinals += [-1] * (number - len(self.ordinals))
        self.ordinals.append(ordinal)


@dataclass(frozen=True)
class FrameIndex:
    """Which packet each frame is in, and where decoding can start."""

    ordinals: np.ndarray
    """(frames,), int64: of each frame's packet; -1 for a frame that is missing."""
    sizes: np.ndarray
    """(packets,), int64: bytes of each."""
    keys: tuple[Key, ...]
    """In the order of the file; the first is the first packet."""
    damaged: tuple[int, ...]
    """Ordinals of packets before which there were others that are lost."""
    losses: Losses
    """What is known to be lost."""
    was_decoded: bool
    """Whether it took decoding the file."""

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Return the number of the frame in each packet that holds one."""
        pairs = enumerate(self.ordinals.tolist())
        return {ordinal: number for number, ordinal in pairs if ordinal >= 0}

    @cached_property
    def marked(self) -> dict[Mark, Key]:
        """Return the keys by their marks, where one mark is one key's."""
        found: dict[Mark, Key] = {}
        twice = set()
        for key in self.keys:
            twice.update({key.mark} & found.keys())
            found[key.mark] = key
        return {mark: key for mark, key in found.items() if mark not in twice}

    @cached_property
    def _key_ordinals(self) -> list[int]:
        return [key.ordinal for key in self.keys]

    def group(self, ordinal: int) -> int:
        """Return the place among the keys of the one that a packet follows, or is."""
        return max(bisect_right(self._key_ordinals, ordinal) - 1, 0)

    def keys_before(self, number: int) -> list[Key]:
        """Return the keys before a frame, in the file and on the screen, the nearest first."""
        last = self.group(int(self.ordinals[number]))
        return [key for key in self.keys[last::-1] if key.number <= number] or [self.keys[0]]

    def needed_groups(self, number: int) -> range:
        """Return the groups whose packets a frame may need."""
        group = self.group(int(self.ordinals[number]))
        is_leading = self.keys[group].number > number
        return range(group - 1 if is_leading else group, group + 1)


def build_index(source: Source) -> FrameIndex:
    """List the frames of a video.

    Raises:
        DataError: no such file, no video in it, or none of its frames can be decoded.
    """
    return _from_packets(source) or _from_frames(source)


def _from_packets(source: Source) -> FrameIndex | None:
    """Return the index if packets by themselves give it."""
    listed, losses = _Listed(), Losses()
    with opened(source) as (container, name):
        stream = video_stream(container, name)
        if not container.format.name.startswith(_TIMED) or codec_name(stream) not in ONE_EACH:
            return None
        packets = Packets(container, stream)
        for sent, packet in packets:
            listed.add(container, sent, packet)
        order = _in_order_of_times(listed.sent)
        if not order or not listed.sent[0].is_key:
            return None
        gaps = Gaps(codec_name(stream), Fraction(stream.time_base))
        losses.given = len(order)
        early_end(source, container, stream, packets, losses)
    skipped = _skipped_at_start(source, listed.sent, [sent.ordinal for sent in order])
    if skipped is None:
        return None
    gaps.suspects.update(sent.ordinal for sent in listed.sent if sent.follows_damage)
    for sent in order[skipped:]:
        lost = gaps.before(Fraction(sent.pts or 0), sent.ordinal)
        listed.place(len(listed.ordinals) + lost, sent.ordinal)
    return _made(listed, losses, was_decoded=False)


def _in_order_of_times(sent: list[Sent]) -> list[Sent]:
    """Return the packets that are shown in their order; none if their times do not say it."""
    shown = [one for one in sent if not one.is_hidden]
    if any(one.pts is None for one in shown):
        return []
    shown.sort(key=lambda one: one.pts or 0)
    return [] if any(a.pts == b.pts for a, b in pairwise(shown)) else shown


def _skipped_at_start(source: Source, sent: list[Sent], order: list[int]) -> int | None:
    """Return how many frames at the start cannot be decoded; None if frames come otherwise."""
    came: list[int] = []
    with opened(source) as (container, name):
        stream = video_stream(container, name)
        context = stream.codec_context
        is_plain = not context.has_b_frames and context.field_order not in FIELDS
        if is_plain and order == list(range(len(sent))):
            return 0
        decoder = Decoder(stream, hasty=False)
        for one, packet in Packets(container, stream):
            shown, has_failed = decoder.feed(one, packet)
            if has_failed or any(frame.is_flawed for frame in shown):
                return None
            came += [frame.ordinal for frame in shown if not sent[frame.ordinal].is_hidden]
            if len(came) >= _HEAD:
                break
        else:
            came += [frame.ordinal for frame in decoder.flush()[0]]
    first = order.index(came[0]) if came and came[0] in order else 0
    return first if came and came == order[first : first + len(came)] else None


def _from_frames(source: Source) -> FrameIndex:
    """Return the index as decoding the file gives it."""
    listed, losses = _Listed(), Losses()
    for placed in walk(source, losses, listed.add):
        listed.place(placed.number, placed.shown.ordinal)
    if losses.missing.spans:
        lost = losses.missing.spans[-1].last + 1 - len(listed.ordinals)
        listed.ordinals += [-1] * lost
    with opened(source) as (container, name):
        if codec_name(video_stream(container, name)) not in _SEEKABLE:
            listed.marks = {0: listed.marks[0]}
    return _made(listed, losses, was_decoded=True)


def _made(listed: _Listed, losses: Losses, *, was_decoded: bool) -> FrameIndex:
    numbers = {ordinal: number for number, ordinal in enumerate(listed.ordinals)}
    keys = []
    for ordinal, mark in listed.marks.items():
        sent = listed.sent[ordinal]
        # Files that are listed without decoding are sought by when frames are shown.
        ticks = sent.dts if was_decoded else sent.pts
        keys.append(Key(ordinal, numbers.get(ordinal, -1), ticks, mark))
    suspects = [one.ordinal for one in listed.sent if one.follows_damage]
    return FrameIndex(
        ordinals=np.array(listed.ordinals, np.int64),
        sizes=np.array([sent.size for sent in listed.sent], np.int64),
        keys=tuple(keys),
        damaged=_confirmed(listed.ordinals, suspects),
        losses=losses,
        was_decoded=was_decoded,
    )


def _confirmed(ordinals: list[int], suspects: list[int]) -> tuple[int, ...]:
    """Return the suspect packets beside which frames are missing."""
    known = [(number, ordinal) for number, ordinal in enumerate(ordinals) if ordinal >= 0]
    found: set[int] = set()
    for (number, one), (following, other) in pairwise(known):
        if following > number + 1:
            found.update(suspect for suspect in suspects if is_beside(suspect, one, other))
    return tuple(sorted(found))
