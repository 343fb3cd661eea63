"""SIGKILL of real processes: single runs, a rank, torchrun itself; then resume=auto.

Example: python -m scripts.chaos.kill_ranks --single 4 --ranks 2 --seed 1 --out chaos

Nothing is imported beforehand here: each run is `python -m sr_train` or torchrun. The other ranks
must end by themselves, also where torchrun is gone, and the run goes on and ends as it would have.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.chaos import toy_runs
from scripts.chaos.children import kill, session_members
from scripts.chaos.report import Report, arguments

NEVER = ("lost", "different", "hangs", "left_processes", "leftover_files")
ROOT = Path(__file__).resolve().parents[2]
VICTIMS = ("rank 0", "rank 1", "torchrun")
PATIENCE_SEC = 60.0
"""How long the other processes of a run may outlive the killed one."""


class Runs:
    """Starts runs and waits for them.

    Args:
        report: of the harness.
    """

    def __init__(self, report: Report) -> None:
        self.report = report

    def start(self, words: Sequence[str], ranks: int) -> subprocess.Popen[bytes]:
        """Start one command, by torchrun where it has several ranks."""
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
        program = [sys.executable, "-m", *(launcher if ranks > 1 else []), "sr_train", *words]
        with self.report.log.open("wb") as log:
            return subprocess.Popen(
                program,
                cwd=self.report.work,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )

    def finish(self, process: subprocess.Popen[bytes], limit_s: float = 400.0) -> int | str:
        """Wait for a command; return its exit code, or "hang"."""
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            kill(session_members(process.pid))
            process.wait()
            return "hang"

    def whole(self, case: str, name: str, ranks: int) -> float:
        """Make an unbroken run; return how many seconds it took."""
        started = time.monotonic()
        words = toy_runs.words(case, self.report.data, name)
        if self.finish(self.start(words, ranks)) != 0:
            raise RuntimeError(f"the unbroken run fails:\n{self.report.log.read_text()[-3000:]}")
        return time.monotonic() - started


def of_run(name: str) -> list[int]:
    """Return processes whose words hold a run's name: torchrun gives ranks their own sessions."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"name={name}".encode() in words:
                found.append(int(entry))
    return found


def gone(name: str) -> float | None:
    """Wait until no process of a run is left; return after how long, or None after patience."""
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE_SEC:
        if not of_run(name):
            return round(time.monotonic() - started, 1)
        time.sleep(0.2)
    kill(of_run(name))
    return None


def victim_of(process: subprocess.Popen[bytes], kind: str) -> int:
    """Return whom to kill: the process, torchrun, or one of its ranks."""
    if not kind.startswith("rank"):
        return process.pid
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = [int(each) for each in children]
    return ranks[int(kind[-1])] if len(ranks) > 1 else process.pid


def trial(runs: Runs, case: str, name: str, kind: str, at: float, whole: str) -> None:
    """Kill a process of a run at some second; go on with the run, and compare."""
    report, ranks = runs.report, 1 if kind == "single" else 2
    words = toy_runs.words(case, report.data, name)
    process = runs.start(words, ranks)
    time.sleep(at)
    was_alive = process.poll() is None
    if was_alive:
        os.kill(victim_of(process, kind), signal.SIGKILL)
    ended, seconds = runs.finish(process, 120), gone(name)
    report.count("killed" if was_alive else "ended before", kind)
    facts = {"run": name, "kind": kind, "at": round(at, 1), "end": ended}
    if seconds is None:
        report.add("left_processes", **facts)
    else:
        report.figures.setdefault("seconds until all were gone", {})[name] = seconds
    again = runs.finish(runs.start([*words, "resume=auto"], ranks))
    if "hang" in (ended, again):
        report.add("hangs", **facts, then=again)
    elif again != 0:
        report.add("lost", **facts, then=again, tail=report.log.read_text()[-2000:])
        return
    folder = report.work / "runs"
    faults = toy_runs.faults_of(folder / name, folder / whole)
    left = toy_runs.leftovers(folder / name)
    if faults:
        report.add("different", **facts, faults=faults)
    if left:
        report.add("leftover_files", **facts, files=left)


def main() -> int:
    """Kill so many runs of each kind; return 1 where something was lost."""
    options = arguments(__doc__, single=4, ranks=2)
    runs = Runs(Report("kill_ranks", options, NEVER))
    draw = random.Random(options.seed)
    for case in ("psnr", "clips") if options.single else ():
        seconds = runs.whole(case, f"whole_{case}", 1)
        for number in range(options.single):
            at = draw.uniform(0.2, seconds)
            trial(runs, case, f"single_{case}_{number}", "single", at, f"whole_{case}")
    seconds = runs.whole("psnr", "whole_ranks", 2) if options.ranks else 0.0
    for kind in VICTIMS:
        for number in range(options.ranks):
            at = draw.uniform(0.3, 1.0) * seconds
            name = f"{kind.replace(' ', '')}_{number}"
            trial(runs, "psnr", name, kind, at, "whole_ranks")
    return runs.report.finish()


if __name__ == "__main__":
    sys.exit(main())
