"""A clock that goes back: by a day between launches, by hours within a run, before 1970.

Example: python -m scripts.chaos.clock --out chaos

The run must end as the unbroken one, and TensorBoard must hold each step once, in order, also where
a run was killed behind a logged step whose state was not stored.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.chaos import children, toy_runs
from scripts.chaos.moments import die
from scripts.chaos.report import JUDGED, Report, arguments

NEVER = (*JUDGED, "different", "steps_twice", "steps_missing", "out_of_order")
DAY_SEC = 86_400.0
Hook = Callable[[], None] | None


def turned_back(seconds: float, drift: float = 0.0) -> Callable[[], None]:
    """Return a hook after which the wall clock is behind, and goes back `drift` times as fast."""

    def hook() -> None:
        real, start = time.time, time.time()
        local, text = time.localtime, time.strftime
        time.time = lambda: real() - seconds - drift * (real() - start)
        time.localtime = lambda at=None: local(time.time() if at is None else at)
        time.strftime = lambda form, at=None: text(form, time.localtime() if at is None else at)

    return hook


def dying_after_row(step: int) -> Callable[[], None]:
    """Return a hook that kills the run when the rows of a step are written, its state not."""

    def hook() -> None:
        from torch.utils.tensorboard import SummaryWriter

        from sr_train.monitoring.run_files import MetricsFile

        append, add = MetricsFile.append, SummaryWriter.add_scalar

        def appended(self: MetricsFile, values: Any, at: int) -> None:
            append(self, values, at)
            if at == step and "loss/total" in values:
                time.sleep(0.1)
                die()

        def added(self: SummaryWriter, *args: Any, **kwargs: Any) -> None:
            add(self, *args, **kwargs)
            self.flush()

        MetricsFile.append = appended  # type: ignore[method-assign]
        SummaryWriter.add_scalar = added

    return hook


def steps_shown(run: Path, tag: str = "loss/total") -> list[int]:
    """Return the steps of a scalar that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [each.step for each in events.Scalars(tag)]


def trial(report: Report, name: str, whole: Path, first: Hook, second: Hook, *more: str) -> None:
    """Run with one hook to a kill, go on with the other, and look at what is there."""
    words = toy_runs.words("psnr", report.data, name, *more)
    if first is not None:
        killed = children.run(words, report.work, report.log, hook=first)
        if killed.signal != "SIGKILL":
            raise RuntimeError(f"{name} was not killed:\n{killed.out[-2000:]}")
    ended = children.run([*words, "resume=auto"], report.work, report.log, hook=second)
    report.judge(name, ended, codes=(0,), slow_s=60)
    if ended.code != 0:
        return
    faults = [] if more else toy_runs.faults_of(report.work / "runs" / name, whole)
    steps = steps_shown(report.work / "runs" / name)
    report.figures[f"steps of {name}"] = len(steps)
    if faults:
        report.add("different", run=name, faults=faults)
    if len(steps) > len(set(steps)):
        report.add("steps_twice", run=name, steps=steps)
    missing = sorted({*range(5, toy_runs.STEPS + 1, 5)} - {*steps})
    if missing:
        report.add("steps_missing", run=name, steps=missing)
    if steps != sorted(steps):
        report.add("out_of_order", run=name, steps=steps)


def main() -> int:
    """Turn the clock back in every way; return 1 where a run minded."""
    report = Report("clock", arguments(__doc__), NEVER)
    children.preload()
    whole, _ = toy_runs.unbroken("psnr", report)
    back, killed = turned_back(DAY_SEC), toy_runs.dying_after_save(30)
    cut, seldom = dying_after_row(35), "train.checkpoint_every=20"
    trial(report, "as_it_is", whole, killed, None)
    trial(report, "a_day_back_at_resume", whole, killed, back)
    trial(report, "cut_behind_a_row", whole, cut, None, seldom)
    trial(report, "cut_and_a_day_back", whole, cut, back, seldom)
    trial(report, "running_backwards", whole, None, turned_back(0.0, drift=50.0))
    trial(report, "before_1970", whole, None, turned_back(time.time() + 1000))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
