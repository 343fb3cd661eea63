"""ImageDataset: pairs of images, or only ground truth, for training and for validation."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from data.cache.dataset import CachedDataset, CacheSize
from data.cache.report import ImageReport
from data.index.arguments import Texts, check_choice, check_positive
from data.index.folders import resolve_roots, root_name
from data.index.pairs import index_pairs
from data.index.requirements import Requirements
from data.index.selecting import make_selection
from data.loading.cutting import place_image
from sr_train.api.dataset import WholeImage
from sr_train.utils.splitmix import splitmix64


class ImageDataset(CachedDataset):
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
        cache_gib: CacheSize = "auto",
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
                Partners have the same path below the root, see `data.index.pairs`.
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
                with or without suffix; what may follow it after a blank is not looked at. None:
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
        check_positive({"scale": scale, "lq_size": lq_size})
        check_choice("on_bad", on_bad, ("error", "skip"))
        roots = resolve_roots("gt", gt)
        lq_roots = None if lq is None else resolve_roots("lq", lq)
        selection = make_selection(include, exclude, list_file)
        requirements = Requirements(scale=scale, lq_size=lq_size, selection=selection)
        index = index_pairs(roots, lq_roots, requirements)
        index.check(on_bad)
        super().__init__(
            index=index,
            name=name or root_name(roots[0]),
            scale=scale,
            lq_size=lq_size,
            axes=None if lq_size is None else (),
            augment=augment,
            seed=seed,
            on_bad=on_bad,
            cache_gib=cache_gib,
            cache="decoded",
        )

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def _units(self) -> str:
        return "images"

    def report(self) -> ImageReport:
        """Return what is used, what is left out and why, and what memory the cache takes."""
        return ImageReport(self.name, self.scale, self._index, self._frames.facts())

    def whole(self, index: int) -> WholeImage:
        """Return an image uncropped, for validation.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed.
        """
        lq, gt = self._frames.get(index, 0)
        return WholeImage(self._segments[index].name, lq, gt)

    def _is_quick(self, positions: Sequence[tuple[int, int]]) -> bool:
        """Return whether all of these images are decoded already: their crops are small."""
        return all(self._frames.store.is_ready(index) for _, index in positions)

    def _write_crop(self, index: int, bits: int, out: Sequence[np.ndarray]) -> None:
        """Write the crop of an image that random bits choose."""
        window = self._window(self._segments[index], bits, out[0].shape[-1])
        symmetry = self._symmetry(splitmix64(bits))
        for crop, place in zip(self._frames.crop(index, 0, window), out, strict=True):
            place_image(crop, symmetry, place)
