"""Whether a file that was read to its end ends where it should."""

from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer

from sr_train.io.video.decoding import Packets
from sr_train.io.video.info import counted_frames, rate_of
from sr_train.io.video.losses import Losses, seconds
from sr_train.io.video.source import Source, bytes_at, start_of

_DECLARING = ("matroska", "flv", "asf", "nut")
"""Containers that say how long they are, by a number that the demuxer does not measure itself."""
_MOST_UNSAID = Fraction(1, 4)
"""Seconds by which times may fall short of what a container says."""
_MOST_DELAY = 2
"""Frames that an AVI counts and does not hold, where its encoder held them back."""
_TS_UNITS = (188, 192, 204)
"""Bytes of a packet of a transport stream: plain, with times, with a checksum."""
_MOST_BEHIND = 4096
"""Bytes of what else may stand after the last frame of a GIF."""


def early_end(
    source: Source, container: InputContainer, stream: Any, packets: Packets, losses: Losses
) -> None:
    """Note where a file ends before it should, and how many frames are missing there.

    Args:
        source: the file.
        container: it, read to its end.
        stream: of it.
        packets: read.
        losses: takes it.
    """
    kind = container.format.name
    end, whole, count = packets.stream_end, None, 0
    if kind == "avi":
        count = stream.frames - packets.ticks
        is_cut = count > _MOST_DELAY and not _has_more(source, container, packets)
        count = count if is_cut else 0
    elif kind.startswith("mov") and stream.frames:
        count = max(counted_frames(container, stream) - packets.num_shown, 0)
    elif kind.startswith((*_DECLARING, "mov")):
        end, whole = _ends(container, stream, packets)
        rate = rate_of(stream) or Fraction(25)
        least = max(_MOST_UNSAID, Fraction(5, 2) / rate, packets.longest_step)
        if whole is not None and whole - end > least:
            count = round((whole - end) * rate)
    if count > 0 or packets.error is not None or _is_torn(source, container, packets):
        at = seconds(max(end - start_of(container), Fraction(0)))
        of = f" of {seconds(whole)}" if count and whole is not None else ""
        losses.early_end = f"it ends early, at {at}{of}"
        losses.cut_off = count


def _ends(
    container: InputContainer, stream: Any, packets: Packets
) -> tuple[Fraction, Fraction | None]:
    """Return at which second a file ends, and at which it says it does."""
    if container.duration is None:
        return packets.end, None
    whole = Fraction(container.duration, av.time_base)
    own = _seconds_of_tag(stream.metadata.get("DURATION", ""))
    # A tag may be left over from a longer file.
    return (packets.end, whole) if own is None else (packets.stream_end, min(own, whole))


def _seconds_of_tag(text: str) -> Fraction | None:
    """Return the seconds of `00:01:02.345`."""
    try:
        hours, minutes, rest = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(rest)
    except ValueError:
        return None


def _has_more(source: Source, container: InputContainer, packets: Packets) -> bool:
    """Return whether an AVI continues after its last packet, with its index or what else it has."""
    if packets.last_byte is None:
        return False
    start = packets.last_byte + packets.last_byte % 2
    head = bytes_at(source, start, 8)
    is_chunk = len(head) == 8 and all(32 <= byte < 127 for byte in head[:4])
    return is_chunk and start + 8 + int.from_bytes(head[4:], "little") <= container.size


def _is_torn(source: Source, container: InputContainer, packets: Packets) -> bool:
    """Return whether the last bytes are not those with which a file of its kind ends."""
    kind, last = container.format.name, packets.last_byte
    if kind == "mpegts" and packets.first_byte is not None:
        left = {(container.size - packets.first_byte) % unit for unit in _TS_UNITS}
        return not left & {0, 4}
    if last is None:
        return False
    if kind == "gif":
        goes_on = container.size - last > _MOST_BEHIND
        return goes_on or b";" not in bytes_at(source, last - 1, 2)
    return kind == "yuv4mpegpipe" and container.size > last
