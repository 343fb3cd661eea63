"""Frames of video files by number, with readers that stay open between accesses."""

import io
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from data.index.frame_files import FrameHeader
from sr_train.api.errors import DataError
from sr_train.io.video.frames import FrameIndex, FrameReader, build_index, probe

log = logging.getLogger(__name__)

_MOST_IDLE = 16
_MOST_INDEXES = 4096
_indexes: OrderedDict[str, FrameIndex] = OrderedDict()
"""Of files by their path: making one may take decoding the whole file."""

Source = str | BinaryIO


def count_frames(path: str) -> int:
    """Return how many frames a video has; damaged ones count, and have numbers, too.

    What is lost of it already is warned about.

    Raises:
        DataError: no video, or none of its frames can be decoded.
    """
    index = _remembered(path, build_index(path))
    if index.losses:
        log.warning("%s: %s", path, index.losses)
    return len(index.ordinals)


def _remembered(path: str, index: FrameIndex) -> FrameIndex:
    """Keep an index for readers of this process and of those that it starts by a fork."""
    _indexes[path] = index
    if len(_indexes) > _MOST_INDEXES:
        _indexes.popitem(last=False)
    return index


def _open(path: str, source: Source) -> FrameReader:
    reader = FrameReader(source, _indexes.get(path))
    _remembered(path, reader.index)
    return reader


def read_video_header(path: str) -> FrameHeader:
    """Return what the frames of a video are.

    Raises:
        DataError: no video, or damaged.
    """
    info = probe(path)
    return FrameHeader(info.height, info.width, 3, info.dtype, is_tensor=False)


class OpenVideos:
    """Readers of videos that stay open; a thread takes one, or opens one more, and gives it back.

    What a parent process had open is of no use after a fork, and must not be closed: that would
    wait for threads which do not exist there.
    """

    def __init__(self, open_source: Callable[[str], Source] = str) -> None:
        """Open nothing yet.

        Args:
            open_source: returns what to read for the path of a video; picklable.
        """
        self._open_source = open_source
        self._inherited: list[object] = []
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[tuple[str, FrameReader]] = []

    def __getstate__(self) -> Callable[[str], Source]:
        return self._open_source

    def __setstate__(self, state: Callable[[str], Source]) -> None:
        self.__init__(state)  # type: ignore[misc]

    def frame(self, path: str, number: int) -> np.ndarray:
        """Return a frame, (H, W, 3) RGB.

        Raises:
            DataError: the frame is damaged, or the file has fewer now.
        """
        reader = self._take(path) or _open(path, self._open_source(path))
        try:
            if number >= len(reader):
                raise DataError(
                    f"{path}: changed since it was indexed: it has {len(reader)} frames, frame "
                    f"{number} is wanted"
                )
            pixels = reader[number]
        except DataError:
            # Its other frames can still be read.
            self._give_back(path, reader)
            raise
        except BaseException:
            reader.close()
            raise
        self._give_back(path, reader)
        return pixels

    def _take(self, path: str) -> FrameReader | None:
        if self._process != os.getpid():
            self._inherited.append(self._idle)
            self._begin()
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == path:
                    return self._idle.pop(place)[1]
        return None

    def _give_back(self, path: str, reader: FrameReader) -> None:
        with self._lock:
            self._idle.append((path, reader))
            oldest = self._idle.pop(0)[1] if len(self._idle) > _MOST_IDLE else None
        if oldest is not None:
            oldest.close()


class FileInMemory(io.RawIOBase):
    """Bytes that a program reads like a file, without a copy of them."""

    def __init__(self, data: np.ndarray, name: str) -> None:
        self.name = name
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        part = self._data[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part.data
        self._position += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position
