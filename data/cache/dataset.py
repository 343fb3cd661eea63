"""CachedDataset: what sets of images and of clips have in common."""

import logging
import math
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.cache.clip_frames import CacheMode, ClipFrames
from data.cache.frame_cache import budget
from data.cache.pixels import Window
from data.index.damage import BadFileError, Damage, reason, stand_ins
from data.index.doubts import Pair, Sized, doubts, spread
from data.index.identity import cache_key, fingerprint
from data.index.segments import IMAGES, Index, Segment
from sr_train.api.dataset import SetFile, TrainDataset
from sr_train.api.errors import DataError, Problems
from sr_train.utils.splitmix import splitmix64
from sr_train.utils.threads import num_spare_threads, num_threads

log = logging.getLogger(__name__)

CacheSize = float | Literal["auto"]


class CachedDataset(TrainDataset):
    """Samples cut from the frames of an index, which are kept in RAM as far as a budget goes.

    An image is a segment of one frame. A sample is a pure function of (seed, epoch, index): neither
    cache nor processes change it.
    """

    def __init__(
        self,
        index: Index,
        name: str,
        scale: int,
        lq_size: int | None,
        axes: tuple[int, ...] | None,
        augment: bool,
        seed: int,
        on_bad: str,
        cache_gib: CacheSize,
        cache: CacheMode,
    ) -> None:
        """Set up the cache; decodes nothing but what validation must know to be whole.

        Args:
            index: of what is used; `Index.check` has passed.
            name: for tables and logs.
            scale: integer factor between LQ and GT.
            lq_size: side of the training crop in LQ pixels; None: for validation only.
            axes: lengths of a sample's axes before (C, H, W): of a clip, its frames. None: for
                validation only.
            augment: mirror and turn training crops.
            seed: of all that is drawn for a sample.
            on_bad: `error` or `skip`, what to do about files that prove to be damaged.
            cache_gib: GiB of RAM, or `auto`.
            cache: what it keeps.

        Raises:
            Problems: all that validation could use is damaged.
        """
        self.name = name
        self.scale = scale
        self.lq_size = lq_size
        self.sample_bytes = 0
        self._axes = axes
        self._augment = augment
        self._seed = seed
        self._index = index
        self._damage = Damage(on_bad == "skip")
        self._damaged: list[str] = []
        extras = [modality for modality in index.segments[0].tracks if modality not in IMAGES]
        if on_bad == "skip" and axes is None:
            self._leave_out_damaged(extras)
        self._segments: Sequence[Segment] = index.segments
        key = cache_key("frames", index.files(), index.parts())
        size = budget(cache_gib)
        self._frames = ClipFrames(self._segments, scale, extras, cache, size, key, self._damage)
        if lq_size is not None and axes is not None:
            crops = self._frames.crop_shapes(lq_size).values()
            num_bytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in crops)
            self.sample_bytes = math.prod(axes) * num_bytes
        shapes = self._frames.crop_shapes(1)
        self.extra_channels = {name: shapes[name][0][0] for name in extras}

    @property
    @abstractmethod
    def _units(self) -> str:
        """What the records of the cache are called."""

    @property
    def in_ram(self) -> bool:
        """Whether every frame has a place in the cache, decoded."""
        store = self._frames.store
        return self._frames.mode == "decoded" and store.num_held == len(store)

    def names(self) -> list[str]:
        """Return the name of each image or segment: its path below the root, without suffix."""
        return [segment.name for segment in self._segments]

    def problems(self) -> list[str]:
        """Return one line, `path: why`, for each file or sequence that cannot be used."""
        return self._index.problems()

    def fingerprint(self) -> str:
        """Return 16 hex digits, the same for copies of the files; see `data.index.identity`."""
        return fingerprint(self._index.parts(), self._index.files())

    def verify(self) -> list[str]:
        """Decode every file and return one line for each that is damaged; takes its time."""
        places = (self._frames.place(number) for number in range(self._frames.num_frames))
        with ThreadPoolExecutor(num_threads()) as pool:
            found = pool.map(self._frames.faults, *zip(*places, strict=True))
            lines = [str(error) for errors in found for error in errors]
            return list(dict.fromkeys(self._damaged + lines))

    def warnings(self, num_samples: int = 8) -> list[str]:
        """Return what makes one doubt the set, though it can be used; see `data.index.doubts`."""
        headers = [segment.tracks["gt"].header for segment in self._segments]
        sizes = [(header.height, header.width) for header in headers]
        sized = [
            Sized(segment.name, *size) for segment, size in zip(self._segments, sizes, strict=True)
        ]
        count = self._frames.num_frames if "lq" in self._segments[0].tracks else 0
        places = [self._frames.place(number) for number in spread(count, num_samples)]
        pairs = (
            Pair(self._segments[segment].frame_label(t), *self._pair(segment, t))
            for segment, t in places
        )
        return doubts(pairs, self.scale, sized, lambda segment: self._frames.part(segment, 0, "gt"))

    def _pair(self, segment: int, t: int) -> tuple[np.ndarray, np.ndarray]:
        return self._frames.part(segment, t, "lq"), self._frames.part(segment, t, "gt")

    def gt_files(self) -> list[SetFile]:
        """Return the files of the ground truth's frames, to compare sets by."""
        frames = [frame for segment in self._segments for frame in segment.tracks["gt"].frames]
        return [SetFile(f.file.path, f.file.num_bytes, f.number) for f in frames]

    def newly_damaged(self) -> list[tuple[str, str]]:
        """Return (path, why) of files found damaged since the last call, in this process."""
        return self._damage.take()

    def fill(
        self,
        progress: Callable[[int, int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Fill the cache with few threads, beside a training that needs the processors too."""
        self._frames.fill(num_spare_threads(), progress, stop)

    def cached(self) -> str:
        """Return in words how much is in memory now."""
        return self._frames.store.describe(self._units)

    def preload(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Fill the cache now, with threads, instead of at the first access.

        Args:
            progress: called with (records loaded, records to load) as they arrive.

        Raises:
            DataError: a file is damaged, and `on_bad` is `error`.
        """
        self._frames.fill(num_threads(), progress)

    def whole_sizes(self) -> list[tuple[int, int, int]]:
        """Return (frames, height, width) on the LQ grid of each item that `whole` returns."""
        return [(len(segment), segment.lq_height, segment.lq_width) for segment in self._segments]

    def sample(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Return the training crop of an image or clip in an epoch.

        Returns:
            `lq` (*axes, 3, lq_size, lq_size) and `gt` (*axes, 3, lq_size * scale, lq_size *
            scale), RGB, uint8 or uint16, and the further inputs (*axes, S, lq_size, lq_size) by
            name, each of its files' dtype; the axes of a clip are its frames, an image has none.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed, and `on_bad` is
                `error`; or nothing is whole.
        """
        batch = self.batch([(epoch, index)])
        return {key: value[0] for key, value in batch.items()}

    def batch(
        self, positions: Sequence[tuple[int, int]], pool: Executor | None = None
    ) -> dict[str, Tensor]:
        """Return samples stacked, (B, ...); the crops are written straight into the batch."""
        if self.lq_size is None or self._axes is None:
            raise DataError(f"{self.name}: training {self._needed}")
        tensors = {
            name: torch.empty((len(positions), *self._axes, *shape), dtype=dtype)
            for name, (shape, dtype) in self._frames.crop_shapes(self.lq_size).items()
        }
        outs = list(zip(*(tensor.numpy() for tensor in tensors.values()), strict=True))
        if pool is None or self._is_quick(positions):
            for (epoch, index), out in zip(positions, outs, strict=True):
                self._write(epoch, index, out)
        else:
            epochs, indices = zip(*positions, strict=True)
            list(pool.map(self._write, epochs, indices, outs))
        return tensors

    _needed = "crops need lq_size"
    """What makes a set one for validation only."""

    def _is_quick(self, positions: Sequence[tuple[int, int]]) -> bool:
        """Return whether threads would cost more than they save for these samples."""
        return False

    def _write(self, epoch: int, index: int, out: Sequence[np.ndarray]) -> None:
        """Write one sample into its arrays; another one where its own has a damaged file."""
        bits = splitmix64(splitmix64(splitmix64(self._seed) ^ epoch) ^ index)
        self._damage.replace(
            stand_ins(self._seed, epoch, index, len(self)),
            lambda number: self._write_crop(number, bits, out),
        )

    @abstractmethod
    def _write_crop(self, index: int, bits: int, out: Sequence[np.ndarray]) -> None:
        """Write the crop of an image or clip that random bits choose: LQ, GT, further inputs."""

    def _window(self, segment: Segment, bits: int, side: int) -> Window:
        """Return the crop of a segment that random bits choose."""
        top = ((bits >> 32) * (segment.lq_height - side + 1)) >> 32
        left = ((bits & 0xFFFFFFFF) * (segment.lq_width - side + 1)) >> 32
        return top, left, side

    def _symmetry(self, bits: int) -> int:
        return bits & 7 if self._augment else 0

    def _leave_out_damaged(self, extras: Sequence[str]) -> None:
        """Decode every file, so that each validation scores the same images and sequences.

        Raises:
            Problems: none is whole.
        """
        log.info("%s: decoding every file, to leave out what is damaged (on_bad=skip)", self.name)
        index, segments = self._index, self._index.segments
        frames = ClipFrames(segments, self.scale, extras, "decoded", 0, "", Damage(False))

        def first_faults(segment: int) -> list[BadFileError]:
            each = (frames.faults(segment, t) for t in range(len(segments[segment])))
            return next((errors for errors in each if errors), [])

        with ThreadPoolExecutor(num_threads()) as pool:
            found = list(pool.map(first_faults, range(len(segments))))
        for segment, errors in zip(segments, found, strict=True):
            self._damaged += [str(error) for error in errors]
            end = f"; {segment.name} is left out" if len(segment) > 1 else ""
            index.left_out += [(e.path, f"{reason(e, e.path)}{end}") for e in errors]
        index.segments = [
            segment for segment, errors in zip(segments, found, strict=True) if not errors
        ]
        if not index.segments:
            raise Problems(self.problems())
