"""Kills around the RAM cache that two runs share, data workers, launches at once, and use.

Example: python -m scripts.chaos.kill_cache --trials 6 --seed 1 --out chaos

`--trials` times: a pair of runs over one cache, of which one is killed, which must not change the
other; a run whose data worker is killed; three launches of one run at once, of which one may write.
Then infer and export are ended by SIGTERM, SIGINT and SIGKILL in the midst of a file, of which no
part may be left (SIGKILL: none that the next use does not remove).
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.chaos import children, moments, toy_runs
from scripts.chaos.report import Report, arguments

NEVER = (
    "lost", "different", "hangs", "tracebacks", "left_processes", "several_writers",
    "leftover_files",
)  # fmt: skip


STEP_SEC = 0.05
"""How much longer a step takes, so that two runs overlap and a kill hits one."""


def slow_steps() -> None:
    """Let every step take longer; a hook."""
    from sr_train.engine.model import SRModel

    moments.wrap(SRModel, "optimize_parameters", lambda: time.sleep(STEP_SEC))


def at_once(jobs: list[Callable[[], Any]], folder: Path) -> list[Any]:
    """Call functions in processes of their own; return what they returned (JSON)."""
    started = []
    for number, job in enumerate(jobs):
        child = os.fork()
        if child == 0:
            try:
                (folder / f"answer_{number}").write_text(json.dumps(job()))
            finally:
                os._exit(0)
        started.append(child)
    for child in started:
        os.waitpid(child, 0)
    return [json.loads((folder / f"answer_{number}").read_text()) for number in range(len(jobs))]


def one_of_pair(report: Report, name: str, delay: float, kill_at: float | None) -> dict[str, Any]:
    """Run the clips, perhaps to be killed; return how it ended."""
    time.sleep(delay)
    ended = children.run(
        toy_runs.words("clips", report.data, name),
        report.work,
        report.work / f"{name}.log",
        limit_s=180,
        signals=() if kill_at is None else ((kill_at, signal.SIGKILL),),
        hook=slow_steps,
        patience_s=4,
    )
    return {
        "name": name, "kind": ended.kind, "traceback": ended.traceback,
        "left": ended.left_processes, "fault": ended.fault(),
        "shares": "of another process" in ended.out,
    }  # fmt: skip


def go_on(report: Report, name: str, whole: Path, **facts: Any) -> None:
    """Go on with a run and compare its end with the unbroken one's."""
    words = toy_runs.words("clips", report.data, name, "resume=auto")
    ended = children.run(words, report.work, report.log, limit_s=180, patience_s=4)
    if ended.code != 0:
        report.add("lost", run=name, **facts, fault=ended.fault(), tail=ended.out[-2000:])
        return
    faults = toy_runs.faults_of(report.work / "runs" / name, whole)
    if faults:
        report.add("different", run=name, **facts, faults=faults)


def pair(report: Report, number: int, draw: random.Random, whole: Path, seconds: float) -> None:
    """Let two runs share the cache and kill one: the maker of the memory, or the other."""
    slow = 0.5 * toy_runs.STEPS * STEP_SEC
    victim, at = draw.choice("ab"), draw.uniform(0.5 * seconds, seconds + slow)
    names = {side: f"{side}{number}" for side in "ab"}
    jobs = [
        lambda side=side, delay=delay: one_of_pair(
            report, names[side], delay, at if side == victim else None
        )
        for side, delay in (("a", 0.0), ("b", 0.5))
    ]
    for answer in at_once(jobs, report.work):
        report.count("memory", "of another process" if answer["shares"] else "its own")
        is_victim = answer["name"] == names[victim]
        report.count("pairs", f"{'killed' if is_victim else 'left alone'}: {answer['kind']}")
        if answer["traceback"]:
            report.add("tracebacks", **answer)
        if answer["left"]:
            report.add("left_processes", **answer)
        if not is_victim and answer["kind"] != "exit 0":
            report.add("lost", **answer)
        go_on(report, answer["name"], whole, victim=victim, at=round(at, 2))


