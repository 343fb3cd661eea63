"""SIGKILL at random times and at moments that matter; resume=auto must end as the unbroken run.

Example: python -m scripts.chaos.kill_runs --trials 20 --seed 1 --out chaos

Half of the kills come from outside at a random time, half from inside at a random moment of a kind
(scripts/chaos/moments.py); a trial has one to three. What remains must be equal bit for bit:
states, weights, rows of metrics.csv; and no temporary file is left.
"""

import random
import shutil
import signal
import sys
from pathlib import Path

from scripts.chaos import children, moments, toy_runs
from scripts.chaos.report import Report, arguments

NEVER = ("lost", "different", "hangs", "tracebacks", "left_processes", "leftover_files")
KINDS = (
    "fsync", "renaming", "renamed", "removing", "half a file", "half an image", "half a row",
    "scoring",
)  # fmt: skip
MOST_LAUNCHES = 10


def trial(
    report: Report, case: str, number: int, draw: random.Random, whole: Path, wall: float
) -> None:
    """Kill a run one to three times, let it end, and compare."""
    name = f"{case}_{number}"
    words = toy_runs.words(case, report.data, name, "resume=auto")
    wanted, kills = draw.choice([1, 1, 2, 3]), []
    for _ in range(MOST_LAUNCHES):
        signals, hook, label = (), None, ""
        if len(kills) < wanted:
            if draw.random() < 0.5:
                at = draw.uniform(0.0, 1.05 * wall)
                signals, label = ((at, signal.SIGKILL),), f"after {at:.2f} s"
            else:
                kind = draw.choice(KINDS)
                nth = draw.randint(1, max(1, moments.OFTEN[kind] // (1 + len(kills))))
                hook, label = moments.at(kind, nth, moments.die), f"{kind} {nth}"
        ended = children.run(
            words, report.work, report.log, limit_s=180, signals=signals, hook=hook, patience_s=4
        )
        if ended.left_processes:
            report.add("left_processes", trial=name, kills=kills, count=ended.left_processes)
        if ended.signal == "SIGKILL" and not ended.hangs:
            kills.append(label)
            report.count("kills", label.rpartition(" ")[0] if hook else "at a random time")
            continue
        if not _is_fine(report, name, kills, ended):
            return
        break
    report.count("runs", case)
    _compare(report, name, kills, whole)


def _is_fine(report: Report, name: str, kills: list[str], ended: children.Ended) -> bool:
    facts = {"trial": name, "kills": kills, "end": ended.kind, "fault": ended.fault()}
    if ended.hangs:
        report.add("hangs", **facts)
    elif ended.code != 0:
        report.add("lost", **facts, tail=ended.out[-2000:])
    elif ended.traceback:
        report.add("tracebacks", **facts, tail=ended.out[-2000:])
    return not ended.hangs and ended.code == 0


def _compare(report: Report, name: str, kills: list[str], whole: Path) -> None:
    folder = report.work / "runs" / name
    faults, left = toy_runs.faults_of(folder, whole), toy_runs.leftovers(folder)
    if faults:
        report.add("different", trial=name, kills=kills, faults=faults)
    if left:
        report.add("leftover_files", trial=name, kills=kills, files=left)
    if not faults:
        shutil.rmtree(folder)


def main() -> int:
    """Break every case so many times; return 1 where something was lost."""
    options = arguments(__doc__, trials=20)
    report = Report("kill_runs", options, NEVER)
    children.preload()
    for case in toy_runs.CASES:
        whole, wall = toy_runs.unbroken(case, report)
        draw = random.Random(f"{options.seed}{case}")
        for number in range(options.trials):
            trial(report, case, number, draw, whole, wall)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
