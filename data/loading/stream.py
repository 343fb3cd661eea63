"""TrainLoader: endless batches of a training set, from any position, ahead of time."""

import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Self

from torch import Tensor

from data.cache.filling import CacheFiller
from data.index.damage import DamageLog
from data.loading.sampler import InfiniteSampler
from data.loading.workers import Workers, make_batch
from sr_train.api.dataset import TrainDataset
from sr_train.api.errors import DataError
from sr_train.utils.memory import available_bytes

_MAX_AUTO_WORKERS = 8
_MAX_THREADS = 8
_MOST_WORKERS = 256
_LEAST_SAMPLE_BYTES = 128

Batch = dict[str, Tensor]


class TrainLoader:
    """An endless iterator over collated batches.

    What comes depends on (data set, seed, batch size, rank, world size, position) alone: never on
    the number of workers, on prefetching, or on where the stream was started. Epochs follow each
    other inside a batch; no two ranks meet the same sample in the same epoch.

    A background thread keeps batches ready. With workers it collects theirs; without, it makes
    them itself, and decodes what is not in memory yet with a few threads. Beside that, one rank
    of each machine fills the set's cache, which all of them share.
    """

    def __init__(
        self,
        dataset: TrainDataset,
        batch_size: int,
        seed: int = 0,
        num_workers: int | Literal["auto"] = "auto",
        prefetch: int = 4,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        fill_cache: bool = True,
    ) -> None:
        """Set up the stream; threads and processes start with the first batch asked for.

        Args:
            dataset: what the samples come from.
            batch_size: samples in a batch, of this rank.
            seed: of the order.
            num_workers: processes; 0: threads of this process. `auto`: 0 where the set is in RAM,
                else one for each processor of this rank, 8 at most.
            prefetch: batches kept ready; 0 without workers: made when asked for.
            rank: of this process.
            world_size: number of ranks.
            pin_memory: put batches into page-locked memory, for copies to a CUDA device.
            fill_cache: load in the background what the set has a place for in memory; else only
                what samples need.

        Raises:
            DataError: a number out of its range or beyond this machine, or an empty set.
        """
        if num_workers == "auto":
            num_workers = 0 if dataset.in_ram else min(_MAX_AUTO_WORKERS, _processors(world_size))
        if not isinstance(num_workers, int) or min(num_workers, prefetch, batch_size - 1) < 0:
            raise DataError(
                f"expected batch_size >= 1, prefetch >= 0, num_workers >= 0 or 'auto'; got "
                f"{batch_size}, {prefetch}, {num_workers!r}"
            )
        if len(dataset) == 0:
            raise DataError("the training set is empty")
        _check_room(dataset, batch_size, num_workers, prefetch)
        self.num_workers: int = num_workers
        """Processes in use; 0: threads only."""
        self.wait_seconds = 0.0
        """Time spent waiting for batches; the reader sets it back to 0 when it wants to."""
        self._dataset = dataset
        self._batch_size = batch_size
        self._prefetch = prefetch
        self._pin_memory = pin_memory
        self._fills_cache = fill_cache and int(os.environ.get("LOCAL_RANK", rank)) == 0
        self._order = InfiniteSampler(len(dataset), seed, rank, world_size)
        self._num_threads = min(_MAX_THREADS, _processors(world_size))
        self._position = 0
        self._next: Callable[[], Batch] | None = None
        self._stop: Callable[[], object] = _nothing
        self._damage_log = DamageLog()
        self._newly_damaged: list[Callable[[], list[tuple[str, str]]]] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """Return the next batch, e.g. `lq` and `gt` of (B, 3, ...), uint8 or uint16.

        Raises:
            DataError: a file of this batch is damaged; asking again tries again.
        """
        start = time.perf_counter()
        if self._next is None:
            self._start()
        assert self._next is not None
        try:
            batch = self._next()
        except BaseException:
            self.close()
            raise
        finally:
            self.wait_seconds += time.perf_counter() - start
        self._position += 1
        self._tell_damage()
        return batch

    @property
    def position(self) -> int:
        """Batches handed out, counted from the very beginning; what `seek` takes."""
        return self._position

    def seek(self, position: int) -> None:
        """Go on as if `position` batches had been handed out already.

        Raises:
            DataError: a negative position.
        """
        if position < 0:
            raise DataError(f"cannot seek to batch {position}")
        if position != self._position:
            self.close()
            self._position = position

    def close(self) -> None:
        """End threads and processes; the next batch asked for starts them again."""
        self._stop()
        self._next, self._stop = None, _nothing
        self._tell_damage()
        self._damage_log.close()

    def _tell_damage(self) -> None:
        for newly_damaged in self._newly_damaged:
            self._damage_log.add(newly_damaged())

    def _start(self) -> None:
        stops: list[Callable[[], object]]
        self._newly_damaged = [self._dataset.newly_damaged]
        if self.num_workers > 0:
            workers = Workers(
                self._dataset, self._order, self._batch_size, self._position, self.num_workers
            )
            producer = _Producer(_FromWorkers(workers), 0, self._prefetch, self._pin_memory)
            self._newly_damaged.append(workers.newly_damaged)
            # The thread sees the end of the pipes; then they may be closed.
            stops = [producer.ask_to_stop, workers.kill, producer.join, workers.close]
        else:
            pool = ThreadPoolExecutor(self._num_threads, "sr_train-decode")
            make = _Maker(self._dataset, self._order, self._batch_size, pool)
            producer = _Producer(make, self._position, self._prefetch, self._pin_memory)
            stops = [producer.ask_to_stop, producer.join, pool.shutdown]
        if self._fills_cache:
            # Its thread starts after the worker processes have been forked.
            filling = CacheFiller(self._dataset)
            filling.start()
            stops = [filling.ask_to_stop, *stops, filling.join]
        producer.start()
        self._next = producer.get
        self._stop = weakref.finalize(self, _run_all, stops)


