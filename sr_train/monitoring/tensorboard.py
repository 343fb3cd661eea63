"""Scalars, pictures and text for TensorBoard."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter


class TensorBoardLogger:
    """Write event files under the run's folder.

    Args:
        run_dir: the run's folder; events go to `tensorboard` in it.
        first_step: events of this step and later, left by a run that was cut off, are hidden.
    """

    def __init__(self, run_dir: Path, first_step: int = 0) -> None:
        self.folder = run_dir / "tensorboard"
        self._writer = SummaryWriter(str(self.folder), purge_step=first_step or None)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write finite scalars; the sentinel reports the others."""
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Write a picture, uint8 HWC."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Write a text, shown as it is."""
        self._writer.add_text(name, "    " + text.replace("\n", "\n    "))

    def close(self) -> None:
        self._writer.close()
