"""All loggers of a run as one."""

import logging
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from sr_train.api.errors import SRTrainError
from sr_train.api.logger import Logger
from sr_train.utils.failures import naming

log = logging.getLogger(__name__)


class Loggers(Logger):
    """Hand everything to each logger; what one raises names its config path.

    As a context it closes them, with the error that ends the block in flight.

    Args:
        by_path: the loggers by config path.
    """

    def __init__(self, by_path: Mapping[str, Logger] | None = None) -> None:
        self.by_path = dict(by_path or {})

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log scalars of a step.

        Raises:
            PluginError: naming the logger that fails, as all methods do.
            OSError: naming the file of a logger that cannot be written.
        """
        self._each(lambda logger: logger.scalars(dict(values), step), f"the scalars of step {step}")

    def config(self, config: Mapping[str, Any]) -> None:
        self._each(lambda logger: logger.config(config), "the config")

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        given = f"the image {name} of step {step}, {pixels.shape[1]}x{pixels.shape[0]}"
        self._each(lambda logger: logger.image(name, pixels, step), given)

    def text(self, name: str, text: str) -> None:
        self._each(lambda logger: logger.text(name, text), f"the text {name}")

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        given = f"the histogram {name} of step {step}, {values.size} numbers"
        self._each(lambda logger: logger.histogram(name, values, step), given)

    def close(self) -> None:
        """Close all loggers, whatever one of them raises.

        Raises:
            PluginError: of the first that failed.
        """
        failures: list[Exception] = []
        for path, logger in self.by_path.items():
            try:
                with naming(path, logger, lambda: "close()", _names_its_file):
                    logger.close()
            except (SRTrainError, OSError) as err:
                failures.append(err)
        if failures and sys.exception() is None:
            raise failures[0]
        for failure in failures:  # an error that ends the run is what people must see
            log.warning("warning: %s", failure)

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _each(self, call: Callable[[Logger], None], given: str) -> None:
        for path, logger in self.by_path.items():
            with naming(path, logger, lambda: given, _names_its_file):
                call(logger)


def _names_its_file(err: Exception) -> bool:
    """Whether an error is that of a disk, which names what cannot be written."""
    return isinstance(err, OSError) and err.filename is not None
