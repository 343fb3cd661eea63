"""Filling the cache of a training set in the background, with log lines about it."""

import logging
import threading
import time

from sr_train.api.dataset import TrainDataset
from sr_train.api.errors import SRTrainError

_TELL_SEC = 10.0

log = logging.getLogger(__name__)


class CacheFiller:
    """A thread that loads what the cache of a training set has a place for.

    What a batch needs meanwhile is loaded for that batch, so nothing waits for this.
    """

    def __init__(self, dataset: TrainDataset) -> None:
        self._dataset = dataset
        self._stopping = threading.Event()
        self._told = 0.0
        self._thread = threading.Thread(target=self._run, name="sr_train-filling", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Make the thread end after what it is loading now; what is in memory stays there."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        start = time.monotonic()
        try:
            self._dataset.fill(self._tell, self._stopping)
        except SRTrainError as error:
            # Training meets it in its turn and ends with it.
            log.warning("cache: filling ended early: %s", error)
            return
        if not self._stopping.is_set():
            seconds = time.monotonic() - start
            log.info("cache: %s after %.1f s", self._dataset.cached(), seconds)

    def _tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._told:
            log.info("cache: loading %d in the background while training runs", total)
        elif now - self._told < _TELL_SEC:
            return
        else:
            log.info("cache: %s", self._dataset.cached())
        self._told = now
