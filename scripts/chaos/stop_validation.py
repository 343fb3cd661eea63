"""Signals during validation and saving: how long they wait, and what a second SIGINT does there.

Example: python -m scripts.chaos.stop_validation --trials 10 --out chaos

A signal is looked at between images, so that a run ends long before a slow validation would; a
second SIGINT ends it at once. Either way the run goes on, and ends as the unbroken one did.
"""

import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.chaos import children, moments, toy_runs
from scripts.chaos.report import Report, arguments
from scripts.chaos.stop_runs import compare

NEVER = ("waits", "lost", "different", "tracebacks", "hangs", "left_processes", "leftover_files")
IMAGE_SEC = 3.0
"""How long an image takes to be scored, made slow; a validation has six."""
MOST_SEC = 10.0
"""Longest wait: for an image, a save and the end of a process on a busy machine."""


def slow_scoring(number: signal.Signals, told: Path) -> Callable[[], None]:
    """Return a hook: a signal at the first image scored, each of which takes long."""

    def hook() -> None:
        from sr_train.engine.validator import Validator

        inner = Validator._values

        def values(self: Validator, *args: Any) -> Any:
            if not told.exists():
                told.write_text(str(time.monotonic()))
                moments.sending(number)()
            time.sleep(IMAGE_SEC)
            return inner(self, *args)

        Validator._values = values  # type: ignore[method-assign]

    return hook


def look_between_images(report: Report, number: signal.Signals) -> None:
    """Note a run that waits for its whole validation before it ends."""
    name, told = f"slow_{number.name}", report.work / f"told_{number.name}"
    words = toy_runs.words("psnr", report.data, name, f"data.val.main.gt={report.data}/gt")
    ended = children.run(words, report.work, report.log, hook=slow_scoring(number, told))
    waited = round(time.monotonic() - float(told.read_text()), 1)
    report.figures[f"seconds from {number.name} to the end"] = waited
    facts = {"signal": number.name, "seconds": waited, "end": ended.kind, "fault": ended.fault()}
    if waited > MOST_SEC or ended.code != 0:
        report.add("waits", **facts)
    if ended.traceback:
        report.add("tracebacks", **facts, tail=ended.out[-2000:])


def interrupt_twice(report: Report, number: int, draw: random.Random, whole: Path) -> None:
    """Send SIGINT twice inside of a validation or save; go on and compare."""
    kind, name = draw.choice(["scoring", "saving", "fsync"]), f"twice_{number}"
    nth = draw.randint(3, moments.OFTEN[kind] // 2)
    words = toy_runs.words("psnr", report.data, name, "resume=auto")
    hook = moments.at(kind, nth, moments.sending(signal.SIGINT, 2))
    ended = children.run(words, report.work, report.log, hook=hook, patience_s=3)
    report.count("second SIGINT", f"{kind}: {ended.kind}")
    again = children.run(words, report.work, report.log, limit_s=180, patience_s=3)
    facts = {"moment": f"{kind} {nth}", "end": ended.kind, "then": again.kind}
    if ended.traceback:
        report.add("tracebacks", **facts, fault=ended.fault(), tail=ended.out[-2000:])
    if ended.left_processes + again.left_processes:
        report.add("left_processes", **facts)
    if ended.hangs or again.hangs:
        report.add("hangs", **facts)
    elif again.code != 0:
        report.add("lost", **facts, fault=again.fault(), tail=again.out[-2000:])
    compare(report, name, whole)


def main() -> int:
    """Try both; return 1 where a run waited or something was lost."""
    options = arguments(__doc__, trials=10)
    report = Report("stop_validation", options, NEVER)
    children.preload()
    for number in (signal.SIGTERM, signal.SIGINT):
        look_between_images(report, number)
    whole, _ = toy_runs.unbroken("psnr", report)
    draw = random.Random(options.seed)
    for number in range(options.trials):
        interrupt_twice(report, number, draw, whole)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
