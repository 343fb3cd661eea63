"""The loop: batches, cadences of logging, validation and checkpoints, and how it ends."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from sr_train.api.callback import Callback, Run
from sr_train.api.errors import PluginError
from sr_train.config.settings import Cadence
from sr_train.engine.averages import KINDS
from sr_train.engine.best import Best
from sr_train.engine.callbacks import Callbacks, directions
from sr_train.engine.checkpoint import save_state, state_path
from sr_train.engine.distributed import World
from sr_train.engine.metric_logger import MetricLogger
from sr_train.engine.micro_batches import MicroBatcher
from sr_train.engine.model import SRModel
from sr_train.engine.model_card import ModelCard
from sr_train.engine.randomness import random_states
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.sharding import gather_full, is_sharded
from sr_train.engine.state_health import (
    StateHealth,
    only_state,
    set_aside_diverged,
    way_back,
    write_healthy,
)
from sr_train.engine.stop import GracefulStop
from sr_train.engine.validator import Scores, Stop, ValidationStopped
from sr_train.engine.weights import save_weights
from sr_train.inference.wrapping import NonFinitePredictionError
from sr_train.monitoring.console import Bar, progress_bar
from sr_train.monitoring.loggers import Loggers
from sr_train.monitoring.non_finite import NonFiniteError, NonFiniteMonitor
from sr_train.utils.launch import SharedError

log = logging.getLogger(__name__)


class Stream(Protocol):
    """Endless training batches; see data.loader."""

    wait_seconds: float

    def seek(self, position: int) -> None: ...

    def __next__(self) -> Mapping[str, Tensor]: ...

    def close(self) -> None: ...


class Validation(Protocol):
    """Scores the model at a step and shows what it sees."""

    @property
    def set_names(self) -> Sequence[str]: ...

    def __call__(self, step: int, stop: Stop) -> Scores:
        """Score; break off with `ValidationStopped` where `stop` gives a reason."""
        ...


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
        monitor: the watch over non-finite numbers.
        validation: None: no validation.
        validated: whether the validation of the step that the model is at was done, if one was due.
        health: of the states that are there.
        window: of the state that the run goes on from, see `MetricLogger`.
        loggers: take scalars, images and texts; whoever trains closes them.
        callbacks: what runs along, by config path; all ranks have the same.
        world: the ranks that train as one.
    """

    def __init__(
        self,
        model: SRModel,
        stream: Stream,
        *,
        cadence: Cadence,
        folder: RunFolder,
        card: ModelCard,
        config: dict[str, Any],
        best: Mapping[str, Best],
        monitor: NonFiniteMonitor,
        validation: Validation | None = None,
        validated: bool = True,
        health: StateHealth | None = None,
        window: Mapping[str, Any] | None = None,
        loggers: Loggers | None = None,
        callbacks: Mapping[str, Callback] | None = None,
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
        self.loggers = Loggers() if loggers is None else loggers
        self.world = World() if world is None else world
        self.health = StateHealth() if health is None else health
        self.scores: Scores | None = None
        self.micro_batcher = MicroBatcher(model, cadence.accum, self.world)
        self.metric_logger = MetricLogger(
            model,
            steps=cadence.steps,
            folder=folder,
            monitor=monitor,
            logger=self.loggers,
            world=self.world,
            drop="" if validated else "val/",
            window=window,
        )
        run = Run(
            model,
            cadence.steps,
            folder.root,
            self.metric_logger.write,
            self.loggers.by_path,
            directions(best, () if validation is None else validation.set_names),
            self.world.rank,
            self.world.size,
        )
        self.callbacks = Callbacks(callbacks or {}, run, self.world)
        self._stop = GracefulStop(self.world)
        self._validated = validated
        self._scored_step = -1
        self._first_step = self._whole_step = self.step
        self._mark: Mapping[str, int] | None = None  # what the meter had before a step under way
        self._saved_step = self.step if self.step in self.health.saved else -1
        self._is_saving = False

    @property
    def step(self) -> int:
        """Steps done."""
        return self.model.generator.steps

    def fit(self) -> str | None:
        """Train to the last step, or until a signal or a callback asks for an end.

        Whatever ends it early, the state of the last whole step is on the disk then.

        Returns:
            Name of the signal that ended the run, or None where it is complete, or ended by a
            callback: see `callbacks.stopped`.

        Raises:
            NonFiniteError: if gradients stay non-finite, or predictions are.
            InsufficientMemoryError: if not even single samples fit into memory.
            SRTrainError: whatever else a user can fix.
        """
        self.stream.seek(self.step * self.cadence.accum)
        self._start_window()
        bar = progress_bar("train", self.cadence.steps, self.step)
        with self._stop, bar as shown, self.callbacks.running():
            try:
                stopped_by = self._train(shown)
            except NonFiniteError as err:
                raise self._set_aside(err) from err
            except Exception as err:
                self._rescue(err)
                raise
            except SystemExit as err:
                self._rescue(err)
                raise PluginError(f"step {self.step}: some code called sys.exit()") from err
            self.metric_logger.clock.close(self.step, self.stream.wait_seconds)
            if self.step != self._saved_step:
                self.save()
            self.callbacks.signal = stopped_by
        return stopped_by

    def _train(self, bar: Bar) -> str | None:
        started_at, stopped_by = self.step, self._make_up()
        while self.step < self.cadence.steps and not (stopped_by or self.callbacks.stopped):
            self.callbacks.call("on_step_start")
            self._arm_probe()
            self._mark = self.model.meter.mark()
            batch = self.micro_batcher.step(self.stream)
            self._whole_step, self._mark = self.step, None
            self.callbacks.call("on_step_end")
            with self._around_first_step() if self.step == started_at + 1 else nullcontext():
                stopped_by = self._after_step(batch, bar)
            self.callbacks.agree(at_once=self._validates() or self.cadence.logs_at(self.step))
            if self.callbacks.stopped and stopped_by is None:
                stopped_by = self._end_early(batch, bar)
            stopped_by = stopped_by or self._stop.agreed()
        return stopped_by

    def _end_early(self, batch: Mapping[str, Tensor], bar: Bar) -> str | None:
        """Log and validate as after the last step, since a callback asked for the end."""
        if not self.cadence.logs_at(self.step):
            bar.advance(self._log(batch))
        if self.validation is None or self._scored_step == self.step:
            return None
        self._validated = False
        return self._validate_and_save()

    @contextmanager
    def _around_first_step(self) -> Iterator[None]:
        """Name what the first step of a launch shows, and leave its time out of the pace."""
        self.metric_logger.warn_of_parameters_without_grad(after=1)
        yield
        self._start_window()

    def _make_up(self) -> str | None:
        """Do the validation that the launch before did not come to the end of."""
        if self._validated or self.validation is None:
            return None
        log.info("step %d: making up for the validation that did not end", self.step)
        return self._validate_and_save()

    def _rescue(self, err: BaseException) -> None:
        """Leave the state of the last whole step on the disk, whatever has failed.

        A save is of all ranks: one that failed by itself must not wait for the others, so that
        rank 0 saves by itself then, where its weights are whole.
        """
        shared = self.world.size == 1 or isinstance(err, SharedError)
        alone = not shared and self.world.is_main and not is_sharded(self.model.generator.net)
        if self.model.updating or self.step != self._whole_step:
            log.warning("the weights of step %d are not whole; not saved", self._whole_step + 1)
        elif self._is_saving or not (shared or alone):
            return
        elif self.step not in (self._saved_step, self._first_step):
            self.save(alone=alone)
            log.info("state of step %d saved", self.step)
        if self.world.is_main and self._saved_step > 0:
            log.info("the last state saved is that of step %d", self._saved_step)

    def _set_aside(self, err: NonFiniteError) -> NonFiniteError:
        """Leave the newest healthy state as the newest; say so."""
        folder, healthy = self.folder, self.health.healthy
        in_validation = isinstance(err.__cause__, NonFinitePredictionError)
        if in_validation and healthy is None:
            return NonFiniteError(f"{err}\n  {only_state(folder.checkpoints, self.step)}")
        if self.world.is_main:
            ends = [folder.last_weights, *map(folder.weights_of, KINDS)]
            if healthy is None:
                ends += [folder.best_weights(metric) for metric in self.best]
            set_aside_diverged(folder.checkpoints, healthy, ends)
        way = way_back(folder.checkpoints, healthy, self.step if in_validation else None)
        return NonFiniteError(f"{err}\n  {way}")

    def _arm_probe(self) -> None:
        if self.cadence.logs_at(self.step + 1):
            self.model.probe.arm()
        else:
            self.model.probe.disarm()

    def _after_step(self, batch: Mapping[str, Tensor], bar: Bar) -> str | None:
        """Log, save, validate where it is time; return the signal that ended a validation."""
        bar.advance(self._log(batch) if self.cadence.logs_at(self.step) else None)
        if self._validates():
            self._validated = False
            self.save()  # first: a validation meets data and code that training did not
            return self._validate_and_save()
        if self.cadence.saves_at(self.step):
            self.save()
        return None

    def _validates(self) -> bool:
        return self.validation is not None and self.cadence.validates_at(self.step)

    def _validate_and_save(self) -> str | None:
        try:
            self.validate()
        except ValidationStopped as stopped:
            log.info("step %d: the validation was broken off; a resume makes up for it", self.step)
            return str(stopped)
        self._validated = True
        self.save()
        return None

    def _log(self, batch: Mapping[str, Tensor]) -> str:
        window, note = self.metric_logger.read(self.stream.wait_seconds)
        self.stream.wait_seconds = 0.0
        healthy = self.health
        if healthy.close_window(self.step, window) and self.world.is_main and healthy.healthy:
            write_healthy(self.folder.checkpoints, healthy.healthy)
        self.callbacks.call("on_log", window)
        self.metric_logger.watch(batch, window)
        return note

    def _start_window(self) -> None:
        self.metric_logger.start_window()
        self.stream.wait_seconds = 0.0

    def validate(self) -> None:
        """Score the model, log the scores, and keep the best weights.

        Raises:
            ValidationStopped: by a signal.
            NonFiniteError: if a prediction is not finite.
        """
        started = time.perf_counter()
        self.callbacks.call("on_validation_start")
        values = self.score()
        self.metric_logger.write(values)
        log.info(
            "step %d/%d  %s",
            self.step,
            self.cadence.steps,
            "  ".join(f"{name[4:]} {value:.4f}" for name, value in values.items()),
        )
        assert self.scores is not None
        means = self.scores.mean()
        for metric, best in self.best.items():
            if best.improved_by(means[metric]):
                self._save_weights(self.folder.best_weights(metric))
        by_set = {name.removeprefix("val/"): value for name, value in values.items()}
        self.callbacks.call("on_validation_end", {**means, **by_set})
        self.metric_logger.clock.leave_out("validation", time.perf_counter() - started)

    def score(self) -> dict[str, float]:
        """Score the model; return the means by set and metric, and write nothing of them."""
        assert self.validation is not None
        self._stop.busy_with = "image of the validation"
        try:
            self.scores = self.validation(self.step, lambda: self._stop.requested)
        except NonFinitePredictionError as err:
            raise NonFiniteError(f"step {self.step}: validation: {err}") from err
        finally:
            self._stop.busy_with = "step"
        self._scored_step = self.step
        return {
            f"val/{name}/{metric}": value
            for name in self.scores.images
            for metric, value in self.scores.mean(name).items()
        }

    def save(self, *, alone: bool = False) -> None:
        """Write the weights to use, then the training state: a state vouches for its weights.

        Args:
            alone: without the other ranks, whose random numbers a resume then seeds again.
        """
        started = time.perf_counter()
        self._is_saving = True
        self.health.add(self.step, self.cadence.keep_last)
        state = {
            **gather_full(self.model.state_dict()),
            "card": {
                "architecture": self.card.architecture,
                "arguments": self.card.arguments,
                "scale": self.card.scale,
            },
            "config": self.config,
            "best": {metric: best.value for metric, best in self.best.items()},
            "validated": self._validated,
            "healthy": self.health.healthy,
            "awaiting": self.health.awaiting,
            "callbacks": self.callbacks.state_dict(),
            "precision": self.model.precision.name,
            "window": self.metric_logger.open_window(self._mark),
            "random": random_states(World() if alone else self.world, self.model.device),
        }
        self._save_weights(self.folder.last_weights)
        for kind in self.model.kinds_with_own_file:
            self._save_weights(self.folder.weights_of(kind), kind)
        if self.world.is_main:
            save_state(self.folder.checkpoints, self.step, state, self.cadence.keep_last)
        self._saved_step = self.step
        self._is_saving = False
        if not alone:
            self.callbacks.call("on_save", state_path(self.folder.checkpoints, self.step))
        self.metric_logger.clock.leave_out("saving", time.perf_counter() - started)

    def _save_weights(self, path: Path, kind: str | None = None) -> None:
        net = self.model.net_for_use(kind)
        if not self.world.is_main:
            return
        scored = kind is None and self.scores is not None and self._scored_step == self.step
        card = replace(
            self.card,
            step=self.step,
            weights=kind or self.model.kind_for_use,
            metrics=self.scores.mean() if scored and self.scores is not None else {},
        )
        save_weights(path, net, card)
