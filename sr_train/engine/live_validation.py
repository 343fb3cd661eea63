"""Validation while a network trains: scores, fixed images, a sheet of comparisons."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from sr_train.api.logger import Logger
from sr_train.engine.validator import (
    Scored,
    Scores,
    Stop,
    Validator,
    never,
    on_last,
)
from sr_train.inference.clips import ClipUpscale, frame_by_frame
from sr_train.io.images import write_image
from sr_train.monitoring.comparison import panel, sheet
from sr_train.monitoring.console import Bar, progress_bar
from sr_train.monitoring.loggers import Loggers

_Panel = tuple[str, np.ndarray]
"""Name of an image, and its row of crops."""


class LiveValidation:
    """Score the network of the moment; only rank 0 shows images and writes them.

    Of a clip, the frame in its middle is shown.

    Args:
        validator: sets and metrics.
        make_upscaler: returns an upscaler around the weights to score.
        folder: sheets of crops are written here.
        logger: takes the images.
        num_images: images or clips shown per set, the first ones.
    """

    def __init__(
        self,
        validator: Validator,
        make_upscaler: Callable[[], ClipUpscale],
        folder: Path,
        logger: Logger | None = None,
        num_images: int = 4,
    ) -> None:
        self.validator = validator
        self.make_upscaler = make_upscaler
        self.folder = folder
        self.logger = Loggers() if logger is None else logger
        self.num_images = num_images
        self.sheet_path: Path | None = None
        self._baseline: Scores | None = None

    @property
    def set_names(self) -> list[str]:
        """Names of the validation sets."""
        return list(self.validator.sets)

    def __call__(self, step: int, stop: Stop = never) -> Scores:
        """Score the network and show images of it; see `Validator.run`."""
        shown: dict[tuple[str, int], _Panel] = {}

        def show(scored: Scored) -> None:
            if scored.is_last:
                bar.advance()
            if scored.index < self.num_images and scored.frame == scored.num_frames // 2:
                row = panel(self.validator.bicubic(scored.lq), scored.pred, scored.gt)
                shown[scored.set_name, scored.index] = (f"{scored.set_name}/{scored.name}", row)

        with self._bar("validate") as bar:
            scores = self.validator.run(self.make_upscaler(), show, stop)
        by_rank = self.validator.world.gather_to_main(shown)
        everything = {place: found for each in by_rank for place, found in each.items()}
        if everything:
            self._show([everything[place] for place in self._order(everything)], step)
        return scores

    def _bar(self, label: str) -> AbstractContextManager[Bar]:
        world = self.validator.world
        return progress_bar(label, len(range(world.rank, len(self.validator), world.size)))

    def _order(self, places: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        sets = list(self.validator.sets)
        return sorted(places, key=lambda place: (sets.index(place[0]), place[1]))

    def _show(self, panels: Sequence[_Panel], step: int) -> None:
        for name, row in panels:
            self.logger.image(name, row, step)
        self.sheet_path = self.folder / f"step_{step:08d}.png"
        self.folder.mkdir(parents=True, exist_ok=True)
        captions = [f"{name}: bicubic | SR | GT" for name, _ in panels]
        write_image(self.sheet_path, sheet([row for _, row in panels], captions))

    def baseline(self) -> Scores:
        """Return bicubic's scores on the same sets; computed once."""
        if self._baseline is None:
            with self._bar("bicubic") as bar:
                self._baseline = self.validator.run(
                    frame_by_frame(self.validator.bicubic), on_last(bar.advance)
                )
        return self._baseline
