"""What a run reports at its log interval: scalars to files and sinks, a line to people."""

import logging
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sr_train.api.logger import Logger
from sr_train.api.text import duration, first_few
from sr_train.engine.distributed import World
from sr_train.engine.model import SRModel
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.sharding import global_norm, to_local
from sr_train.monitoring.clock import Clock
from sr_train.monitoring.drift import ParameterDrift
from sr_train.monitoring.meter import LogWindow
from sr_train.monitoring.non_finite import NonFiniteError, NonFiniteMonitor
from sr_train.monitoring.run_files import MetricsFile
from sr_train.utils.heap import peak_host_bytes

log = logging.getLogger(__name__)


_REAL = "gan/real_logits"

_SILENT_LOOKS = 3
"""Looks in a row without a gradient after which a parameter is named."""


class MetricLogger:
    """Read the meter and everything else that is logged; only rank 0 writes.

    Args:
        model: what is reported on.
        steps: length of the run, for people.
        folder: the run's folder.
        monitor: the watch over non-finite numbers.
        logger: takes the scalars, beside metrics.csv.
        world: the ranks that a mean is over.
        drop: what the names of those scalars of the present step begin with that are written
            again; empty: none.
        window: of a launch before that did not come to its end, see `open_window`.
    """

    def __init__(
        self,
        model: SRModel,
        *,
        steps: int,
        folder: RunFolder,
        monitor: NonFiniteMonitor,
        logger: Logger,
        world: World,
        drop: str = "",
        window: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.logger = logger
        self.clock = Clock()
        self._steps = steps
        self._monitor = monitor
        self._world = world
        step = model.generator.steps
        self._file = MetricsFile(folder.metrics_file, step + 1, drop) if world.is_main else None
        learners = model.learners
        self._drift = {
            name: ParameterDrift(map(to_local, each.parameters)) for name, each in learners.items()
        }
        if window and world.size == 1:
            model.meter.restore(window["values"])
            for name, before in window["weights"].items():
                if name in self._drift:
                    self._drift[name].restore(before)
        self._skipped = {name: each.num_skipped for name, each in learners.items()}
        self._silent: dict[str, Counter[str]] = {name: Counter() for name in learners}
        self._logged_step = step
        self._was_sure = False
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(model.device)  # of an earlier run of a sweep

    def open_window(self, mark: Mapping[str, int] | None) -> dict[str, Any]:
        """Return what the next row is a mean of so far, so that a stop changes nothing of it.

        Empty right after a row, and of several ranks, each of which measures for itself.

        Args:
            mark: of the meter, before a step that is not done; None: there is none.
        """
        values = self.model.meter.values(mark) if self._world.size == 1 else {}
        if not values:
            return {}
        weights = {name: drift.before() for name, drift in self._drift.items()}
        return {"values": values, "weights": weights}

    def start_window(self) -> None:
        """Begin to measure time anew."""
        self.clock.restart(self.model.generator.steps)

    def read(self, wait_seconds: float) -> tuple[LogWindow, str]:
        """Write every scalar of the window; return it, and the note after the bar.

        Args:
            wait_seconds: time that the loop waited for data.
        """
        step = self.model.generator.steps
        window = self.model.meter.read(self._world.combine)
        values = dict(window.means)
        for name, learner in self.model.learners.items():
            scaler = learner.scaler
            values |= {f"lr/{name}{i or ''}": lr for i, lr in enumerate(learner.lrs)}
            values[f"loss_scale/{name}"] = float(scaler.scale)
            values[f"loss_scale_growths/{name}"] = float(scaler.num_growths)
            values[f"loss_scale_backoffs/{name}"] = float(scaler.num_backoffs)
            values[f"skipped_steps/{name}"] = learner.num_skipped
            values[f"param_drift/{name}"] = float(
                global_norm([self._drift[name].read()], learner.net)
            )
        if {"grad_norm/g", "grad_norm/d"} <= values.keys():
            values["gan/grad_ratio"] = values["grad_norm/g"] / max(values["grad_norm/d"], 1e-12)
        if self.model.adversary is not None:
            values["gan/d_interval"] = self.model.adversary.pace.interval
        values |= self.clock.close(step, wait_seconds)
        values |= {
            f"memory/{name}": value for name, value in peak_memory(self.model.device).items()
        }
        self.write(values)
        self.warn_of_parameters_without_grad()
        self.start_window()
        return window, self._say(values)

    def write(self, values: Mapping[str, float]) -> None:
        """Send scalars of the current step to metrics.csv and every logger."""
        step = self.model.generator.steps
        if self._file is not None:
            self._file.append(values, step)
        self.logger.scalars(values, step)

    def warn_of_parameters_without_grad(self, after: int = _SILENT_LOOKS) -> None:
        """Warn, once, of trainable parameters that no gradient reaches.

        Args:
            after: looks in a row at which a parameter must be found so; more than one, since
                stochastic depth keeps gradients from other blocks in each step.
        """
        for name, learner in self.model.learners.items():
            looks = self._silent[name]
            silent = learner.parameters_without_grad()
            for reached in looks.keys() - set(silent):
                del looks[reached]
            looks.update(silent)
            found = [each for each in silent if looks[each] == after]
            for each in found:
                looks[each] = _SILENT_LOOKS  # reported; counting on, it is not reported again
            if found and self._world.is_main:
                shown = first_few(found)
                log.warning(
                    "warning: step %d: no gradient reaches %d parameters of net_%s: %s",
                    self.model.generator.steps,
                    len(found),
                    name,
                    shown,
                )

    def watch(self, batch: Mapping[str, Tensor], window: LogWindow) -> None:
        """Report skipped steps; end a run that is lost.

        Args:
            batch: the last one, saved where it ends the run.
            window: the last one read.

        Raises:
            NonFiniteError: if too many steps in a row were skipped.
        """
        step = self.model.generator.steps
        lost = {}
        for name, learner in self.model.learners.items():
            before, self._skipped[name] = self._skipped[name], learner.num_skipped
            new = self._skipped[name] - before
            if self._world.is_main:
                steps = step - self._logged_step
                self._monitor.report(new, steps, window.non_finite, step, f"net_{name}")
            in_row = int(learner.skipped_in_row)
            if in_row >= self._monitor.limit:
                lost[name] = in_row
        self._logged_step = step
        if lost:
            raise self._stopped(lost, batch, window)
        self._warn_of_sure_discriminator(window)

    def _stopped(
        self, lost: Mapping[str, int], batch: Mapping[str, Tensor], window: LogWindow
    ) -> NonFiniteError:
        """Return the error that ends a run, about the network that went wrong first.

        A discriminator whose logits of true images are not finite has spoilt the generator's
        loss, never the other way round.
        """
        name = "d" if "d" in lost and ("g" not in lost or _REAL in window.non_finite) else "g"
        group = "loss/" if name == "g" else "loss_d/"
        terms = [key for key in window.non_finite if key.startswith(group)]
        parameters = self.model.learners[name].non_finite_parameters()
        step = self.model.generator.steps
        return self._monitor.stop(step, lost[name], batch, terms, parameters, f"net_{name}")

    def _warn_of_sure_discriminator(self, window: LogWindow) -> None:
        """Warn, once, of a discriminator that was right about everything in a whole window."""
        is_sure = window.means.get("gan/d_accuracy", 0.0) == 1.0
        if is_sure and not self._was_sure and self._world.is_main:
            log.warning(
                "warning: step %d: the discriminator was right about every image for a whole log "
                "interval (gan/d_accuracy 1.0): it wins, and the generator learns little from it; "
                "discriminator.adaptive=true, a smaller discriminator.lr, or objective_d=[gan,r1]",
                self.model.generator.steps,
            )
        self._was_sure = is_sure

    def _say(self, values: Mapping[str, float]) -> str:
        note = f"loss {values.get('loss/total', math.nan):.5f}  lr {values['lr/g']:.2e}"
        if "loss_d/total" in values:
            note += f"  D {values['loss_d/total']:.4f}"
        if "gan/d_accuracy" in values:
            note += f" ({100 * values['gan/d_accuracy']:.0f} %)"
        step = self.model.generator.steps
        left = self.clock.left(self._steps - step)
        log.info(
            "step %d/%d (%d %%)  %s  grad %.3g  %.2f step/s  data wait %.0f %%%s",
            step,
            self._steps,
            100 * step // self._steps,
            note,
            values.get("grad_norm/g", math.nan),
            values["time/steps_per_sec"],
            100 * values["time/data_wait_fraction"],
            f"  left {duration(left)}" if left else "",
        )
        return note


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return peak memory in GiB: of this process, and on the GPU where there is one."""
    host = peak_host_bytes()
    values = {} if host is None else {"peak_host_gib": host / 2**30}
    if device.type == "cuda":
        values["peak_device_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return values
