"""ClipDataset: segments of frames with all that belongs to them, for training and validation."""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.cache.cached_clip import CachedClip
from data.cache.clip_frames import CacheMode, ClipFrames, cropped
from data.cache.frame_cache import budget
from data.clip_report import ClipReport, make_clip_report
from data.index import arguments
from data.index.arguments import Texts, texts
from data.index.damage import BadFileError, Damage, reason, skip_advice, stand_ins
from data.index.doubts import Pair, Sized, doubts, spread
from data.index.identity import cache_key, fingerprint
from data.index.layouts import find_sequences
from data.index.selecting import make_selection
from data.index.sequences import IMAGES, Requirements, SequenceIndex, build_index
from data.loading.cutting import Crops, place_images, place_tensors
from sr_train.api.dataset import SetFile, TrainDataset
from sr_train.api.errors import DataError, Problems, did_you_mean
from sr_train.api.text import one_line
from sr_train.utils.splitmix import splitmix64
from sr_train.utils.threads import num_spare_threads, num_threads

log = logging.getLogger(__name__)


class ClipDataset(TrainDataset):
    """Clips cut from sequences of frames: folders of images, or video files.

    Layouts, by what is given:

    - `gt`, and `lq` and `extras` where there are such: one root for each, with the same sequences
      below it, folders of frames or video files (REDS, Vid4, Vimeo-90K);
    - `root`, `modalities` and maybe `split`: `root/split/SEQUENCE/FOLDER/frame`, with the FOLDER
      of each modality by name, `{lq: blur, gt: sharp, spikes: spike_vox}`.

    What is neither `gt` nor `lq` is a further input, kept as it is: images, or tensors (S, H, W)
    on the grid of the LQ in `.npy` or `.pt` files. How frames are paired, numbered and checked
    says `data.index.sequences`. Rules for images are those of `ImageDataset`: grey becomes RGB,
    alpha is ignored, where one frame is 16 bit all samples are uint16 and 8-bit values are
    multiplied by 257, the GT is cropped at its right and bottom to scale times the LQ, and an LQ
    made here is MATLAB's bicubic of the whole cropped GT.

    A clip lies within one sequence, and crosses no gap in its numbering. All its frames and
    modalities are cropped and mirrored alike. A sample is a pure function of (seed, epoch, index):
    neither cache nor processes change it.
    """

    def __init__(
        self,
        scale: int,
        gt: Texts | None = None,
        lq: Texts | None = None,
        extras: Mapping[str, Texts] | None = None,
        root: Texts | None = None,
        split: str | None = None,
        modalities: Mapping[str, str] | None = None,
        frames: int | None = None,
        stride: int | Sequence[int] = 1,
        every: int = 1,
        reverse: bool = False,
        time_bins: Texts = (),
        lq_size: int | None = None,
        augment: bool = True,
        seed: int = 0,
        cache_gib: float | Literal["auto"] = "auto",
        cache: CacheMode = "decoded",
        include: Texts | None = None,
        exclude: Texts | None = None,
        list_file: str | None = None,
        ranges: Mapping[str, Sequence[int | None]] | None = None,
        on_bad: Literal["error", "skip"] = "error",
        name: str | None = None,
    ) -> None:
        """Scan the folders and read every header; decode nothing.

        Args:
            scale: integer factor between LQ and GT; 1 for restoration.
            gt: one or several roots: absolute, relative to the working directory, with `~`, or
                `pkg://PACKAGE/FOLDER`. One that holds frames itself is a sequence; a `*` in place
                of a folder stands for each one there.
            lq: as many roots, in the same order; None: the LQ is made from the GT.
            extras: name -> as many roots, of each further input.
            root: instead of these, one or several roots of nested folders.
            split: folder below `root`, such as `train`.
            modalities: name -> folder of its frames inside that of a sequence; needs `gt`.
            frames: of a clip; None: for validation only.
            stride: distance between frames of a clip; of several, each clip draws one.
            every: distance between the first frames of clips.
            reverse: let half of the clips run backwards.
            time_bins: further inputs whose channels are moments within a frame, as those of spike
                voxel grids are; a clip that runs backwards has them in reverse order.
            lq_size: side of the training crop in LQ pixels; None: for validation only.
            augment: mirror and turn training crops, the 8 symmetries of a square alike.
            seed: of crops, symmetries, strides and directions.
            cache_gib: GiB of RAM, one copy for all processes; 0: none; `auto`: half of what is
                available. Filled as frames are asked for.
            cache: `decoded` keeps frames as they go into batches; `encoded` keeps the files,
                which take far less, and decodes at every access.
            include: patterns (`*`, `?`) on the sequence's name, its path below the root, or on
                that of the folder it is a scene of; None: all. One that matches nothing is an
                error.
            exclude: patterns of sequences to leave out.
            list_file: text file with the name of a sequence on each line, as Vimeo-90K's
                `sep_trainlist.txt`; what may follow it behind a blank is not looked at. None: all.
            ranges: pattern on the name -> [first, end]: use the frames from position `first` on,
                counted from 0 in their order, up to but without `end`; null: to the last.
            on_bad: `error` raises when any sequence cannot be used; `skip` leaves those out and
                names them in the report. What turns out to be damaged, changed or gone only when
                it is decoded is named in the log, and `data.index.damage` says which clips stand in
                for those that hold it; a set for validation decodes every file now to find it.
                Sequences that are too short are always left out, and named in the report.
            name: for tables and logs; None: the name of the first root.

        Raises:
            DataError: a folder is missing or empty, or nothing usable is left.
            Problems: sequences that cannot be used, where `on_bad` is `error`.
        """
        self._strides = arguments.strides(stride)
        _check(scale, lq_size, frames, every, on_bad, cache)
        short_name, found = find_sequences(gt, lq, extras, root, split, modalities)
        self.name = name or short_name
        self.scale = scale
        self.lq_size = lq_size
        self.num_frames = frames
        """Of a training clip; None: for validation only."""
        self._reverse = reverse
        self._augment = augment
        self._seed = seed
        self._span = ((frames or 1) - 1) * max(self._strides) + 1
        requirements = Requirements(
            scale=scale,
            lq_size=lq_size,
            num_frames=self._span,
            selection=make_selection(include, exclude, list_file),
            ranges=arguments.ranges(ranges),
        )
        self._index = build_index(found, requirements)
        self._segments = self._index.segments
        problems = self.problems()
        if problems and (on_bad == "error" or not self._segments):
            raise Problems(problems, advice=skip_advice(self._segments))
        if not self._segments:
            raise DataError(_all_too_short(self._index, self._span))
        extra_names = [m for m in self._segments[0].tracks if m not in IMAGES]
        self._time_bins = frozenset(texts("time_bins", time_bins))
        for each in self._time_bins:
            if each not in extra_names:
                raise DataError(f"time_bins: no input {each!r}{did_you_mean(each, extra_names)}")
        self._damage = Damage(on_bad == "skip")
        self._damaged: list[str] = []
        if on_bad == "skip" and frames is None:
            self._leave_out_damaged(extra_names)
        key = cache_key("clips", self._index.files(), self._index.parts())
        self._frames = ClipFrames(
            self._segments, scale, extra_names, cache, budget(cache_gib), key, self._damage
        )
        shapes = self._frames.crop_shapes(1)
        if frames is not None and lq_size is not None:
            crops = self._frames.crop_shapes(lq_size).values()
            self.sample_bytes = frames * sum(math.prod(s) * d.itemsize for s, d in crops)
        self.extra_channels = {name: shapes[name][0][0] for name in extra_names}
        self._clips = [
            (number, first)
            for number, segment in enumerate(self._segments)
            for first in range(0, len(segment) - self._span + 1, every)
        ]

    def __len__(self) -> int:
        """Return the number of clips; for validation, without `frames`, that of segments."""
        return len(self._segments) if self.num_frames is None else len(self._clips)

    @property
    def in_ram(self) -> bool:
        """Whether every frame has a place in the cache, decoded."""
        store = self._frames.store
        return self._frames.mode == "decoded" and store.num_held == len(store)

    def names(self) -> list[str]:
        """Return the name of each segment: its sequence's path below the root."""
        return [segment.name for segment in self._segments]

    def problems(self) -> list[str]:
        """Return one line, `path: why`, for each sequence that cannot be used."""
        return [one_line(f"{path}: {why}") for path, why in self._index.left_out]

    def fingerprint(self) -> str:
        """Return 16 hex digits, the same for copies of the files; see `data.index.identity`."""
        return fingerprint(self._index.parts(), self._index.files())

    def report(self) -> ClipReport:
        """Return what is used, what not and why, and what memory the cache takes."""
        clips = None if self.num_frames is None else len(self._clips)
        return make_clip_report(
            self.name, self._index, self.scale, clips, self._span, self._frames.facts()
        )

    def verify(self) -> list[str]:
        """Decode every file and return one line for each that is damaged; takes its time."""
        places = [(n, t) for n, each in enumerate(self._segments) for t in range(len(each))]
        with ThreadPoolExecutor(num_threads()) as pool:
            found = pool.map(self._frames.faults, *zip(*places, strict=True))
            lines = [str(error) for errors in found for error in errors]
            return list(dict.fromkeys(self._damaged + lines))

    def warnings(self, num_samples: int = 8) -> list[str]:
        """Return what makes one doubt the set, though it can be used; see `data.index.doubts`."""
        headers = [segment.tracks["gt"].header for segment in self._segments]
        sizes = [(header.height, header.width) for header in headers]
        sized = [Sized(each.name, *size) for each, size in zip(self._segments, sizes, strict=True)]
        count = self._frames.num_frames if "lq" in self._segments[0].tracks else 0
        places = [self._frames.place(number) for number in spread(count, num_samples)]
        pairs = (
            Pair(f"{self._segments[n].name}/{self._segments[n].frame_names[t]}", *self._pair(n, t))
            for n, t in places
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
        return self._frames.store.describe("frames" if self._frames.mode == "decoded" else "files")

    def preload(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Fill the cache now, with threads, instead of at the first access.

        Args:
            progress: called with (records loaded, records to load) as they arrive.

        Raises:
            DataError: a file is damaged, and `on_bad` is `error`.
        """
        self._frames.fill(num_threads(), progress)

    def whole(self, index: int) -> CachedClip:
        """Return segment `index` uncropped, for validation; see `names`."""
        segment = self._segments[index]
        return CachedClip(segment.name, segment.frame_names, index, self._frames)

    def whole_sizes(self) -> list[tuple[int, int, int]]:
        """Return (frames, height, width) on the LQ grid of each segment that `whole` returns."""
        return [(len(segment), segment.lq_height, segment.lq_width) for segment in self._segments]

    def sample(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Return the training crop of a clip in an epoch.

        Returns:
            `lq` (T, 3, lq_size, lq_size) and `gt` (T, 3, lq_size * scale, lq_size * scale), RGB,
            uint8 or uint16, and the further inputs (T, S, lq_size, lq_size) by name, each of its
            files' dtype.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed, and `on_bad` is
                `error`; or no clip is whole.
        """
        batch = self.batch([(epoch, index)])
        return {key: value[0] for key, value in batch.items()}

    def batch(
        self, positions: Sequence[tuple[int, int]], pool: Executor | None = None
    ) -> dict[str, Tensor]:
        """Return samples stacked, (B, T, ...); the crops are written straight into the batch."""
        if self.lq_size is None or self.num_frames is None:
            raise DataError(f"{self.name}: training clips need frames and lq_size")
        tensors = {
            name: torch.empty((len(positions), self.num_frames, *shape), dtype=dtype)
            for name, (shape, dtype) in self._frames.crop_shapes(self.lq_size).items()
        }
        arrays = [tensor.numpy() for tensor in tensors.values()]
        outs = list(zip(*arrays, strict=True))
        if pool is None:
            for (epoch, index), out in zip(positions, outs, strict=True):
                self._write(epoch, index, out)
        else:
            epochs, indices = zip(*positions, strict=True)
            list(pool.map(self._write, epochs, indices, outs))
        return tensors

    def _write(self, epoch: int, index: int, out: Sequence[np.ndarray]) -> None:
        """Write one sample into its arrays; of another clip where its own has a damaged frame."""
        bits = splitmix64(splitmix64(splitmix64(self._seed) ^ epoch) ^ index)
        self._damage.replace(
            stand_ins(self._seed, epoch, index, len(self._clips)),
            lambda number: self._write_crop(number, bits, out),
        )

    def _write_crop(self, index: int, bits: int, out: Sequence[np.ndarray]) -> None:
        """Write the crop of a clip that random bits choose: LQ, GT, further inputs."""
        number, first = self._clips[index]
        segment, side, count = self._segments[number], out[0].shape[-1], len(out[0])
        top = ((bits >> 32) * (segment.lq_height - side + 1)) >> 32
        left = ((bits & 0xFFFFFFFF) * (segment.lq_width - side + 1)) >> 32
        bits = splitmix64(bits)
        step = self._strides[((bits >> 32) * len(self._strides)) >> 32]
        symmetry = bits & 7 if self._augment else 0
        is_backwards = self._reverse and bool(bits & 8)
        if is_backwards:
            first, step = first + (count - 1) * step, -step
        window = (top, left, side)
        record = self._frames.clip(number, first, count, step)
        crops: list[Crops]
        if record is not None:
            crops = list(cropped(record, window, self.scale))
        else:
            frames = [self._frames.crop(number, first + t * step, window) for t in range(count)]
            crops = [list(each) for each in zip(*frames, strict=True)]
        for crop, place in zip(crops[:2], out[:2], strict=True):
            place_images(crop, symmetry, place)
        for name, crop, place in zip(self._frames.extras, crops[2:], out[2:], strict=True):
            is_turned = is_backwards and name in self._time_bins
            place_tensors(crop, symmetry, place[:, ::-1] if is_turned else place)

    def _leave_out_damaged(self, extra_names: Sequence[str]) -> None:
        """Decode every file, so that each validation scores the same sequences.

        Raises:
            Problems: none is whole.
        """
        log.info("%s: decoding every file, to leave out what is damaged (on_bad=skip)", self.name)
        segments = self._segments
        frames = ClipFrames(segments, self.scale, extra_names, "decoded", 0, "", Damage(False))

        def first_faults(segment: int) -> list[BadFileError]:
            each = (frames.faults(segment, t) for t in range(len(segments[segment])))
            return next((errors for errors in each if errors), [])

        with ThreadPoolExecutor(num_threads()) as pool:
            found = list(pool.map(first_faults, range(len(segments))))
        for segment, errors in zip(segments, found, strict=True):
            self._damaged += [str(error) for error in errors]
            self._index.left_out += [
                (error.path, f"{reason(error, error.path)}; {segment.name} is left out")
                for error in errors
            ]
        whole = [segment for segment, errors in zip(segments, found, strict=True) if not errors]
        self._index.segments = self._segments = whole
        if not whole:
            raise Problems(self.problems())


def _check(
    scale: int,
    lq_size: int | None,
    frames: int | None,
    every: int,
    on_bad: str,
    cache: str,
) -> None:
    for what, value in (
        ("scale", scale),
        ("lq_size", lq_size),
        ("frames", frames),
        ("every", every),
    ):
        if value is not None and value < 1:
            raise DataError(f"{what} must be at least 1, got {value}")
    if on_bad not in ("error", "skip"):
        raise DataError(f"on_bad must be error or skip, got {on_bad!r}")
    if cache not in ("decoded", "encoded"):
        raise DataError(f"cache must be decoded or encoded, got {cache!r}")


def _all_too_short(index: SequenceIndex, span: int) -> str:
    shown = ", ".join(f"{name} ({count} frames)" for name, count in index.too_short[:5])
    more = ", ..." if len(index.too_short) > 5 else ""
    return (
        f"all {len(index.too_short)} sequences are too short for clips that span {span} frames: "
        f"{shown}{more}; lower frames or stride"
    )
