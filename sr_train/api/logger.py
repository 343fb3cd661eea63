"""What a logger is: where the scalars, images and texts of a run go, beside metrics.csv."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Logger(ABC):
    """The base class of every logger; one of your own needs `scalars`.

    In a run, only rank 0 has loggers, and all methods are called from one thread. Whatever a
    method raises ends the run with its state saved and the config path of the logger named;
    `check` calls each method once, with `dry_run`.

    A constructor takes those of the three arguments below that it names, and more from the config.

    Args:
        run_dir: the run's folder, which exists.
        first_step: that this launch will log at the earliest; above 1, it resumes a run. What an
            earlier launch logged of this step and later ones is logged again.
        dry_run: nothing may be sent or left outside `run_dir`: it is a `check`.

    Example:
        >>> class PrintLogger(Logger):
        ...     def scalars(self, values, step):
        ...         print(step, dict(values))
    """

    def __init__(self, run_dir: Path, first_step: int = 1, dry_run: bool = False) -> None:
        self.run_dir = run_dir
        self.first_step = first_step
        self.dry_run = dry_run

    @abstractmethod
    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log scalars of a step, e.g. `loss/total`, `lr/g`, `val/SET/psnr_y`.

        Args:
            values: by name; they may be NaN or infinite.
            step: optimizer updates done.
        """

    def config(self, config: Mapping[str, Any]) -> None:
        """Log the resolved config of the launch, plain Python; called first, once a launch."""

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Log an image: (H, W, 3), RGB, uint8."""

    def text(self, name: str, text: str) -> None:
        """Log a text, shown as it is."""

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        """Log how numbers are distributed: float32 of any shape, e.g. the weights of a layer."""

    def close(self) -> None:
        """Write what is left; called once, however the run ends.

        Where an error ends it, `sys.exception()` is that error.
        """
