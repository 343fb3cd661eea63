"""Each callback hears of every event once, and its state is stored and restored, before a run."""

import io
from collections.abc import Mapping
from itertools import repeat

import torch
from torch import Tensor

from sr_train.api.callback import Outcome
from sr_train.commands.checks.rehearsal import Rehearsal
from sr_train.engine.callbacks import Callbacks, named, state_of
from sr_train.engine.checkpoint import state_path
from sr_train.engine.distributed import World
from sr_train.engine.trainer import Trainer


def rehearse_callbacks(rehearsal: Rehearsal, trainer: Trainer, batch: Mapping[str, Tensor]) -> None:
    """Run each callback through one step, with a log, a validation, a save and an end of the run.

    Args:
        rehearsal: which notes what fails, by config path.
        trainer: as built.
        batch: small, that the model can learn from.
    """
    run = trainer.callbacks.run
    run.is_rehearsal, run.loggers = True, rehearsal.loggers
    each = {
        path: Callbacks({path: part}, run, World()) for path, part in rehearsal.callbacks.items()
    }

    def call(event: str, *given: object) -> None:
        for path, callbacks in each.items():
            with rehearsal.found.about(path, event):
                callbacks.call(event, *given)

    call("on_run_start")
    call("on_step_start")
    trainer.micro_batcher.step(repeat(batch))
    call("on_step_end")
    call("on_log", trainer.model.meter.read())
    if trainer.scores is not None:
        call("on_validation_start")
        means = trainer.scores.mean()
        scores = {name: means[name.rpartition("/")[2]] for name in run.higher_is_better}
        call("on_validation_end", scores)
    call("on_save", state_path(trainer.folder.checkpoints, trainer.step))
    for path, callbacks in each.items():
        with rehearsal.found.about(path, "state_dict()"):
            _restore(callbacks, path)
    for path, callbacks in each.items():
        for fault in callbacks.end(Outcome("complete")):
            rehearsal.found.add(path, fault, "on_run_end")


def _restore(callbacks: Callbacks, path: str) -> None:
    """Store the state of a callback as a checkpoint does, read it, and put it back."""
    part, stored = callbacks.parts[path], io.BytesIO()
    torch.save(state_of(path, part), stored)
    stored.seek(0)
    with named(path, part, "load_state_dict(state)"):
        part.load_state_dict(torch.load(stored, weights_only=True))
