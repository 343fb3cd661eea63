"""The loop: batches, cadences of logging, validation and checkpoints, and how it ends."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from sr_train.engine.checkpoint import save_state
from sr_train.engine.distributed import World
from sr_train.engine.journal import Journal, Logger
from sr_train.engine.model import SRModel
from sr_train.engine.policy import Policy
from sr_train.engine.randomness import random_states
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.sharding import whole
from sr_train.engine.splitting import MemoryShortError, Splitter
from sr_train.engine.stop import GracefulStop
from sr_train.engine.validator import Scores
from sr_train.engine.weights import Card, save_weights
from sr_train.monitoring.console import Bar, progress_bar
from sr_train.monitoring.sentinel import NonFiniteError, Sentinel
from sr_train.ops.errors import DataError

log = logging.getLogger(__name__)


class Stream(Protocol):
    """Endless training batches; see data.loader."""

    wait_seconds: float

    def seek(self, position: int) -> None: ...

    def __next__(self) -> Mapping[str, Tensor]: ...

    def close(self) -> None: ...


class Validation(Protocol):
    """Scores the model at a step and shows what it sees."""

    def __call__(self, step: int) -> Scores: ...


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How long a run is and how often it does what, in steps; 0: at the end alone."""

    steps: int
    accum: int = 1
    log_every: int = 100
    val_every: int = 0
    checkpoint_every: int = 0
    keep_last: int = 3


@dataclass
class Best:
    """The best value of a metric so far."""

    higher_is_better: bool
    value: float | None = None

    def improved_by(self, value: float) -> bool:
        """Take a new value up; return whether it is the best."""
        better = self.value is None or (
            value > self.value if self.higher_is_better else value < self.value
        )
        if better:
            self.value = value
        return better


