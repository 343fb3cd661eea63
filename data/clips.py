"""ClipDataset: segments of frames with all that belongs to them, for training and validation."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from data.cache.cached_clip import CachedClip
from data.cache.clip_frames import CacheMode
from data.cache.dataset import CachedDataset, CacheSize
from data.cache.pixels import cropped
from data.cache.report import ClipReport
from data.index import arguments
from data.index.arguments import Texts, texts
from data.index.layouts import find_sequences
from data.index.requirements import Requirements
from data.index.segments import IMAGES
from data.index.selecting import make_selection
from data.index.sequences import index_sequences
from data.loading.cutting import Crops, place_images, place_tensors
from sr_train.api.errors import DataError, did_you_mean
from sr_train.utils.splitmix import splitmix64


class ClipDataset(CachedDataset):
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
        cache_gib: CacheSize = "auto",
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
                `sep_trainlist.txt`; what may follow it after a blank is not looked at. None: all.
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
        numbers = {"scale": scale, "lq_size": lq_size, "frames": frames, "every": every}
        arguments.check_positive(numbers)
        arguments.check_choice("on_bad", on_bad, ("error", "skip"))
        arguments.check_choice("cache", cache, ("decoded", "encoded"))
        short_name, found = find_sequences(gt, lq, extras, root, split, modalities)
        span = ((frames or 1) - 1) * max(self._strides) + 1
        requirements = Requirements(
            scale=scale,
            lq_size=lq_size,
            num_frames=span,
            selection=make_selection(include, exclude, list_file),
            ranges=arguments.ranges(ranges),
        )
        self._sequences = index_sequences(found, requirements)
        self._sequences.check(on_bad)
        self._time_bins = frozenset(texts("time_bins", time_bins))
        inputs = [m for m in self._sequences.segments[0].tracks if m not in IMAGES]
        for each in self._time_bins:
            if each not in inputs:
                raise DataError(f"time_bins: no input {each!r}{did_you_mean(each, inputs)}")
        super().__init__(
            index=self._sequences,
            name=name or short_name,
            scale=scale,
            lq_size=lq_size,
            axes=None if frames is None else (frames,),
            augment=augment,
            seed=seed,
            on_bad=on_bad,
            cache_gib=cache_gib,
            cache=cache,
        )
        self.num_frames = frames
        """Of a training clip; None: for validation only."""
        self._reverse = reverse
        self._clips = [
            (number, first)
            for number, segment in enumerate(self._segments)
            for first in range(0, len(segment) - span + 1, every)
        ]

    def __len__(self) -> int:
        """Return the number of clips; for validation, without `frames`, that of segments."""
        return len(self._segments) if self.num_frames is None else len(self._clips)

    _needed = "clips need frames and lq_size"

    @property
    def _units(self) -> str:
        return "frames" if self._frames.mode == "decoded" else "files"

    def report(self) -> ClipReport:
        """Return what is used, what not and why, and what memory the cache takes."""
        clips = None if self.num_frames is None else len(self._clips)
        return ClipReport(self.name, self.scale, self._sequences, self._frames.facts(), clips)

    def whole(self, index: int) -> CachedClip:
        """Return segment `index` uncropped, for validation; see `names`."""
        segment = self._segments[index]
        return CachedClip(segment.name, segment.frame_names, index, self._frames)

    def _write_crop(self, index: int, bits: int, out: Sequence[np.ndarray]) -> None:
        """Write the crop of a clip that random bits choose: LQ, GT, further inputs."""
        number, first = self._clips[index]
        segment, side, count = self._segments[number], out[0].shape[-1], len(out[0])
        window = self._window(segment, bits, side)
        bits = splitmix64(bits)
        step = self._strides[((bits >> 32) * len(self._strides)) >> 32]
        symmetry = self._symmetry(bits)
        is_backwards = self._reverse and bool(bits & 8)
        if is_backwards:
            first, step = first + (count - 1) * step, -step
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