def worker(report: Report, number: int, draw: random.Random, whole: Path, seconds: float) -> None:
    """Kill a data worker of a run; the run must end with words, and go on."""
    at, which = draw.uniform(0.5 * seconds, seconds), draw.random()

    def hook() -> None:
        slow_steps()

        def shoot() -> None:
            time.sleep(at)
            mine = os.getpid()
            workers = Path(f"/proc/{mine}/task/{mine}/children").read_text().split()
            if workers:
                os.kill(int(workers[int(which * len(workers))]), signal.SIGKILL)

        threading.Thread(target=shoot, daemon=True).start()

    name = f"worker{number}"
    words = toy_runs.words("clips", report.data, name)
    ended = children.run(words, report.work, report.log, hook=hook, patience_s=4)
    report.count("workers", ended.kind)
    facts = {"run": name, "end": ended.kind, "fault": ended.fault()}
    for kind, is_so in (
        ("hangs", ended.hangs), ("tracebacks", ended.traceback),
        ("left_processes", ended.left_processes),
    ):  # fmt: skip
        if is_so:
            report.add(kind, **facts, tail=ended.out[-2000:])
    go_on(report, name, whole, at=round(at, 2))


def launches(report: Report, number: int) -> None:
    """Start a run three times at once: one may write, the others say so."""

    def launch(each: int) -> str:
        words = toy_runs.words("psnr", report.data, f"thrice{number}", "resume=auto")
        log = report.work / f"launch_{each}.log"
        ended = children.run(words, report.work, log, limit_s=180)
        locked = "another process is writing" in ended.out
        return "done" if ended.code == 0 else "refused" if locked else ended.last_line()

    answers = at_once([lambda each=each: launch(each) for each in range(3)], report.work)
    report.count("three launches at once", ", ".join(sorted(answers)))
    # A launch that comes when the first has ended finds a run that is done already.
    if "done" not in answers or not {"done", "refused"} >= set(answers):
        report.add("several_writers", run=number, answers=answers)


def use(report: Report, network: Path, number: signal.Signals, what: str) -> None:
    """End infer or export by a signal in the midst of a file; look for parts of it."""
    out = report.work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    infer = ["infer", f"checkpoint={network}", f"input={report.data}/gt", "device=cpu"]
    argv = {
        "images": [*infer, "output=out"],
        "video": [*infer, "output=out/o.mp4", "fps=5"],
        "export": ["export", f"checkpoint={network}", "output=out/x.safetensors"],
    }[what]
    kind, nth = {
        "images": ("half an image", 3), "video": ("frame", 3), "export": ("half a file", 1),
    }[what]  # fmt: skip
    act = moments.die if number == signal.SIGKILL else moments.sending(number)
    ended = children.run(argv, report.work, report.log, hook=moments.at(kind, nth, act))
    report.count("use", f"{number.name}, {what}: {ended.kind}")
    facts = {"signal": number.name, "what": what, "end": ended.kind}
    if ended.traceback:
        report.add("tracebacks", **facts, fault=ended.fault(), tail=ended.out[-2000:])
    if number == signal.SIGKILL:
        children.run(argv, report.work, report.log)
    left = toy_runs.leftovers(out)
    if left:
        report.add("leftover_files", **facts, files=left)


def main() -> int:
    """Break the cache, workers, starts and use; return 1 where something was lost."""
    options = arguments(__doc__, trials=6)
    report = Report("kill_cache", options, NEVER)
    draw = random.Random(options.seed)
    children.preload()
    whole, seconds = toy_runs.unbroken("clips", report)
    for number in range(options.trials):
        pair(report, number, draw, whole, seconds)
        worker(report, number, draw, whole, seconds)
        launches(report, number)
    network = toy_runs.tiny_run(report)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        for what in ("images", "video", "export"):
            use(report, network, number, what)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
