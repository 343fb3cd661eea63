"""Any frame of a video by its number: exactly the frames that reading from the start gives."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Self

import av
import numpy as np

from sr_train.api.errors import DataError
from sr_train.io.video.colour import ToRGB
from sr_train.io.video.decoding import Decoder, Packets, Sent, Shown
from sr_train.io.video.index import FrameIndex, Key, build_index, mark_of
from sr_train.io.video.info import probe
from sr_train.io.video.source import Source, explained, open_video, video_stream

_MOST_SKIPPED = 64
"""Packets after the place of a seek until one must be known."""
_MOST_STARTS = 2
"""Key frames from which a frame is looked for, before the start of the file is."""


class FrameReader:
    """Any frame of a video by its number, exactly; close it, or use it in a `with`.

    A frame is found by decoding from the key frame before it; frames asked for in order cost no
    more than reading does. Not for several threads at a time; it does not survive a fork.

    A frame that is damaged, or that was made from one that is, raises a DataError; the others keep
    their numbers.

    Args:
        source: path, or open binary file that can seek.
        index: of this file, from another reader; None: it is made.

    Raises:
        DataError: no such file, no video in it, or none of its frames can be decoded.
    """

    def __init__(self, source: Source, index: FrameIndex | None = None) -> None:
        self.info = probe(source)
        self.index = build_index(source) if index is None else index
        self._source = source
        self._open()
        self._convert = ToRGB(self.info.bits, self.info.orientation)
        self._coming: Iterator[tuple[int, Shown]] = iter(())
        self._shown: tuple[int, Shown] | None = None
        """The last frame that came, and its number."""
        self._sent = 0
        """Ordinal of the next packet."""
        self._failed: set[int] = set()
        """Ordinals of damaged packets since decoding started somewhere."""
        self._absent: set[int] = set()
        """Ordinals of packets whose frames did not come since then."""
        self._hopeless: set[int] = set()
        """Numbers of frames that no start brings."""

    def _open(self) -> None:
        self._container, self._name = open_video(self._source)
        self._stream = video_stream(self._container, self._name)
        self._decoder = Decoder(self._stream, hasty=False)
        self._depth = self._stream.codec_context.reorder_depth

    def __len__(self) -> int:
        return len(self.index.ordinals)

    def __getitem__(self, number: int) -> np.ndarray:
        """Return frame `number`, (H, W, 3) RGB.

        Raises:
            IndexError: if there is no such frame.
            DataError: if it is damaged or missing.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"{self._name}: frame {number} of {len(self)}")
        if self.index.ordinals[number] < 0 or number in self._hopeless:
            raise DataError(f"{self._name}: frame {number} is missing: damaged")
        with explained(f"{self._name}: frame {number}"):
            shown = self._found(number)
        if shown is None:
            self._hopeless.add(number)
            raise DataError(f"{self._name}: frame {number} cannot be decoded: damaged")
        if self._is_tainted(number):
            raise DataError(f"{self._name}: frame {number} is damaged, or made from one that is")
        return self._convert(shown.frame)

    def close(self) -> None:
        """Close the file, unless it was given open."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _found(self, number: int) -> Shown | None:
        """Decode on to a frame, or from a key frame before it, or from the start of the file."""
        keys = self.index.keys_before(number)
        if self._shown is not None:
            at, shown = self._shown
            if at == number:
                return shown
            if at < number and keys[0].ordinal <= self._sent:
                found = self._forward_to(number)
                if found is not None or self._has_failed(number):
                    return found
        for key in keys[:_MOST_STARTS]:
            self._start_at(key)
            found = self._forward_to(number)
            if found is not None or self._has_failed(number):
                return found
        self._start_at(None)
        return self._forward_to(number)

    def _forward_to(self, number: int) -> Shown | None:
        """Decode on up to a frame; None if it does not come."""
        for at, shown in self._coming:
            if self._shown is not None:
                self._absent.update(self.index.ordinals[self._shown[0] + 1 : at].tolist())
            self._shown = (at, shown)
            if at >= number:
                return shown if at == number else None
        self._shown = None
        return None

    def _has_failed(self, number: int) -> bool:
        return int(self.index.ordinals[number]) in self._failed

    def _is_tainted(self, number: int) -> bool:
        """Return whether a packet that a frame may be made from is damaged."""
        groups, own = self.index.needed_groups(number), int(self.index.ordinals[number])
        return any(
            0 <= ordinal <= own and self.index.group(ordinal) in groups
            for ordinal in (*self._failed, *self._absent, *self.index.damaged)
        )

    def _start_at(self, key: Key | None) -> None:
        """Let frames come from a key frame on; None: from the start of the file, opened anew."""
        self._shown = None
        self._failed, self._absent = set(), set()
        if key is None or key.ordinal == 0 or not self._seek(key):
            self._container.close()
            self._open()
            self._coming = self._frames_from(self.index.keys[0])
            return
        self._stream.codec_context.reorder_depth = self._depth
        self._coming = self._frames_from(key)

    def _seek(self, key: Key) -> bool:
        """Go to a key frame, or before it; return whether the container can."""
        try:
            if key.ticks is not None:
                self._container.seek(key.ticks, stream=self._stream)
            elif key.mark[0] is not None:
                self._container.seek(key.mark[0], unsupported_byte_offset=True)
            else:
                return False
        except (OSError, av.FFmpegError):
            return False
        return True

    def _frames_from(self, key: Key) -> Iterator[tuple[int, Shown]]:
        """Yield the frames that come, and their numbers; none where the place is not known."""
        packets = Packets(self._container, self._stream)
        is_known = is_whole = key.ordinal == 0
        self._sent = 0
        for sent, packet in packets:
            one = sent
            if not is_known:
                known = self.index.marked.get(mark_of(self._container, sent, packet))
                if known is None and packets.count < _MOST_SKIPPED:
                    continue
                if known is None:
                    return
                one = replace(sent, ordinal=known.ordinal)
                packets.count = known.ordinal + 1
                is_known = True
            if not self._is_listed(one):
                if is_whole:
                    raise DataError(f"{self._name}: changed since it was indexed")
                return
            self._sent = one.ordinal + 1
            shown, has_failed = self._decoder.feed(one, packet)
            if has_failed:
                self._failed.add(one.ordinal)
            yield from self._numbered(shown)
        shown, _ = self._decoder.flush()
        yield from self._numbered(shown)

    def _numbered(self, shown: list[Shown]) -> Iterator[tuple[int, Shown]]:
        for one in shown:
            number = self.index.numbers.get(one.ordinal)
            if number is None:
                continue
            if one.is_flawed or (one.frame.width, one.frame.height) != self.info.stored_size:
                self._failed.add(one.ordinal)
            yield number, one

    def _is_listed(self, sent: Sent) -> bool:
        sizes = self.index.sizes
        return sent.ordinal < len(sizes) and int(sizes[sent.ordinal]) == sent.size
