"""How the weights of each layer are distributed, along the run."""

import logging
from fnmatch import fnmatchcase

import torch

from sr_train.api.callback import Callback, Run
from sr_train.api.logger import Logger

log = logging.getLogger(__name__)


class WeightHistograms(Callback):
    """Send a histogram of each weight of the generator to the loggers that take histograms.

    Such a logger overrides `Logger.histogram`, as TensorBoard's does.

    Args:
        every: steps between two histograms, at the next step that is logged; from 1 up.
        match: shell pattern on the parameter names, for example `body.*.weight`.
    """

    def __init__(self, every: int = 5000, match: str = "*") -> None:
        if every < 1:
            raise ValueError(f"every={every}: expected a whole number of steps from 1 up")
        self.every = every
        self.match = match
        self._next = 0

    def on_run_start(self, run: Run) -> None:
        """Say which loggers take none."""
        self._next = run.step - run.step % self.every + self.every
        for path, logger in run.loggers.items():
            if not _takes_histograms(logger):
                log.info("%s takes no histograms of weights", path)

    def on_log(self, run: Run, window: object) -> None:
        """Write the histograms of a step that is due."""
        if run.step < self._next and not run.is_rehearsal:
            return
        self._next = run.step - run.step % self.every + self.every
        net = run.model.net_for_use("live")  # of all ranks: the weights may lie in shards
        takers = [logger for logger in run.loggers.values() if _takes_histograms(logger)]
        for name, weight in net.named_parameters() if takers else ():
            if fnmatchcase(name, self.match):
                values = weight.detach().float().cpu()
                finite = values[torch.isfinite(values)].numpy()
                for logger in takers if finite.size else ():
                    logger.histogram(f"weights/{name}", finite, run.step)


def _takes_histograms(logger: Logger) -> bool:
    return type(logger).histogram is not Logger.histogram
