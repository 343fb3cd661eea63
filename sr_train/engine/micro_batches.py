"""A step in its micro-batches; in smaller ones where it does not fit into memory."""

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from sr_train.api.errors import SRTrainError
from sr_train.engine.distributed import World
from sr_train.engine.model import SRModel
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)


class Source(Protocol):
    """Where micro-batches come from."""

    def __next__(self) -> Mapping[str, Tensor]: ...


class InsufficientMemoryError(SRTrainError):
    """A step does not fit into memory; the weights are those of the step before."""


Batch = Mapping[str, Tensor]


def take_step(model: SRModel, micro_batches: Sequence[Batch]) -> None:
    """Take one step on micro-batches of equal size: its gradient is that of all their samples.

    Args:
        model: what learns.
        micro_batches: at least one.
    """
    model.micro_batches = len(micro_batches)
    for number, batch in enumerate(micro_batches, start=1):
        model.optimize_parameters(batch, last_micro_batch=number == len(micro_batches))


class MicroBatcher:
    """Take whole steps; on running out of memory, take the same step in smaller micro-batches.

    The gradient of a step is the mean over its samples, and splits are of equal size, so that
    splitting changes only memory and speed. What is computed over a batch as a whole is excepted:
    BatchNorm's statistics and the means of a relativistic GAN loss are then those of a split. It
    stays for the rest of the launch; a resumed run begins with the micro-batches of its config and
    learns it anew, at the price of one broken-off step. With several ranks nothing is split,
    since the others would wait in the midst of their own step: the error says what to set.

    Args:
        model: what learns.
        accum: micro-batches that a step has by config.
        world: the ranks.
    """

    def __init__(self, model: SRModel, accum: int, world: World) -> None:
        self.num_splits = 1
        """Into how many each micro-batch of the config is split as of now."""
        self._model = model
        self._accum = accum
        self._world = world

    @property
    def micro_batches(self) -> int:
        """Micro-batches that make a step as of now."""
        return self._accum * self.num_splits

    def step(self, source: Source) -> Batch:
        """Take one step; return its last micro-batch as it came.

        Raises:
            InsufficientMemoryError: if not even single samples fit.
            SRTrainError: if memory ran out while weights were being changed.
        """
        held = [next(source) for _ in range(self._accum)]
        mark = self._model.meter.mark()
        while not self._attempt(held):
            self._model.discard_gradients()
            self._model.meter.rewind(mark)
            self._free()
            self._split(held[-1])
        self._model.meter.fold(mark, self.num_splits)  # each step weighs alike in a window
        return held[-1]

    def _attempt(self, held: Sequence[Batch]) -> bool:
        """Take the step in as many splits as of now; return False where memory ran out.

        The error is gone when this returns, and with its traceback the graph of the broken-off
        micro-batch.
        """
        before = self._model.generator.steps
        try:
            take_step(self._model, [split for batch in held for split in self._splits(batch)])
        except RuntimeError as err:
            if not is_out_of_memory(err):
                raise
            if self._model.updating or self._model.generator.steps > before:
                raise SRTrainError(
                    f"step {before + 1}: out of memory while the weights were being changed; "
                    f"resume from the last state with resume=auto and {self._less()}"
                ) from err
            if self._world.size > 1:
                raise InsufficientMemoryError(self._advice()) from err
            return False
        return True

    def _splits(self, batch: Batch) -> Iterator[Batch]:
        """Yield the micro-batches that one of the config makes: views of its tensors."""
        chunks = {name: value.chunk(self.num_splits) for name, value in batch.items()}
        for number in range(self.num_splits):
            yield {name: values[number] for name, values in chunks.items()}

    def _free(self) -> None:
        gc.collect()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _split(self, batch: Batch) -> None:
        samples = len(next(iter(batch.values())))
        finer = [n for n in range(self.num_splits + 1, samples + 1) if samples % n == 0]
        if not finer:
            raise InsufficientMemoryError(self._advice())
        self.num_splits = finer[0]
        log.warning(
            "warning: step %d: out of memory; each step continues in %d micro-batches, each of %d "
            "sample(s), with the same gradient. To start like this: train.accum=%d",
            self._model.generator.steps + 1,
            self.micro_batches,
            samples // self.num_splits,
            self.micro_batches,
        )

    def _advice(self) -> str:
        return (
            f"step {self._model.generator.steps + 1}: out of memory with {self.micro_batches} "
            f"micro-batch(es) per step; {self._less()}"
        )

    def _less(self) -> str:
        return (
            "a larger train.accum, or a smaller data.lq_size or data.batch_size; "
            "arch.gradient_checkpointing=true and net_g.channels_last=never may help too"
        )
