"""The frames of the segments of a clip set: from the RAM cache, or from their files.

Modes of the cache: `decoded` keeps a record for each frame, with the LQ, the GT and the further
inputs as they go into batches; `encoded` keeps the bytes of each file, a video's once, and decodes
at every access.
"""

import bisect
import itertools
import math
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

import numpy as np
import torch

from data.cache.frame_cache import FrameCache, Record
from data.cache.pixels import Window, cropped, deepened, planes
from data.index.damage import BadFileError, Damage, reading
from data.index.frame_files import decode_frame, read_bytes, read_frame
from data.index.segments import Frame, Segment, Track
from data.index.videos import FileInMemory, OpenVideos, Source
from sr_train.api.errors import DataError
from sr_train.io.video.frames import read_frames
from sr_train.ops.resize import imresize
from sr_train.utils.memory import available_bytes
from sr_train.utils.threads import for_each

CacheMode = Literal["decoded", "encoded"]
Progress = Callable[[int, int], None]

_Shapes = tuple[tuple[tuple[int, ...], np.dtype], ...]


@dataclass(frozen=True)
class CacheFacts:
    """What a report says about the cache."""

    mode: CacheMode
    held: int
    """Of `records` with a place in memory; the others are read or decoded at every access."""
    records: int
    """Frames or, of the cache `encoded`, files."""
    num_bytes: int
    """Memory of the cache when it is full."""
    wanted_bytes: int
    """Memory that a cache of everything would take."""
    is_shared: bool
    """Whether another process of this machine has that memory already, so it costs nothing."""
    free_bytes: int
    """What the machine and its limits leave now."""


