"""Packets and frames of a video stream in the order of the file, past what is damaged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer

from sr_train.io.video.source import codec_name

ONE_EACH = frozenset(
    {
        *("h264", "hevc", "vvc", "av1", "vp9", "mpeg1video", "mpeg2video", "ffv1", "mjpeg", "png"),
        *("prores", "dnxhd", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "v210"),
    }
)
"""Codecs of which each packet makes a frame that is shown; others have hidden or skipped ones."""
CONSTANT = ("mpeg1video", "mpeg2video")
"""Codecs that have no variable rate, and state theirs."""

_THREADED = ONE_EACH - {"rawvideo", "png"}
_MOST_PIXELS_AT_A_TIME = 40_000_000
"""Of a frame, 8K and some more, beyond which only one is decoded at a time, for its memory."""
_MOST_FAILURES = 30
"""Errors in a row after which reading a file is given up."""
_MOST_UNEXPLAINED = 64
"""Bytes that containers put between two packets, or less."""
_BYTES_OF_EMPTY = 8
_IN_ROW = ("matroska", "avi", "flv", "gif", "yuv4mpegpipe")
"""Containers of which packets follow each other; demuxers step over damage without a word."""
_SHARED_PACKETS = ("mpegts", "mpeg", "ogg", "asf")
"""Containers whose packets are not those of the decoder: one that is cut says little of a frame."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet on its way to the decoder."""

    ordinal: int
    """Its place in the file, counted from 0."""
    pts: int | None
    """Ticks at which it is shown, as the file says or FFmpeg guesses."""
    dts: int | None
    pos: int | None
    """Byte of the file at which it lies."""
    size: int
    is_key: bool
    is_hidden: bool
    """Decoded, since others need it, but not shown."""
    is_cut: bool
    """A part of it is missing."""
    follows_damage: bool
    """Bytes before it, or some of its own, are lost."""


def packets_past_errors(
    container: InputContainer, streams: Sequence[Any], failed: Callable[[str | None], None]
) -> Iterator[av.Packet]:
    """Yield packets; after an error continue with what comes next, until too many come in a row.

    Args:
        container: to read.
        streams: whose packets; none: of all.
        failed: called with the words of each error.
    """
    failures = 0
    while failures < _MOST_FAILURES:
        try:
            for packet in container.demux(*streams):
                failures = 0
                yield packet
            return
        except IndexError:
            # PyAV cannot flush streams that turned up on the way; all packets were read.
            return
        except av.FFmpegError as err:
            failures += 1
            failed(err.strerror)


