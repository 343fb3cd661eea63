"""Worker processes that make batches; each makes every n-th and hands it over through a pipe."""

import atexit
import itertools
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from multiprocessing import Pipe, Process, connection

import cv2
import torch
from torch import Tensor

from data.loading.sampler import InfiniteSampler
from sr_train.api.dataset import TrainDataset
from sr_train.api.errors import DataError, SRTrainError
from sr_train.utils.failures import naming
from sr_train.utils.launch import call

_WATCH_SEC = 1.0


@dataclass(frozen=True)
class _Failure:
    """Sent in place of a batch; errors themselves need not survive pickling."""

    text: str
    is_user_error: bool


class Workers:
    """Processes that make the batches of an order from a given position on.

    A worker is one batch ahead, then waits until that is taken. Workers ignore the signals
    that terminals and batch systems send to whole groups: the main process decides when to stop,
    and it kills them when it is done. They leave by themselves once it is gone.
    """

    def __init__(
        self,
        dataset: TrainDataset,
        order: InfiniteSampler,
        batch_size: int,
        position: int,
        count: int,
    ) -> None:
        """Start the processes.

        Args:
            dataset: picklable where processes are not forked.
            order: which samples a batch has.
            batch_size: samples in a batch.
            position: number of the first batch.
            count: processes.
        """
        self._processes: list[Process] = []
        self._pipes: list[connection.Connection] = []
        self._turn = 0
        self._damaged: list[tuple[str, str]] = []
        # A forked child would wait for OpenCV's threads, which exist in this process only.
        cv2_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for number in range(count):
                ours, theirs = Pipe(duplex=False)
                process = Process(
                    target=call,
                    args=(_work, dataset, order, batch_size, position + number, count, theirs),
                    name=f"sr_train data worker {number}",
                    daemon=True,
                )
                try:
                    process.start()
                except OSError as error:
                    self.close()
                    raise DataError(
                        f"data worker {number + 1} of {count} cannot be started: "
                        f"{error.strerror or error}; try fewer workers"
                    ) from None
                # Else the end of a worker would not show as the end of its pipe.
                theirs.close()
                self._processes.append(process)
                self._pipes.append(ours)
        finally:
            cv2.setNumThreads(cv2_threads)
        # Before multiprocessing's own, which would wait for processes that ignore SIGTERM.
        atexit.register(self.kill)

    def next(self) -> dict[str, Tensor]:
        """Return the next batch.

        Raises:
            DataError: a sample cannot be made, or a worker was killed.
            RuntimeError: any other error in a worker, with its traceback.
        """
        turn = self._turn % len(self._pipes)
        pipe, process = self._pipes[turn], self._processes[turn]
        try:
            message = pipe.recv()
            if isinstance(message, _Failure):
                if message.is_user_error:
                    raise DataError(message.text)
                raise RuntimeError(f"a data worker failed:\n{message.text}")
            damaged, tensors = message
            self._damaged += damaged
            batch = {}
            for key, shape, dtype in tensors:
                batch[key] = torch.empty(shape, dtype=dtype)
                pipe.recv_bytes_into(_memory(batch[key]))
        except (EOFError, OSError):
            process.join(_WATCH_SEC)
            raise DataError(
                f"a data worker ended unexpectedly (exit code {process.exitcode}; -9 means it was "
                "killed, usually for lack of memory); try fewer workers or a smaller cache"
            ) from None
        self._turn += 1
        return batch

    def newly_damaged(self) -> list[tuple[str, str]]:
        """Return (path, why) of damaged files that came with batches since the last call."""
        damaged, self._damaged = self._damaged, []
        return damaged

    def kill(self) -> None:
        """End the processes at once; they own nothing that could be left over."""
        atexit.unregister(self.kill)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    def close(self) -> None:
        """End the processes and free their pipes; nobody may be inside `next` any more."""
        self.kill()
        for process in self._processes:
            process.close()
        for pipe in self._pipes:
            pipe.close()
        self._processes.clear()
        self._pipes.clear()


def make_batch(
    dataset: TrainDataset, positions: Sequence[tuple[int, int]], pool: Executor | None = None
) -> dict[str, Tensor]:
    """Return the samples of some (epoch, index) as a batch.

    Raises:
        PluginError: naming a user's own data set and the sample, where it fails.
    """
    try:
        return dataset.batch(positions, pool)
    except Exception as err:
        if type(dataset).__module__.startswith("data."):
            raise  # a defect of ours
        sample = next(iter(getattr(err, "__notes__", ())), f"a batch of {len(positions)}")
        with naming("data.train", dataset, lambda: sample):
            raise


def _memory(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _leave_when_orphaned(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SEC)
    os._exit(1)


def _work(
    dataset: TrainDataset,
    order: InfiniteSampler,
    batch_size: int,
    first: int,
    stride: int,
    pipe: connection.Connection,
) -> None:
    """Send batches first, first + stride, ... for ever; the life of a worker process."""
    for told in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(told, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    threading.Thread(target=_leave_when_orphaned, args=(os.getppid(),), daemon=True).start()
    try:
        for number in itertools.count(first, stride):
            try:
                batch = make_batch(dataset, order.batch(number, batch_size))
            except SRTrainError as error:
                pipe.send(_Failure(str(error), is_user_error=True))
                return
            except Exception:
                pipe.send(_Failure(traceback.format_exc(), is_user_error=False))
                return
            tensors = [(key, tuple(value.shape), value.dtype) for key, value in batch.items()]
            pipe.send((dataset.newly_damaged(), tensors))
            for value in batch.values():
                pipe.send_bytes(_memory(value.contiguous()))
    except (BrokenPipeError, ConnectionResetError):
        return
