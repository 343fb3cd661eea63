"""SIGTERM, SIGINT and SIGHUP at random moments; resume=auto must end as the unbroken run did.

Example: python -m scripts.chaos.stop_runs --trials 10 --seed 1 --out chaos

`--trials` for each case and signal. Half of the signals come at a random time, half inside of a
validation, a save, the building of networks, the baseline or the closing table; some SIGINT come
twice. Told are the ends by signal, and how long they took.
"""

import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.chaos import children, moments, toy_runs
from scripts.chaos.report import Report, arguments

NEVER = (
    "lost", "different", "hangs", "tracebacks", "crashes", "left_processes", "leftover_files",
)  # fmt: skip
KINDS = ("scoring", "saving", "fsync", "building", "closing", "baseline")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Plan = tuple[tuple[tuple[float, int], ...], Callable[[], None] | None, str]


def plan(draw: random.Random, number: signal.Signals, wall: float) -> Plan:
    """Choose when a signal comes: (signals from outside, hook inside, words)."""
    twice = number == signal.SIGINT and draw.random() < 0.25
    if draw.random() < 0.5:
        first = draw.uniform(0, wall)
        second = ((first + draw.uniform(0.01, 0.3), int(number)),) if twice else ()
        return ((first, int(number)), *second), None, f"after {first:.2f} s" + " twice" * twice
    kind = draw.choice(KINDS)
    nth = draw.randint(1, moments.OFTEN[kind])
    hook = moments.at(kind, nth, moments.sending(number, 1 + twice))
    return (), hook, f"{kind} {nth}" + " twice" * twice


def trial(
    report: Report, case: str, name: str, planned: Plan, number: signal.Signals
) -> float | None:
    """Signal a run, go on with it; return how long it took to end after a timed signal."""
    signals, hook, label = planned
    words = toy_runs.words(case, report.data, name, "resume=auto")
    ended = children.run(
        words, report.work, report.log, limit_s=180, signals=signals, hook=hook, patience_s=3
    )
    at_once = ended.signal is not None and not ended.hangs  # before the program minds signals
    how = " finished" * ("try next" in ended.out) + " stopped" * ("stopped by" in ended.out)
    report.count("ends", f"{number.name}{' twice' * label.endswith('twice')}: {ended.kind}{how}")
    facts = {"trial": name, "signal": label, "end": ended.kind, "fault": ended.fault()}
    if at_once and ended.signal != number.name:
        report.add("crashes", **facts, tail=ended.out[-2000:])
    if ended.traceback:
        report.add("tracebacks", **facts, tail=ended.out[-2000:])
    again = children.run(words, report.work, report.log, limit_s=180, patience_s=3)
    if ended.left_processes + again.left_processes:
        report.add("left_processes", **facts)
    if ended.hangs or again.hangs:
        report.add("hangs", **facts)
    elif again.code != 0:
        report.add("lost", **facts, then=again.kind, tail=again.out[-2000:])
    return ended.seconds - signals[0][0] if signals else None


def compare(report: Report, name: str, whole: Path) -> None:
    """Note where a run differs from the unbroken one; a stop may score, and so be best, earlier."""
    folder = report.work / "runs" / name
    faults = [f for f in toy_runs.faults_of(folder, whole) if not f.startswith("weights best")]
    left = toy_runs.leftovers(folder)
    if faults:
        report.add("different", trial=name, faults=faults)
    if left:
        report.add("leftover_files", trial=name, files=left)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Signal every case so many times; return 1 where something was lost."""
    options = arguments(__doc__, trials=10)
    report = Report("stop_runs", options, NEVER)
    children.preload()
    waits = []
    for case in toy_runs.CASES:
        whole, wall = toy_runs.unbroken(case, report)
        for number in SIGNALS:
            draw = random.Random(f"{options.seed}{case}{number}")
            for each in range(options.trials):
                name = f"{case}_{number.name}_{each}"
                waits.append(trial(report, case, name, plan(draw, number, wall), number))
                compare(report, name, whole)
    timed = sorted(seconds for seconds in waits if seconds is not None) or [0.0]
    report.figures["trials"] = len(waits)
    report.figures["seconds_to_end"] = {
        "median": round(timed[len(timed) // 2], 2), "longest": round(timed[-1], 2),
    }  # fmt: skip
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
