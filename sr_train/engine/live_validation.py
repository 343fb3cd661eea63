"""Validation while a network trains: scores, fixed pictures, a sheet of comparisons."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sr_train.engine.validator import Scored, Scores, Upscale, Validator
from sr_train.monitoring.comparison import panel, sheet
from sr_train.monitoring.console import progress_bar
from sr_train.ops.image_io import write_picture


class PictureLogger(Protocol):
    """Where fixed validation pictures go."""

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None: ...


class LiveValidation:
    """Score the network of the moment.

    Args:
        validator: sets and metrics.
        make_upscaler: returns an upscaler around the weights to score.
        folder: sheets of crops are written here.
        loggers: sinks of pictures.
        num_pictures: pictures shown per set, the first ones.
    """

    def __init__(
        self,
        validator: Validator,
        make_upscaler: Callable[[], Upscale],
        folder: Path,
        loggers: Sequence[PictureLogger] = (),
        num_pictures: int = 4,
    ) -> None:
        self.validator = validator
        self.make_upscaler = make_upscaler
        self.folder = folder
        self.loggers = loggers
        self.num_pictures = num_pictures
        self.sheet_path: Path | None = None
        self._baseline: Scores | None = None

    def __call__(self, step: int) -> Scores:
        panels: list[np.ndarray] = []
        captions: list[str] = []

        def show(scored: Scored) -> None:
            bar.advance()
            if scored.index < self.num_pictures:
                row = panel(self.validator.bicubic(scored.lq), scored.pred, scored.gt)
                panels.append(row)
                captions.append(f"{scored.set_name}/{scored.name}: bicubic | SR | GT")
                for logger in self.loggers:
                    logger.picture(f"{scored.set_name}/{scored.name}", row, step)

        with progress_bar("validate", len(self.validator)) as bar:
            scores = self.validator.run(self.make_upscaler(), show)
        self.sheet_path = self.folder / f"step_{step:08d}.png"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_picture(self.sheet_path, sheet(panels, captions))
        return scores

    def baseline(self) -> Scores:
        """Return bicubic's scores on the same sets; computed once."""
        if self._baseline is None:
            with progress_bar("bicubic", len(self.validator)) as bar:
                self._baseline = self.validator.run(
                    self.validator.bicubic, lambda scored: bar.advance()
                )
        return self._baseline
