"""ImageDataset: pairs of images, or ground truth alone, for training and for validation."""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.cache.frame_cache import FrameCache, Record, budget
from data.index.arguments import Texts
from data.index.damage import BadFileError, Damage, reading, reason, skip_advice, stand_ins
from data.index.doubts import Pair, Sized, doubts, spread
from data.index.folders import FoundFile, resolve_roots, root_name
from data.index.identity import cache_key, fingerprint
from data.index.pairs import Entry, Requirements, build_index
from data.index.selecting import make_selection
from data.loading.cutting import place_image
from data.report import Report, make_report
from sr_train.api.dataset import SetFile, TrainDataset, WholeImage
from sr_train.api.errors import DataError, Problems
from sr_train.api.text import one_line
from sr_train.io.images import ImageHeader, read_image, to_rgb
from sr_train.ops.resize import imresize
from sr_train.utils.splitmix import splitmix64
from sr_train.utils.threads import num_spare_threads, num_threads

log = logging.getLogger(__name__)


class ImageDataset(TrainDataset):
    """Images of one or more folders, indexed by header, decoded when asked for, kept in RAM.

    Rules: grey becomes RGB; alpha is ignored (the colours count as stored); where one image is
    16 bit, all samples are uint16 and 8-bit values are multiplied by 257. The GT is cropped at
    its right and bottom to scale times the LQ. An LQ made here is MATLAB's bicubic of the whole
    cropped GT at the depth of the file.

    A sample is a pure function of (seed, epoch, index): neither cache nor processes change it.
    """

    def __init__(
        self,
        gt: Texts,
        scale: int,
        lq: Texts | None = None,
        lq_size: int | None = None,
        augment: bool = True,
        seed: int = 0,
        cache_gib: float | Literal["auto"] = "auto",
        include: Texts | None = None,
        exclude: Texts | None = None,
        list_file: str | None = None,
        on_bad: Literal["error", "skip"] = "error",
        name: str | None = None,
    ) -> None:
        """Scan the folders and read every header; decode nothing.

        Args:
            gt: one or several roots, searched with all their folders: absolute, relative to the
                working directory, with `~`, or `pkg://PACKAGE/FOLDER`. A `*` in place of a folder
                stands for each one there, as in `GOPRO_Large/train/*/sharp`.
            scale: integer factor between LQ and GT.
            lq: as many roots as `gt`, in the same order; None: the LQ is made from the GT.
                Partners have the same path below the root, see `data.index.build_index`.
            lq_size: side of the training crop in LQ pixels; None: for validation only.
            augment: mirror and turn training crops, the 8 symmetries of a square alike.
            seed: of crops and symmetries.
            cache_gib: GiB of RAM for decoded images, one copy for all processes of this
                machine that read the same files; 0: none; `auto`: half of what is available.
                Filled as images are asked for, see also `fill` and `preload`.
            include: patterns (`*`, `?`) on the GT's path below its root, with or without suffix;
                None: all. One that matches nothing is an error.
            exclude: patterns of images to leave out.
            list_file: text file with the name of an image on each line, its path below the root
                with or without suffix; what may follow it behind a blank is not looked at. None:
                all.
            on_bad: `error` raises when any image cannot be used; `skip` leaves those out and
                names them in the report. What turns out to be damaged, changed or gone only when
                it is decoded is named in the log, and `data.index.damage` says which samples stand
                in for its own; a set for validation decodes every file now to find it.
            name: for tables and logs; None: the name of the first root.

        Raises:
            DataError: a folder is missing or empty, or nothing usable is left.
            Problems: images that cannot be used, all of them, where `on_bad` is `error`.
        """
        if scale < 1 or (lq_size is not None and lq_size < 1):
            raise DataError(f"scale and lq_size must be at least 1, got {scale} and {lq_size}")
        if on_bad not in ("error", "skip"):
            raise DataError(f"on_bad must be error or skip, got {on_bad!r}")
        roots = resolve_roots("gt", gt)
        lq_roots = None if lq is None else resolve_roots("lq", lq)
        self.name = name or root_name(roots[0])
        self.scale = scale
        self.lq_size = lq_size
        self.sample_bytes = 0
        self._augment = augment
        self._seed = seed
        selection = make_selection(include, exclude, list_file)
        requirements = Requirements(scale=scale, lq_size=lq_size, selection=selection)
        self._index = build_index(roots, lq_roots, requirements)
        self._entries = self._index.entries
        problems = self.problems()
        if problems and (on_bad == "error" or not self._entries):
            raise Problems(problems, advice=skip_advice(self._entries))
        self._damage = Damage(on_bad == "skip")
        self._skipped = BadFileError if on_bad == "skip" else ()
        self._damaged: list[str] = []
        if on_bad == "skip" and lq_size is None:
            self._leave_out_damaged()
        self._dtype = np.uint16 if self._has_16_bit() else np.uint8
        shapes = [self._shapes(entry) for entry in self._entries]
        dtype = np.dtype(self._dtype)
        key = cache_key(f"images x{scale}", self._index.files())
        records = [tuple((shape, dtype) for shape in pair) for pair in shapes]
        self._store = FrameCache(records, budget(cache_gib), self._load, key)
        if lq_size is not None:
            self.sample_bytes = 3 * lq_size**2 * (1 + scale**2) * dtype.itemsize
        num_pixels = sum(math.prod(shape) for pair in shapes for shape in pair)
        self._decoded_bytes = num_pixels * dtype.itemsize

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def in_ram(self) -> bool:
        """Whether every image has a place in the cache."""
        return self._store.num_held == len(self._store)

    def names(self) -> list[str]:
        """Return the name of each image: its path below the root without suffix."""
        return [entry.name for entry in self._entries]

    def problems(self) -> list[str]:
        """Return one line, `path: why`, for each image that headers and names rule out."""
        return [one_line(f"{path}: {why}") for path, why in self._index.left_out]

    def fingerprint(self) -> str:
        """Return 16 hex digits, the same for copies of the files; see `data.index.identity`."""
        return fingerprint(self.names(), self._index.files())

    def report(self) -> Report:
        """Return what is used, what is left out and why, and what memory the cache takes."""
        return make_report(self.name, self._index, self.scale, self._store, self._decoded_bytes)

    def verify(self) -> list[str]:
        """Decode every file and return one line for each that is damaged; takes its time."""
        with ThreadPoolExecutor(num_threads()) as pool:
            found = pool.map(_faults, self._entries)
            return self._damaged + [str(error) for errors in found for error in errors]

    def warnings(self, num_samples: int = 8) -> list[str]:
        """Return what makes one doubt the set, though it can be used; see `data.index.doubts`."""
        sized = [Sized(e.name, e.gt_header.height, e.gt_header.width) for e in self._entries]
        places = [n for n, entry in enumerate(self._entries) if entry.lq is not None]
        chosen = [places[place] for place in spread(len(places), num_samples)]
        pairs = (Pair(self._entries[n].name, *self._store.get(n)) for n in chosen)
        return doubts(pairs, self.scale, sized, lambda number: self._store.get(number)[1])

    def gt_files(self) -> list[SetFile]:
        """Return the files of the ground truth, to compare sets by."""
        return [SetFile(entry.gt.path, entry.gt.num_bytes) for entry in self._entries]

    def newly_damaged(self) -> list[tuple[str, str]]:
        """Return (path, why) of files found damaged since the last call, in this process."""
        return self._damage.take()

    def fill(
        self,
        progress: Callable[[int, int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Fill the cache with few threads, beside a training that needs the processors too."""
        self._store.fill(None, num_spare_threads(), progress, stop, self._skipped)

    def cached(self) -> str:
        """Return in words how many images are in memory now."""
        return self._store.describe("images")

    def preload(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Fill the cache now, with threads, instead of at the first access.

        Args:
            progress: called with (images loaded, images to load) as they arrive.

        Raises:
            DataError: an image is damaged, and `on_bad` is `error`.
        """
        self._store.fill(None, num_threads(), progress, None, self._skipped)

    def whole(self, index: int) -> WholeImage:
        """Return an image uncropped, for validation.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed.
        """
        lq, gt = self._store.get(index)
        return WholeImage(self._entries[index].name, lq, gt)

    def whole_sizes(self) -> list[tuple[int, int, int]]:
        """Return (1, height, width) on the LQ grid of each image that `whole` returns."""
        return [(1, entry.lq_height, entry.lq_width) for entry in self._entries]

    def sample(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Return the training crop of an image in an epoch.

        Returns:
            `lq` (3, lq_size, lq_size) and `gt` (3, lq_size * scale, lq_size * scale), RGB, uint8
            or uint16.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed, and `on_bad` is
                `error`; or no file is whole.
        """
        batch = self.batch([(epoch, index)])
        return {key: value[0] for key, value in batch.items()}

    def batch(
        self, positions: Sequence[tuple[int, int]], pool: Executor | None = None
    ) -> dict[str, Tensor]:
        """Return samples stacked, (B, 3, ...); the crops are written straight into the batch."""
        if self.lq_size is None:
            raise DataError(f"{self.name}: training crops need lq_size")
        dtype = torch.uint16 if self._dtype is np.uint16 else torch.uint8
        count, side = len(positions), self.lq_size
        lq = torch.empty((count, 3, side, side), dtype=dtype)
        gt = torch.empty((count, 3, side * self.scale, side * self.scale), dtype=dtype)
        jobs = (list(positions), lq.numpy(), gt.numpy())
        if pool is None or all(self._store.is_ready(index) for _, index in positions):
            for (epoch, index), out_lq, out_gt in zip(*jobs, strict=True):
                self._write(epoch, index, out_lq, out_gt)
        else:
            epochs, indices = zip(*positions, strict=True)
            list(pool.map(self._write, epochs, indices, *jobs[1:]))
        return {"lq": lq, "gt": gt}

    def _write(self, epoch: int, index: int, out_lq: np.ndarray, out_gt: np.ndarray) -> None:
        """Write one sample into (3, h, w) arrays; of another image where its own is damaged."""
        bits = splitmix64(splitmix64(splitmix64(self._seed) ^ epoch) ^ index)
        self._damage.replace(
            stand_ins(self._seed, epoch, index, len(self)),
            lambda number: self._write_crop(number, bits, out_lq, out_gt),
        )

    def _write_crop(self, index: int, bits: int, out_lq: np.ndarray, out_gt: np.ndarray) -> None:
        """Write the crop of an image that random bits choose."""
        entry, side, scale = self._entries[index], out_lq.shape[1], self.scale
        top = ((bits >> 32) * (entry.lq_height - side + 1)) >> 32
        left = ((bits & 0xFFFFFFFF) * (entry.lq_width - side + 1)) >> 32
        symmetry = splitmix64(bits) & 7 if self._augment else 0
        if entry.lq is not None or self._store.holds(index):
            lq, gt = self._store.get(index)
            lq = lq[top : top + side, left : left + side]
        else:
            with self._damage.watched(index):
                gt = self._stored_gt(entry)
            lq = self._finished(imresize(gt, 1 / scale, window=(top, left, side, side)))
        gt = gt[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        place_image(lq, symmetry, out_lq)
        place_image(self._finished(gt), symmetry, out_gt)

    def _load(self, index: int) -> Record:
        """Return (lq, gt) of the whole image."""
        entry = self._entries[index]
        with self._damage.watched(index):
            gt = self._stored_gt(entry)
            if entry.lq is not None and entry.lq_header is not None:
                lq = _decoded(entry.lq, entry.lq_header)
            else:
                lq = imresize(gt, 1 / self.scale)
        return self._finished(lq), self._finished(gt)

    def _stored_gt(self, entry: Entry) -> np.ndarray:
        """Return the GT as its file has it, cropped to scale times the LQ."""
        pixels = _decoded(entry.gt, entry.gt_header)
        return pixels[: entry.lq_height * self.scale, : entry.lq_width * self.scale]

    def _finished(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels as RGB at the depth of the set."""
        pixels = to_rgb(pixels)
        if pixels.dtype != self._dtype:
            # 255 * 257 = 65535, so white stays white.
            pixels = pixels.astype(np.uint16) * np.uint16(257)
        return pixels

    def _has_16_bit(self) -> bool:
        return any(
            header is not None and header.dtype == "uint16"
            for entry in self._entries
            for header in (entry.gt_header, entry.lq_header)
        )

    def _shapes(self, entry: Entry) -> tuple[tuple[int, ...], tuple[int, ...]]:
        lq = (entry.lq_height, entry.lq_width, 3)
        return lq, (entry.lq_height * self.scale, entry.lq_width * self.scale, 3)

    def _leave_out_damaged(self) -> None:
        """Decode every file, so that each validation scores the same images.

        Raises:
            Problems: all are damaged.
        """
        log.info("%s: decoding every file, to leave out what is damaged (on_bad=skip)", self.name)
        with ThreadPoolExecutor(num_threads()) as pool:
            found = list(pool.map(_faults, self._entries))
        whole = [entry for entry, errors in zip(self._entries, found, strict=True) if not errors]
        self._damaged = [str(error) for errors in found for error in errors]
        self._index.left_out += [(e.path, reason(e, e.path)) for errors in found for e in errors]
        self._index.entries = self._entries = whole
        if not whole:
            raise Problems(self.problems())


def _faults(entry: Entry) -> list[BadFileError]:
    """Decode the files of an entry and return what is wrong with them."""
    errors = []
    for file, header in ((entry.gt, entry.gt_header), (entry.lq, entry.lq_header)):
        if file is not None and header is not None:
            try:
                _decoded(file, header)
            except BadFileError as error:
                errors.append(error)
    return errors


def _decoded(file: FoundFile, header: ImageHeader) -> np.ndarray:
    """Return a file's pixels, of the size that its header had when it was indexed.

    Raises:
        BadFileError: it is damaged, was changed, or is gone.
    """
    with reading(file.path):
        pixels = read_image(file.path).pixels
        if pixels.shape[:2] != (header.height, header.width) or pixels.dtype != header.dtype:
            raise DataError(
                f"{file.path}: changed since it was indexed: found {pixels.shape[1]}x"
                f"{pixels.shape[0]} {pixels.dtype}, expected {header.width}x{header.height} "
                f"{header.dtype}"
            )
    return pixels
