"""Smaller micro-batches where a step does not fit into memory; its mathematics stays the same."""

import logging
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from sr_train.engine.distributed import World
from sr_train.engine.model import SRModel
from sr_train.ops.errors import SRTrainError

log = logging.getLogger(__name__)


class Source(Protocol):
    """Where micro-batches come from."""

    def __next__(self) -> Mapping[str, Tensor]: ...


class Splitter:
    """Take whole steps; on running out of memory, take the same step in smaller parts.

    The gradient of a step is the mean over its samples however they are parted, so that splitting
    changes memory and speed alone (what a network computes over a batch, such as BatchNorm's
    statistics, excepted). With several ranks nothing is split, since the others would wait in
    the midst of their own step: the error says what to set.

    Args:
        model: what learns.
        accum: micro-batches that a step has by config.
        world: the ranks.
    """

    def __init__(self, model: SRModel, accum: int, world: World) -> None:
        self.parts = 1
        """Into which each micro-batch is split as of now."""
        self._model = model
        self._accum = accum
        self._world = world

    def step(self, source: Source) -> Mapping[str, Tensor]:
        """Take one step; return its last micro-batch as it came.

        Raises:
            SRTrainError: if not even single samples fit.
        """
        held: list[Mapping[str, Tensor]] = []
        mark = self._model.meter.mark()
        while not self._attempt(source, held):
            self._model.forget()
            self._model.meter.rewind(mark)
            if self._model.device.type == "cuda":
                torch.cuda.empty_cache()
            self._split(held[-1])
        return held[-1]

    def _attempt(self, source: Source, held: list[Mapping[str, Tensor]]) -> bool:
        """Take the step with as many parts as of now; return False where memory ran out."""
        model, before = self._model, self._model.generator.steps
        try:
            for number in range(self._accum):
                if number == len(held):
                    held.append(next(source))
                last = number == self._accum - 1
                for part, piece in enumerate(_pieces(held[number], self.parts), start=1):
                    model.optimize_parameters(piece, last_micro_batch=last and part == self.parts)
        except (torch.OutOfMemoryError, RuntimeError) as err:
            if not is_out_of_memory(err):
                raise
            if self._world.size > 1 or model.updating or model.generator.steps > before:
                raise SRTrainError(self._advice()) from err
            return False
        return True

    def _split(self, batch: Mapping[str, Tensor]) -> None:
        samples = len(next(iter(batch.values())))
        finer = [n for n in range(self.parts + 1, samples + 1) if samples % n == 0]
        if not finer:
            raise SRTrainError(self._advice())
        self.parts = finer[0]
        self._model.micro_batches = self._accum * self.parts
        log.warning(
            "warning: step %d: out of memory; each step goes on in %d micro-batches of %d "
            "samples, with the same gradient. To start like this: train.accum=%d",
            self._model.generator.steps + 1,
            self._model.micro_batches,
            samples // self.parts,
            self._model.micro_batches,
        )

    def _advice(self) -> str:
        return (
            f"step {self._model.generator.steps + 1}: out of memory with {self._accum} x "
            f"{self.parts} micro-batches; raise train.accum, or lower data.lq_size or "
            "data.batch_size; arch.gradient_checkpointing=true or net_g.channels_last=never may "
            "help too"
        )


def is_out_of_memory(err: BaseException) -> bool:
    """Tell an allocation that failed, on any kind of device, from other errors."""
    if isinstance(err, torch.OutOfMemoryError):
        return True
    words = ("out of memory", "can't allocate memory")
    return isinstance(err, RuntimeError) and any(word in str(err) for word in words)


def _pieces(batch: Mapping[str, Tensor], parts: int) -> Iterator[Mapping[str, Tensor]]:
    if parts == 1:
        yield batch
        return
    chunks = {name: value.chunk(parts) for name, value in batch.items()}
    for number in range(parts):
        yield {name: values[number] for name, values in chunks.items()}