class ClipFrames:
    """LQ, GT and further inputs of each frame of each segment.

    A record is (lq (h, w, 3), gt (h * scale, w * scale, 3), further inputs (S, h, w) ...).
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        scale: int,
        extras: Sequence[str],
        mode: CacheMode,
        budget_bytes: int,
        key: str,
        damage: Damage,
    ) -> None:
        """Set up the cache; reads nothing.

        Args:
            segments: whose frames these are; all have the same further inputs.
            scale: by which the LQ is made where a segment has none.
            extras: names of the further inputs, in the order of a record.
            mode: what the cache keeps.
            budget_bytes: upper limit of its memory.
            key: fingerprint of the files.
            damage: remembers frames whose files are damaged.
        """
        self._damage = damage
        self.extras = tuple(extras)
        """Names of the further inputs."""
        headers = [
            segment.tracks[m].header
            for segment in segments
            for m in ("gt", "lq")
            if m in segment.tracks
        ]
        is_deep = any(header.dtype == "uint16" for header in headers)
        self.dtype = np.dtype(np.uint16 if is_deep else np.uint8)
        """Of all images."""
        self._segments = list(segments)
        self._scale = scale
        self.mode: CacheMode = mode
        self._is_decoded = mode == "decoded"
        self._first = array("q", itertools.accumulate(map(len, segments), initial=0))
        self._files: dict[str, int] = {}
        """Place of each file among those of the cache `encoded`."""
        self._videos = OpenVideos(self._open_video)
        key = f"clips x{scale} {mode} {self.extras} {self.dtype}\n{key}"
        if self._is_decoded:
            records = [
                shapes for segment in segments for shapes in [self._shapes(segment)] * len(segment)
            ]
            self.store = FrameCache(records, budget_bytes, self._made, key)
        else:
            tracks = [track for segment in segments for track in segment.tracks.values()]
            sizes = {f.file.path: f.file.num_bytes for track in tracks for f in track.frames}
            self._files = {path: number for number, path in enumerate(sizes)}
            self._paths, self._sizes = list(sizes), list(sizes.values())
            records = [(((size,), np.dtype(np.uint8)),) for size in sizes.values()]
            self.store = FrameCache(records, budget_bytes, self._bytes, key)
        self.wanted_bytes = sum(
            math.prod(shape) * dtype.itemsize for parts in records for shape, dtype in parts
        )
        """Memory that a cache of everything takes."""

    @property
    def num_frames(self) -> int:
        """Of all segments."""
        return self._first[-1]

    def place(self, number: int) -> tuple[int, int]:
        """Return the segment of a frame, counted over all segments, and its place there."""
        segment = bisect.bisect_right(self._first, number) - 1
        return segment, number - self._first[segment]

    def get(self, segment: int, t: int) -> Record:
        """Return a frame's record; its arrays may be read-only.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed.
        """
        number = self._first[segment] + t
        return self.store.get(number) if self._is_decoded else self._made(number)

    def clip(self, segment: int, first: int, count: int, step: int) -> Record | None:
        """Return `count` frames, every `step`-th from `first` on, as views of (count, ...).

        Returns:
            A record with one more axis, or None where the cache does not have them all decoded.

        Raises:
            BadFileError: one is known to be damaged.
        """
        start = self._first[segment] + first
        record = self.store.run(start, count, step) if self._is_decoded else None
        if record is None:
            self._damage.check(range(start, start + count * step, step))
        return record

    def crop(self, segment: int, t: int, window: Window) -> Record:
        """Return a part of a frame's record, without making more of the LQ than that.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed.
        """
        tracks, number = self._segments[segment].tracks, self._first[segment] + t
        if "lq" in tracks or (self._is_decoded and self.store.holds(number)):
            return cropped(self.get(segment, t), window, self._scale)
        with self._damage.watched(number):
            gt = self._stored_gt(segment, t)
            rest = [planes(tracks[name], self._pixels(tracks[name], t)) for name in self.extras]
        top, left, side = window
        lq = imresize(gt, 1 / self._scale, window=(top, left, side, side))
        _, part, *others = cropped((gt, gt, *rest), window, self._scale)
        return (self._finished(lq), self._finished(part), *others)

    def crop_shapes(self, side: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return shape, channels first, and dtype of a square crop of each part of a record."""
        large = side * self._scale
        sizes = [(3, side, side), (3, large, large)]
        parts = self._shapes(self._segments[0])
        sizes += [(shape[0], side, side) for shape, _ in parts[2:]]
        dtypes = [getattr(torch, dtype.name) for _, dtype in parts]
        names = ("lq", "gt", *self.extras)
        return dict(zip(names, zip(sizes, dtypes, strict=True), strict=True))

    def facts(self) -> CacheFacts:
        """Return what a report says about the cache."""
        store = self.store
        return CacheFacts(
            mode=self.mode,
            held=store.num_held,
            records=len(store),
            num_bytes=store.num_bytes,
            wanted_bytes=self.wanted_bytes,
            is_shared=store.shared,
            free_bytes=available_bytes(),
        )

    def part(self, segment: int, t: int, name: str) -> np.ndarray:
        """Return one part of a frame's record, `lq`, `gt` or a further input, and make no other.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed.
        """
        number, tracks = self._first[segment] + t, self._segments[segment].tracks
        if self._is_decoded and self.store.holds(number):
            return self.store.get(number)[("lq", "gt", *self.extras).index(name)]
        if name == "gt":
            return self._finished(self._stored_gt(segment, t))
        if name == "lq" and "lq" not in tracks:
            return self._finished(imresize(self._stored_gt(segment, t), 1 / self._scale))
        pixels = self._pixels(tracks[name], t)
        return self._finished(pixels) if name == "lq" else planes(tracks[name], pixels)

    def fill(
        self, threads: int, progress: Progress | None = None, stop: threading.Event | None = None
    ) -> None:
        """Fill the cache; each video is decoded once, from its start to its end.

        Raises:
            DataError: a file is damaged, and those are not skipped.
        """
        skipped = BadFileError if self._damage.is_skipped else ()
        counted = _Counted(self.store, progress)

        def stream(segment: int) -> bool:
            try:
                return self._stream(segment, counted, stop)
            except skipped:
                return True  # what is left of it comes frame by frame

        if self._is_decoded:
            segments = [
                segment
                for segment in range(len(self._segments))
                if self._is_to_be_streamed(segment)
            ]
            for_each(segments, stream, threads, stop)
        self.store.fill(None, threads, lambda *_: counted.add(), stop, skipped)

    def faults(self, segment: int, t: int) -> list[BadFileError]:
        """Decode a frame and return what is wrong with its files."""
        errors = []
        for track in self._segments[segment].tracks.values():
            try:
                self._pixels(track, t)
            except BadFileError as error:
                errors.append(error)
        return errors

    def _is_to_be_streamed(self, segment: int) -> bool:
        """Return whether frames of a video are missing in the cache."""
        numbers = range(self._first[segment], self._first[segment + 1])
        return any(
            track.frames[0].number is not None for track in self._segments[segment].tracks.values()
        ) and any(self.store.holds(n) and not self.store.is_ready(n) for n in numbers)

    def _stream(self, segment: int, counted: "_Counted", stop: threading.Event | None) -> bool:
        """Put the frames of a segment into the cache in their order; False: memory got short."""
        tracks = self._segments[segment].tracks
        sources = [self._in_order(track) for track in tracks.values()]
        for t, pixels in enumerate(zip(*sources, strict=True)):
            number = self._first[segment] + t
            if (stop and stop.is_set()) or not self.store.holds(number):
                break
            if not self.store.is_ready(number):
                record = self._record(segment, dict(zip(tracks, pixels, strict=True)))
                if not self.store.put(number, record):
                    return False
                counted.add()
        return True

    def _in_order(self, track: Track) -> Iterator[np.ndarray]:
        """Yield the frames of a track."""
        first = track.frames[0]
        if first.number is None:
            yield from (self._pixels(track, t) for t in range(len(track.frames)))
            return
        frames = read_frames(first.file.path, first.number)
        for t in range(len(track.frames)):
            with reading(first.file.path):
                pixels = next(frames, None)
                if pixels is None:
                    raise DataError(
                        f"{first.file.path}: damaged or changed since it was indexed: it ends "
                        f"after {first.number + t} frames"
                    )
                pixels = self._checked(track, t, pixels)
            yield pixels

    def _shapes(self, segment: Segment) -> _Shapes:
        height, width, scale = segment.lq_height, segment.lq_width, self._scale
        headers = [segment.tracks[name].header for name in self.extras]
        return (
            ((height, width, 3), self.dtype),
            ((height * scale, width * scale, 3), self.dtype),
            *(((h.channels, height, width), np.dtype(h.dtype)) for h in headers),
        )

    def _made(self, number: int) -> Record:
        """Return the record of a frame from its files."""
        segment, t = self.place(number)
        tracks = self._segments[segment].tracks
        with self._damage.watched(number):
            return self._record(segment, {name: self._pixels(tracks[name], t) for name in tracks})

    def _record(self, segment: int, pixels: dict[str, np.ndarray]) -> Record:
        gt = self._fitting_gt(segment, pixels["gt"])
        lq = pixels["lq"] if "lq" in pixels else imresize(gt, 1 / self._scale)
        tracks = self._segments[segment].tracks
        rest = (planes(tracks[name], pixels[name]) for name in self.extras)
        return (self._finished(lq), self._finished(gt), *rest)

    def _stored_gt(self, segment: int, t: int) -> np.ndarray:
        return self._fitting_gt(segment, self._pixels(self._segments[segment].tracks["gt"], t))

    def _fitting_gt(self, segment: int, gt: np.ndarray) -> np.ndarray:
        """Return the GT cropped to scale times the LQ."""
        height, width = self._segments[segment].lq_height, self._segments[segment].lq_width
        return gt[: height * self._scale, : width * self._scale]

    def _finished(self, pixels: np.ndarray) -> np.ndarray:
        """Return an image at the depth of the set."""
        return deepened(pixels, self.dtype)

    def _pixels(self, track: Track, t: int) -> np.ndarray:
        """Return a frame of a track as its file has it; a grey image as RGB.

        Raises:
            BadFileError: the file is damaged, was changed, or is gone.
        """
        with reading(track.frames[t].file.path):
            return self._checked(track, t, self._decoded(track.frames[t]))

    def _decoded(self, frame: Frame) -> np.ndarray:
        path = frame.file.path
        if frame.number is not None:
            return self._videos.frame(path, frame.number)
        if self._is_decoded:
            return read_frame(path)
        return decode_frame(self.store.get(self._files[path])[0].tobytes(), path)

    def _checked(self, track: Track, t: int, pixels: np.ndarray) -> np.ndarray:
        """Return pixels if they are what the track has, but for the depth of images."""
        header = track.header
        is_same = pixels.dtype in (header.dtype, np.uint8)
        expected: tuple[int, ...] = (header.height, header.width, 3)
        if header.is_tensor:
            expected = (header.channels, header.height, header.width)
            is_same = pixels.dtype == header.dtype
        if pixels.shape != expected or not is_same:
            height, width = pixels.shape[:2]
            shape = str(pixels.shape) if header.is_tensor else f"{width}x{height}"
            raise DataError(
                f"{track.frames[t].file.path}: changed since it was indexed: found {shape} "
                f"{pixels.dtype}, expected {header}"
            )
        return pixels

    def _bytes(self, number: int) -> Record:
        """Return the bytes of a file."""
        path = self._paths[number]
        with reading(path):
            data = read_bytes(path)
            if len(data) != self._sizes[number]:
                raise DataError(
                    f"{path}: changed since it was indexed: found {len(data)} bytes, expected "
                    f"{self._sizes[number]}"
                )
        return (np.frombuffer(data, np.uint8),)

    def _open_video(self, path: str) -> Source:
        """Return the bytes of a video in the cache as a file, else its path."""
        number = self._files.get(path)
        if number is None or not self.store.holds(number):
            return path
        return cast(BinaryIO, FileInMemory(self.store.get(number)[0], path))


class _Counted:
    """Counts the records that arrive in a store, for whoever wants to know."""

    def __init__(self, store: FrameCache, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0
        self._total = store.num_held - store.num_ready()
        self._lock = threading.Lock()

    def add(self) -> None:
        """Tell that one more is there."""
        with self._lock:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)
