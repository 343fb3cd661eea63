"""The loop: batches, cadences of logging, validation and checkpoints, and how it ends."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sr_train.engine.checkpoint import save_state
from sr_train.engine.host import peak_host_bytes
from sr_train.engine.model import SRModel
from sr_train.engine.randomness import random_state
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.stop import GracefulStop
from sr_train.engine.validator import Scores
from sr_train.engine.weights import Card, save_weights
from sr_train.monitoring.console import Bar, progress_bar
from sr_train.monitoring.drift import ParameterDrift
from sr_train.monitoring.records import MetricsFile
from sr_train.monitoring.sentinel import NonFiniteError, Sentinel
from sr_train.ops.errors import DataError

log = logging.getLogger(__name__)


class Stream(Protocol):
    """Endless training batches; see data.loader."""

    wait_seconds: float

    def seek(self, position: int) -> None: ...

    def __next__(self) -> Mapping[str, Tensor]: ...

    def close(self) -> None: ...


class Logger(Protocol):
    """Where scalars go beside the console and metrics.csv."""

    def scalars(self, values: Mapping[str, float], step: int) -> None: ...

    def text(self, name: str, text: str) -> None: ...

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
    ) -> None:
        self.model = model
        self.stream = stream
        self.cadence = cadence
        self.folder = folder
        self.card = card
        self.config = config
        self.best = best
        self.sentinel = sentinel
        self.validation = validation
        self.loggers = loggers
        self.scores: Scores | None = None
        self._metrics_file = MetricsFile(folder.metrics_file, self.step + 1)
        self._drift = ParameterDrift(model.generator.parameters)
        self._silent: list[str] = []
        self._window = _Clock()
        self._saved_step = -1
        self._skipped_before = float(model.generator.num_skipped)
        self._logged_step = self.step

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
        """
        self.stream.seek(self.step * self.cadence.accum)
        self._start_window()
        started_at, first = self.step, True
        with (
            GracefulStop() as stop,
            progress_bar("train", self.cadence.steps, self.step) as bar,
        ):
            try:
                while self.step < self.cadence.steps and stop.requested is None:
                    batch = self._take_step()
                    if first:
                        self._name_silent_parameters()
                    self._after_step(batch, bar)
                    if first:  # what starts up with the first step is not the pace of a run
                        self._start_window()
                        first = False
            except (DataError, NonFiniteError):
                if self.step > started_at:
                    self.save()
                    log.info("state of step %d saved", self.step)
                raise
            if self.step != self._saved_step:
                self.save()
        return stop.requested

    def _take_step(self) -> Mapping[str, Tensor]:
        for micro_batch in range(1, self.cadence.accum + 1):
            batch = next(self.stream)
            self.model.optimize_parameters(
                batch, last_micro_batch=micro_batch == self.cadence.accum
            )
        return batch

    def _after_step(self, batch: Mapping[str, Tensor], bar: Bar) -> None:
        done, cadence = self.step, self.cadence
        last = done == cadence.steps
        note = self._log(batch) if last or _due(done, cadence.log_every) else None
        bar.advance(note)
        if self.validation is not None and (last or _due(done, cadence.val_every)):
            self.validate()
        if last or _due(done, cadence.checkpoint_every):
            self.save()

    def _log(self, batch: Mapping[str, Tensor]) -> str:
        """Read the meter, write every scalar, return the note behind the bar."""
        learner, step = self.model.generator, self.step
        window = self.model.meter.read()
        skipped, in_row = float(learner.num_skipped), int(learner.skipped_in_row)
        values = {
            **window.means,
            **{f"lr/g{i or ''}": lr for i, lr in enumerate(learner.lrs)},
            "loss_scale/g": float(learner.scaler.scale),
            "loss_scale_growths/g": float(learner.scaler.num_growths),
            "loss_scale_backoffs/g": float(learner.scaler.num_backoffs),
            "skipped_steps/g": skipped,
            "param_drift/g": float(self._drift.read()),
            **self._window.rates(step, self.stream.wait_seconds),
            **_memory(self.model.device),
        }
        self.write(values)
        self.sentinel.report(
            int(skipped - self._skipped_before), step - self._logged_step, window.non_finite, step
        )
        self._skipped_before, self._logged_step = skipped, step
        if in_row >= self.sentinel.limit:
            terms = [name for name in window.non_finite if name.startswith("loss/")]
            raise self.sentinel.stop(step, in_row, batch, terms, learner.non_finite_parameters())
        self._name_silent_parameters()
        self._start_window()
        return self._say(step, values)

    def _start_window(self) -> None:
        self._window.restart(self.step)
        self.stream.wait_seconds = 0.0

    def _say(self, step: int, values: Mapping[str, float]) -> str:
        loss = values.get("loss/total", float("nan"))
        note = f"loss {loss:.5f}  lr {values['lr/g']:.2e}"
        log.info(
            "step %d/%d  %s  grad %.3g  %.2f step/s  data wait %.0f %%",
            step,
            self.cadence.steps,
            note,
            values.get("grad_norm/g", float("nan")),
            values["time/steps_per_sec"],
            100 * values["time/data_wait_share"],
        )
        return note

    def write(self, values: Mapping[str, float]) -> None:
        """Send scalars of the current step to metrics.csv and every logger."""
        self._metrics_file.append(values, self.step)
        for logger in self.loggers:
            logger.scalars(values, self.step)

    def _name_silent_parameters(self) -> None:
        silent = self.model.generator.silent_parameters()
        if silent != self._silent and silent:
            shown = ", ".join(silent[:5]) + (", ..." if len(silent) > 5 else "")
            log.warning(
                "warning: step %d: no gradient reaches %d parameters: %s",
                self.step,
                len(silent),
                shown,
            )
        self._silent = silent

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
        self.write(values)
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
        self._window.leave_out(time.perf_counter() - started)

    def save(self) -> None:
        """Write the weights to use, then the training state: a state vouches for its weights."""
        started = time.perf_counter()
        state = {
            **self.model.state_dict(),
            "card": {
                "architecture": self.card.architecture,
                "arguments": self.card.arguments,
                "scale": self.card.scale,
            },
            "config": self.config,
            "best": {metric: best.value for metric, best in self.best.items()},
            "precision": self.model.precision.name,
            "random": random_state(),
        }
        self._save_weights(self.folder.last_weights)
        save_state(self.folder.checkpoints, self.step, state, self.cadence.keep_last)
        self._saved_step = self.step
        self._window.leave_out(time.perf_counter() - started)

    def _save_weights(self, path: Path) -> None:
        card = replace(
            self.card,
            step=self.step,
            weights="live" if self.model.ema is None else "ema",
            metrics={} if self.scores is None else self.scores.mean(),
        )
        save_weights(path, self.model.net_for_use, card)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class _Clock:
    """Time of a log window, without what validation and saving took."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, step: int) -> None:
        self._step = step
        self._started = time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        self._started += seconds

    def rates(self, step: int, wait_seconds: float) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        return {
            "time/steps_per_sec": (step - self._step) / elapsed,
            "time/data_wait_share": min(1.0, wait_seconds / elapsed),
        }


def _memory(device: torch.device) -> dict[str, float]:
    """Return peak memory in GiB: of the process, and of the GPU where there is one."""
    host = peak_host_bytes()
    values = {} if host is None else {"memory/peak_host_gib": host / 2**30}
    if device.type == "cuda":
        values["memory/peak_device_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return values
