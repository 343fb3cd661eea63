"""Frames of video files by number, with readers that stay open between accesses."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from data.frame_files import FrameHeader
from sr_train.ops.errors import DataError
from sr_train.ops.video_io import FrameReader, probe

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm"})
"""Lower-case file name suffixes that are taken for videos."""

_MOST_OPEN = 8

Source = str | BinaryIO


def is_video_file(path: str) -> bool:
    """Return whether a name is that of a video file."""
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def count_frames(path: str) -> int:
    """Return how many frames a video has, counted without decoding them.

    Raises:
        DataError: no video, or damaged.
    """
    with FrameReader(path) as reader:
        return len(reader)


def read_video_header(path: str) -> FrameHeader:
    """Return what the frames of a video are.

    Raises:
        DataError: no video, or damaged.
    """
    info = probe(path)
    return FrameHeader(info.height, info.width, 3, info.dtype, is_tensor=False)


class OpenVideos:
    """Readers of videos, a few for each thread; the oldest is closed for a new one."""

    def __init__(self, open_source: Callable[[str], Source] = str) -> None:
        """Open nothing yet.

        Args:
            open_source: returns what to read for the path of a video; picklable.
        """
        self._open_source = open_source
        self._local = threading.local()

    def __getstate__(self) -> Callable[[str], Source]:
        return self._open_source

    def __setstate__(self, state: Callable[[str], Source]) -> None:
        self.__init__(state)  # type: ignore[misc]

    def frame(self, path: str, number: int) -> np.ndarray:
        """Return a frame, (H, W, 3) RGB.

        Raises:
            DataError: the file is damaged, or has fewer frames now.
        """
        reader = self._reader(path)
        if number >= len(reader):
            raise DataError(
                f"{path}: changed since it was indexed: it has {len(reader)} frames, frame "
                f"{number} is wanted"
            )
        return reader[number]

    def _reader(self, path: str) -> FrameReader:
        # What a parent process had open is of no use after a fork.
        if getattr(self._local, "process", None) != os.getpid():
            self._local.process = os.getpid()
            self._local.readers = OrderedDict()
        readers: OrderedDict[str, FrameReader] = self._local.readers
        if path not in readers:
            if len(readers) >= _MOST_OPEN:
                readers.popitem(last=False)[1].close()
            readers[path] = FrameReader(self._open_source(path))
        readers.move_to_end(path)
        return readers[path]