class Packets:
    """The packets of a stream; empty ones, which repeat a frame, are left out.

    Args:
        container: at its start, or where `seek` put it.
        stream: of it.
    """

    def __init__(self, container: InputContainer, stream: Any) -> None:
        self._container = container
        self._stream = stream
        self._watches_bytes = container.format.name.startswith(_IN_ROW)
        self._shares = container.format.name.startswith(_SHARED_PACKETS)
        self._counts = container.format.name == "avi"
        self._lost_bytes = False
        self.count = self.num_shown = 0
        """Of the stream's packets so far, and of those that are not hidden."""
        self.first_byte: int | None = None
        """At which the first packet lies."""
        self.last_byte: int | None = None
        """Behind the last packet, in containers of which they follow each other."""
        self.end = self.stream_end = Fraction(0)
        """Seconds at which the last packet of any stream, and of this one, ends."""
        self.longest_step = Fraction(0)
        """Seconds between two packets of the stream, at most."""
        self.ticks = 0
        """Frames of an AVI up to its last packet, repeated ones too."""
        self.error: str | None = None
        """What the last packets could not be read for."""

    def __iter__(self) -> Iterator[tuple[Sent, av.Packet]]:
        for packet in self._all():
            self._look_at(packet)
            if packet.stream_index != self._stream.index or not packet.size:
                continue
            sent = Sent(
                ordinal=self.count,
                pts=packet.pts,
                dts=packet.dts,
                pos=packet.pos,
                size=packet.size,
                is_key=packet.is_keyframe,
                is_hidden=packet.is_discard,
                is_cut=packet.is_corrupt and not self._shares,
                follows_damage=self._lost_bytes or packet.is_corrupt,
            )
            self._lost_bytes = False
            self.count += 1
            self.num_shown += not sent.is_hidden
            yield sent, packet

    def _all(self) -> Iterator[av.Packet]:
        """Yield packets of all streams; after an error, continue with what comes next."""
        for packet in packets_past_errors(self._container, (), self._note_error):
            self.error = None
            yield packet

    def _note_error(self, words: str | None) -> None:
        self._lost_bytes = True
        self.error = words

    def _look_at(self, packet: av.Packet) -> None:
        """Note how far the file has been read, and what lies between two packets."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and packet.time_base:
            ends = (time + (packet.duration or 0)) * Fraction(packet.time_base)
            self.end = max(self.end, ends)
            if packet.stream_index == self._stream.index:
                if self.count > 0:
                    self.longest_step = max(self.longest_step, ends - self.stream_end)
                self.stream_end = max(self.stream_end, ends)
        if packet.pos is None or not packet.size:
            return
        if self.first_byte is None:
            self.first_byte = packet.pos
        if not self._watches_bytes:
            return
        between = packet.pos - (self.last_byte or packet.pos) - self._empty_bytes(packet)
        self._lost_bytes |= between > _MOST_UNEXPLAINED
        self.last_byte = packet.pos + packet.size

    def _empty_bytes(self, packet: av.Packet) -> int:
        """Return the bytes of empty packets before one: an AVI repeats frames with them."""
        if not self._counts or packet.stream_index != self._stream.index or packet.dts is None:
            return 0
        before, self.ticks = self.ticks, packet.dts + 1
        return max(packet.dts - before, 0) * _BYTES_OF_EMPTY


@dataclass(frozen=True, slots=True)
class Shown:
    """A frame that came out of the decoder."""

    ordinal: int
    """Of its packet."""
    frame: av.VideoFrame
    is_flawed: bool
    """Parts of it were damaged and are made up."""


class Decoder:
    """The decoder of a stream, fed packet by packet.

    It decodes several frames at a time where it can, if it may be hasty; then errors come late, and
    frames at the end of a damaged file may be missing.

    Args:
        stream: no packet of it has been decoded yet.
        hasty: allow that.
    """

    def __init__(self, stream: Any, *, hasty: bool) -> None:
        self._stream = stream
        codec, context = codec_name(stream), stream.codec_context
        is_small = context.width * context.height <= _MOST_PIXELS_AT_A_TIME
        stream.thread_type = "AUTO" if hasty and is_small and codec in _THREADED else "SLICE"
        if codec == "av1" and not hasty:
            context.options = {**context.options, "max_frame_delay": "1"}
        self._cut: set[int] = set()

    def feed(self, sent: Sent, packet: av.Packet) -> tuple[list[Shown], bool]:
        """Return the frames that come out for a packet, and whether an error did."""
        # Its number goes through the decoder in place of its time, and comes out with its frame.
        packet.pts = sent.ordinal
        if sent.is_cut:
            self._cut.add(sent.ordinal)
        try:
            frames = self._stream.decode(packet)
        except av.FFmpegError:
            return [], True
        return [self._shown(frame, sent.ordinal) for frame in frames], False

    def flush(self) -> tuple[list[Shown], bool]:
        """Return the frames still held back, and whether an error came."""
        try:
            frames = self._stream.decode(None)
        except av.FFmpegError:
            return [], True
        return [self._shown(frame, None) for frame in frames], False

    def _shown(self, frame: av.VideoFrame, fed: int | None) -> Shown:
        ordinal = frame.pts if frame.pts is not None else fed
        ordinal = -1 if ordinal is None else ordinal
        return Shown(ordinal, frame, frame.is_corrupt or ordinal in self._cut)
