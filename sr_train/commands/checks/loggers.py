"""The loggers of a run as `check` tries them: each method once, with failures noted."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from sr_train.api.logger import Logger


def rehearse(logger: Logger, config: Mapping[str, Any], step: int) -> None:
    """Call what a run calls, but for images and scores, which the first validation shows.

    Args:
        logger: all of them.
        config: resolved.
        step: that the model is at.
    """
    logger.config(config)
    logger.scalars({"loss/total": 0.5, "lr/g": 1e-4}, step)
    logger.text("check", "a text")
    logger.histogram("check", np.linspace(-1, 1, 64, dtype=np.float32), step)


class WatchedLogger(Logger):
    """A logger whose failures are noted.

    Args:
        logger: watched.
        path: its config path.
        about: notes what fails in a block: of a config path, and what it is at work on.
    """

    def __init__(
        self, logger: Logger, path: str, about: Callable[[str, str], AbstractContextManager[None]]
    ) -> None:
        self._logger = logger
        self._path = path
        self._about = about

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        with self._about(self._path, "scalars()"):
            self._logger.scalars(values, step)

    def config(self, config: Mapping[str, Any]) -> None:
        with self._about(self._path, "config()"):
            self._logger.config(config)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        with self._about(self._path, "image()"):
            self._logger.image(name, pixels, step)

    def text(self, name: str, text: str) -> None:
        with self._about(self._path, "text()"):
            self._logger.text(name, text)

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        with self._about(self._path, "histogram()"):
            self._logger.histogram(name, values, step)

    def close(self) -> None:
        with self._about(self._path, "close()"):
            self._logger.close()