class _Maker:
    """Makes the batch of a number in this process."""

    def __init__(
        self,
        dataset: TrainDataset,
        order: InfiniteSampler,
        batch_size: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._dataset = dataset
        self._order = order
        self._batch_size = batch_size
        self._pool = pool

    def __call__(self, number: int) -> Batch:
        return make_batch(self._dataset, self._order.batch(number, self._batch_size), self._pool)


class _FromWorkers:
    """Takes the next batch of the workers, which keep count themselves."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def __call__(self, number: int) -> Batch:
        return self._workers.next()


class _Producer:
    """A thread that makes batches in order and keeps some ready; errors come in their place."""

    def __init__(
        self, make: Callable[[int], Batch], first: int, depth: int, pin_memory: bool
    ) -> None:
        self._make = make
        self._number = first
        self._depth = depth
        self._pin_memory = pin_memory
        self._stopping = threading.Event()
        self._ready: queue.Queue[Batch | Exception] = queue.Queue(max(1, depth))
        self._thread = threading.Thread(target=self._run, name="sr_train-prefetch", daemon=True)

    def start(self) -> None:
        if self._depth > 0:
            self._thread.start()

    def get(self) -> Batch:
        """Return the next batch, or raise what went wrong with it."""
        item = self._ready.get() if self._depth > 0 else self._one()
        if isinstance(item, Exception):
            raise item
        return item

    def ask_to_stop(self) -> None:
        """Make the thread end after the batch it is at."""
        self._stopping.set()
        # Makes room, so that a thread that waits to put its batch can continue.
        while True:
            try:
                self._ready.get_nowait()
            except queue.Empty:
                return

    def join(self) -> None:
        if self._depth > 0 and self._thread is not threading.current_thread():
            self._thread.join()

    def _one(self) -> Batch | Exception:
        try:
            batch = self._make(self._number)
            if self._pin_memory:
                batch = {key: value.pin_memory() for key, value in batch.items()}
        except Exception as error:
            return error
        self._number += 1
        return batch

    def _run(self) -> None:
        while not self._stopping.is_set():
            item = self._one()
            self._ready.put(item)
            if isinstance(item, Exception):
                return


def _check_room(dataset: TrainDataset, batch_size: int, num_workers: int, prefetch: int) -> None:
    """Raise where the batches that are kept ready do not fit into memory.

    Raises:
        DataError: naming what could be smaller.
    """
    if num_workers > _MOST_WORKERS:
        raise DataError(f"num_workers={num_workers}: expected at most {_MOST_WORKERS}")
    size = batch_size * max(dataset.sample_bytes, _LEAST_SAMPLE_BYTES)
    kept = max(1, prefetch) + num_workers
    available = available_bytes()
    if size * kept > available:
        raise DataError(
            f"batches of {size / 2**30:.1f} GiB, {kept} of them kept ready, do not fit into the "
            f"{available / 2**30:.1f} GiB that are available: batch_size is {batch_size}, prefetch "
            f"{prefetch}, num_workers {num_workers}; take smaller ones, or a smaller lq_size"
        )


def _run_all(stops: list[Callable[[], object]]) -> None:
    for stop in stops:
        stop()


def _nothing() -> None:
    """Stop nothing: no thread is running."""


def _processors(world_size: int) -> int:
    """Return how many processors each rank of this machine may use, at least 1."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    if sys.platform == "linux":
        return max(1, len(os.sched_getaffinity(0)) // local)
    return max(1, (os.cpu_count() or 1) // local)
