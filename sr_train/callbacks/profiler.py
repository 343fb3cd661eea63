"""Where the time of a step goes: a trace of chosen steps."""

import logging
import os
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from sr_train.api.callback import Callback, Outcome, Run
from sr_train.utils.command_lines import shown_path

log = logging.getLogger(__name__)

_ROWS = 10
"""Operations in the table that is logged."""


class Profiler(Callback):
    """Write a trace of some steps of this launch, and log the operations that took longest.

    The trace lies in the run's folder, `profile/steps_FIRST_LAST.pt.trace.json`. It opens in
    https://ui.perfetto.dev, chrome://tracing, and TensorBoard with `torch-tb-profiler`. Steps that
    are profiled take longer. Only the main rank is profiled.

    Args:
        after: steps of this launch that pass before: the first ones are slower. From 0 up.
        steps: that are traced, from 1 up.
        shapes: note the shapes of what each operation is given.
        memory: note what each operation allocates.
        stacks: note the lines of Python that called it.
    """

    def __init__(
        self,
        after: int = 10,
        steps: int = 3,
        shapes: bool = True,
        memory: bool = False,
        stacks: bool = False,
    ) -> None:
        if after < 0:
            raise ValueError(f"after={after}: expected a whole number from 0 up")
        if steps < 1:
            raise ValueError(f"steps={steps}: expected a whole number from 1 up")
        self.after = after
        self.steps = steps
        self.shapes = shapes
        self.memory = memory
        self.stacks = stacks
        self._first = 0
        self._profile: profile | None = None
        self._region: Any = None

    def on_run_start(self, run: Run) -> None:
        self._first = run.step + (0 if run.is_rehearsal else self.after)

    def on_step_start(self, run: Run) -> None:
        """Begin with the first chosen step, and mark each of them in the trace."""
        if not run.is_main:
            return
        if run.step == self._first:
            kinds = [ProfilerActivity.CPU]
            if run.model.device.type == "cuda":
                kinds.append(ProfilerActivity.CUDA)
            os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # it calls a missing GPU an error
            self._profile = profile(
                activities=kinds,
                record_shapes=self.shapes,
                profile_memory=self.memory,
                with_stack=self.stacks,
            )
            self._profile.start()
        if self._profile is not None:
            self._region = record_function(f"train_step {run.step + 1}")
            self._region.__enter__()

    def on_step_end(self, run: Run) -> None:
        """End with the last chosen step."""
        self._leave_region()
        if self._profile is not None and run.step >= self._first + self.steps:
            self._write(run)

    def on_run_end(self, run: Run, outcome: Outcome) -> None:
        """Write what there is of a run that was shorter, or broke off."""
        self._leave_region()
        if self._profile is not None:
            self._write(run)
        elif run.is_main and run.step <= self._first:
            log.warning(
                "warning: nothing was profiled: this launch took no more than after=%d steps",
                self.after,
            )

    def _leave_region(self) -> None:
        if self._region is not None:
            self._region.__exit__(None, None, None)
            self._region = None

    def _write(self, run: Run) -> None:
        assert self._profile is not None
        found, self._profile = self._profile, None
        found.stop()
        path = trace_path(run.folder, self._first + 1, run.step)
        path.parent.mkdir(parents=True, exist_ok=True)
        found.export_chrome_trace(str(path))
        if run.is_rehearsal:
            return
        order = f"self_{run.model.device.type}_time_total"
        if run.model.device.type not in {"cpu", "cuda"}:
            order = "self_cpu_time_total"
        table = found.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=50)
        log.info("steps %d to %d, by their own time:\n%s", self._first + 1, run.step, table)
        log.info("trace written: %s (open it in https://ui.perfetto.dev)", shown_path(path))


def trace_path(folder: Path, first: int, last: int) -> Path:
    """Return the file of a trace in a run's folder."""
    return folder / "profile" / f"steps_{first}_{last}.pt.trace.json"