class Trainer:
    """Drive a model over a stream of batches.

    Args:
        model: what learns.
        stream: endless batches, one per micro-batch.
        cadence: length and rhythm.
        folder: the run's folder.
        card: what the shipped weights say about themselves.
        config: resolved config, plain Python, kept in every checkpoint.
        best: by metric; each keeps the weights that were best by it.
        sentinel: the watch over non-finite numbers.
        validation: None: no validation.
        loggers: sinks of scalars.
        policies: what adapts at the log interval, by name.
        world: the ranks that train as one.
    """

    def __init__(
        self,
        model: SRModel,
        stream: Stream,
        *,
        cadence: Cadence,
        folder: RunFolder,
        card: Card,
        config: dict[str, Any],
        best: Mapping[str, Best],
        sentinel: Sentinel,
        validation: Validation | None = None,
        loggers: Sequence[Logger] = (),
        policies: Mapping[str, Policy] | None = None,
        world: World | None = None,
    ) -> None:
        self.model = model
        self.stream = stream
        self.cadence = cadence
        self.folder = folder
        self.card = card
        self.config = config
        self.best = best
        self.validation = validation
        self.loggers = loggers
        self.policies = dict(policies or {})
        self.world = World() if world is None else world
        self.scores: Scores | None = None
        self.splitter = Splitter(model, cadence.accum, self.world)
        self.journal = Journal(
            model,
            steps=cadence.steps,
            folder=folder,
            sentinel=sentinel,
            loggers=loggers,
            world=self.world,
        )
        self._saved_step = -1

    @property
    def step(self) -> int:
        """Steps done."""
        return self.model.generator.steps

    def fit(self) -> str | None:
        """Train to the last step, or until a signal asks for an end.

        Returns:
            Name of the signal that ended the run, or None where it is complete.

        Raises:
            NonFiniteError: if gradients stay non-finite.
            MemoryShortError: if not even single samples fit into memory.
        """
        self.stream.seek(self.step * self.cadence.accum)
        self._start_window()
        started_at, stopped_by = self.step, None
        with (
            GracefulStop(self.world) as stop,
            progress_bar("train", self.cadence.steps, self.step) as bar,
        ):
            try:
                while self.step < self.cadence.steps and stopped_by is None:
                    self._arm_probe()
                    batch = self.splitter.step(self.stream)
                    if self.step == started_at + 1:
                        self.journal.name_silent_parameters(after=1)
                    self._after_step(batch, bar)
                    if self.step == started_at + 1:
                        self._start_window()  # what starts up with it is not the pace of a run
                    stopped_by = stop.agreed()
            except (DataError, NonFiniteError, MemoryShortError) as err:
                # A save is of all ranks: it must not wait for those that met no such error.
                shared = self.world.size == 1 or isinstance(err, NonFiniteError)
                if shared and self.step > started_at:
                    self.save()
                    log.info("state of step %d saved", self.step)
                raise
            self.journal.clock.close(self.step, self.stream.wait_seconds)
            if self.step != self._saved_step:
                self.save()
        return stopped_by

    def _logs_at(self, step: int) -> bool:
        return step == self.cadence.steps or _due(step, self.cadence.log_every)

    def _arm_probe(self) -> None:
        if self._logs_at(self.step + 1):
            self.model.probe.arm()
        else:
            self.model.probe.disarm()

    def _after_step(self, batch: Mapping[str, Tensor], bar: Bar) -> None:
        done, cadence = self.step, self.cadence
        last = done == cadence.steps
        bar.advance(self._log(batch) if self._logs_at(done) else None)
        if self.validation is not None and (last or _due(done, cadence.val_every)):
            self.validate()
        if last or _due(done, cadence.checkpoint_every):
            self.save()

    def _log(self, batch: Mapping[str, Tensor]) -> str:
        window, note = self.journal.read(self.stream.wait_seconds)
        self.stream.wait_seconds = 0.0
        for policy in self.policies.values():
            change = policy.observe(self.model, window)
            if change is not None and self.world.is_main:
                log.warning("step %d: %s", self.step, change)
        self.journal.watch(batch, window)
        return note

    def _start_window(self) -> None:
        self.journal.start_window()
        self.stream.wait_seconds = 0.0

    def validate(self) -> None:
        """Score the model; write the best weights where they are the best so far."""
        if self.validation is None:
            return
        started = time.perf_counter()
        self.scores = self.validation(self.step)
        values = {
            f"val/{name}/{metric}": value
            for name in self.scores.pictures
            for metric, value in self.scores.mean(name).items()
        }
        self.journal.write(values)
        log.info(
            "step %d/%d  %s",
            self.step,
            self.cadence.steps,
            "  ".join(f"{name[4:]} {value:.4f}" for name, value in values.items()),
        )
        means = self.scores.mean()
        for metric, best in self.best.items():
            if best.improved_by(means[metric]):
                self._save_weights(self.folder.best_weights(metric))
        self.journal.clock.leave_out("validation", time.perf_counter() - started)

    def save(self) -> None:
        """Write the weights to use, then the training state: a state vouches for its weights."""
        started = time.perf_counter()
        state = {
            **whole(self.model.state_dict()),
            "card": {
                "architecture": self.card.architecture,
                "arguments": self.card.arguments,
                "scale": self.card.scale,
            },
            "config": self.config,
            "best": {metric: best.value for metric, best in self.best.items()},
            "policies": {name: policy.state_dict() for name, policy in self.policies.items()},
            "precision": self.model.precision.name,
            "random": random_states(self.world),
        }
        self._save_weights(self.folder.last_weights)
        if self.model.swa is not None and self.model.swa.started:
            self._save_weights(self.folder.swa_weights, "swa")
        if self.world.is_main:
            save_state(self.folder.checkpoints, self.step, state, self.cadence.keep_last)
        self._saved_step = self.step
        self.journal.clock.leave_out("saving", time.perf_counter() - started)

    def _save_weights(self, path: Path, kind: str | None = None) -> None:
        net = self.model.net_for_use(kind)
        if not self.world.is_main:
            return
        card = replace(
            self.card,
            step=self.step,
            weights=kind or self.model.kind_for_use,
            metrics={} if kind or self.scores is None else self.scores.mean(),
        )
        save_weights(path, net, card)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
