"""Damaged states, weights and side files: go back or say so, never load something else silently.

Example: python -m scripts.chaos.damage --flips 100 --seed 1 --out chaos

States and weights of a run are cut, bits are flipped (`--flips` of each), checksums are damaged or
gone; what is read must be the same as before, an older state, or an error that names the file. Then
each other file of a stopped run is deleted, emptied, garbled, cut or made a folder (`--sides` of
these cases, 0: all): resume=auto must go on and end with the weights of the unbroken run.
"""

import json
import logging
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.chaos import children, toy_runs
from scripts.chaos.mutation import flipped
from scripts.chaos.report import Report, arguments

NEVER = ("silently_different", "wrong_errors", "tracebacks", "lost", "different")
SIDES = (
    "metrics.csv", "manifest.json", "train.log", ".lock", "checkpoints/last.safetensors",
    "checkpoints/best_psnr_y.safetensors", "checkpoints/step_*15.sha256",
    "checkpoints/step_*20.sha256", "checkpoints/step_*20.pt", "tensorboard/*", "tensorboard",
    "samples/*", "samples", ".hydra/*/config.yaml", "checkpoints/.sr_00000000.tmp",
    ".sr_00000000.tmp", "checkpoints/abandoned", "checkpoints/.last.safetensors.part",
)  # fmt: skip
"""What lies in a run's folder, and what older or other programs may have left there."""
GONE = {"metrics.csv": "metrics.csv", "checkpoints/best_psnr_y.safetensors": "weights best"}
"""Files of which no other holds the content, and how what is gone with them is told."""
DAMAGES: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "deleted": lambda data, draw: None,
    "empty": lambda data, draw: b"",
    "garbage": lambda data, draw: draw.randbytes(500),
    "nuls": lambda data, draw: data[: len(data) // 2] + b"\0" * 300,
    "cut": lambda data, draw: data[: len(data) * 2 // 3],
    "one bit": lambda data, draw: flipped(data or b"x", draw),
    "a folder": lambda data, draw: None,
}

Case = tuple[str, bytes, bytes | None]
"""Kind of damage, content of the state, content of its checksum file or None for none."""


def state_cases(data: bytes, checksum: bytes, flips: int, draw: random.Random) -> Iterator[Case]:
    """Yield damaged states."""
    for tenth in range(10):
        part = data[: len(data) * tenth // 10]
        yield "state cut at each 10 %", part, checksum
        yield "the same without a checksum file", part, None
    for cut in (1, 2, 22, 100):
        yield "state short of some bytes", data[:-cut], checksum
    for _ in range(flips):
        yield "state, one bit flipped", flipped(data, draw), checksum
        yield "the same, checksum file gone", flipped(data, draw), None
    for _ in range(flips // 2):
        yield "checksum file, one bit flipped", data, flipped(checksum, draw)
    for label, content in {
        "empty": b"", "garbage": b"\xff\xfe\0garbage", "nuls": b"\0" * 64,
        "upper case": checksum.upper(), "with a newline": checksum + b"\n",
        "of sha256sum": checksum + b"  step.pt\n",
    }.items():  # fmt: skip
        yield f"checksum file {label}", data, content
    yield "state copied alone", data, None


def look_at_state(folder: Path, newest: str, good: dict[str, Any]) -> str:
    """Return what `newest_state` makes of a folder."""
    from sr_train.api.errors import SRTrainError
    from sr_train.engine.checkpoint import newest_state

    try:
        found = newest_state(folder)
    except SRTrainError as err:
        return "clear error" if str(folder) in str(err) else f"WRONG ERROR {err}"
    except Exception as err:
        return f"TRACEBACK {type(err).__name__}: {err}"
    if found is None or found[0].name != newest:
        return "an older state"
    keys = (*toy_runs.STATE, "config", "card")
    faults = [d for key in keys for d in toy_runs.differing(found[1].get(key), good.get(key), key)]
    return f"SILENTLY DIFFERENT {faults[0]}" if faults else "as before"


def states(folder: Path, scratch: Path, flips: int, seed: int) -> dict[str, Counter[str]]:
    """Damage the newest training state in every way; count what comes of it."""
    from sr_train.engine.checkpoint import read_state

    logging.disable(logging.CRITICAL)
    draw = random.Random(seed)
    newest = max(folder.glob("step_*.pt"))
    good = read_state(newest)
    checksum = newest.with_suffix(".sha256")
    table: dict[str, Counter[str]] = {}
    for kind, data, sums in state_cases(newest.read_bytes(), checksum.read_bytes(), flips, draw):
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(folder, scratch)
        (scratch / newest.name).write_bytes(data)
        (scratch / checksum.name).unlink()
        if sums is not None:
            (scratch / checksum.name).write_bytes(sums)
        table.setdefault(kind, Counter())[look_at_state(scratch, newest.name, good)] += 1
    return table


def look_at_weights(path: Path, good: list[Any]) -> str:
    """Return what `read_weights` makes of a file."""
    from sr_train.api.errors import SRTrainError
    from sr_train.engine.weights import read_weights

    try:
        found = read_weights(path)
    except SRTrainError as err:
        return "clear error" if str(path) in str(err) else f"WRONG ERROR {err}"
    except Exception as err:
        return f"TRACEBACK {type(err).__name__}: {err}"
    faults = toy_runs.differing(dict(found.tensors), good[0])
    if found.card is None:
        faults.append("no card")
    return f"SILENTLY DIFFERENT {faults[0]}" if faults else "as before"


def weights(path: Path, flips: int, seed: int) -> dict[str, Counter[str]]:
    """Cut a .safetensors file and flip its bits; count what comes of it."""
    logging.disable(logging.CRITICAL)
    draw = random.Random(seed)
    data, good = path.read_bytes(), toy_runs.tensors_and_metadata(path)
    head = int.from_bytes(data[:8], "little") + 8
    copy = path.with_name("damaged.safetensors")
    cases = [("weights cut at each 10 %", data[: len(data) * n // 10]) for n in range(10)]
    for _ in range(flips):
        cases.append(("weights, one bit flipped anywhere", flipped(data, draw)))
        damaged = flipped(data[:head], draw) + data[head:]
        cases.append(("weights, one bit flipped in the header", damaged))
    table: dict[str, Counter[str]] = {}
    for kind, content in cases:
        copy.write_bytes(content)
        table.setdefault(kind, Counter())[look_at_weights(copy, good)] += 1
    copy.unlink()
    return table


def tabulate(report: Report, job: Callable[[], dict[str, Counter[str]]]) -> None:
    """Count in a child, which may crash; note what must not be."""
    answer = report.work / "answer.json"
    ended = children.run(
        lambda: answer.write_text(json.dumps(job())) and 0, report.work, report.log, limit_s=900
    )
    if ended.code != 0:
        report.add("tracebacks", end=ended.kind, fault=ended.fault(), tail=ended.out[-2000:])
        return
    for kind, outcomes in json.loads(answer.read_text()).items():
        for outcome, count in outcomes.items():
            label = " ".join(word for word in outcome.split() if word.isupper()) or outcome
            for _ in range(count):
                report.count(kind, label)
            for start, never in (
                ("SILENTLY", "silently_different"), ("WRONG", "wrong_errors"),
                ("TRACEBACK", "tracebacks"),
            ):  # fmt: skip
                for _ in range(count if outcome.startswith(start) else 0):
                    report.add(never, damage=kind, outcome=outcome)


def damage(target: Path, pattern: str, how: str, draw: random.Random) -> bool:
    """Damage a side file; return whether there is anything to try."""
    path = next(iter(sorted(target.glob(pattern))), target / pattern)
    is_folder, content = path.is_dir(), DAMAGES[how](b"old", draw)
    if (how == "a folder" and is_folder) or (how == "deleted" and not path.exists()):
        return False
    if is_folder:
        shutil.rmtree(path)
    elif path.exists():
        content = DAMAGES[how](path.read_bytes(), draw)
        path.unlink()
    if how == "a folder":
        path.mkdir(parents=True)
    elif content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return True


def side_files(report: Report, stopped: Path, whole: Path, draw: random.Random, most: int) -> None:
    """Damage each other file of a stopped run and go on with it."""
    cases = [(pattern, how) for pattern in SIDES for how in DAMAGES]
    if most:
        cases = sorted(draw.sample(cases, min(most, len(cases))))
    target = report.work / "runs/side"
    for pattern, how in cases:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(stopped, target, symlinks=True)
        if not damage(target, pattern, how, draw):
            continue
        words = toy_runs.words("psnr", report.data, "side", "resume=auto")
        ended = children.run(words, report.work, report.log)
        report.count("side files", ended.kind)
        facts = {"file": pattern, "damage": how, "end": ended.kind, "fault": ended.fault()}
        if ended.traceback:
            report.add("tracebacks", **facts, tail=ended.out[-2000:])
        elif ended.code != 0:
            report.add("lost", **facts, tail=ended.out[-2000:])
        else:
            faults = [
                fault
                for fault in toy_runs.faults_of(target, whole)
                if not any(pattern == file and fault.startswith(of) for file, of in GONE.items())
            ]
            if faults:
                report.add("different", **facts, faults=faults)


def main() -> int:
    """Damage everything; return 1 where something was lost or silently different."""
    options = arguments(__doc__, flips=100, sides=0)
    report = Report("damage", options, NEVER)
    children.preload()
    whole, _ = toy_runs.unbroken("psnr", report)
    words = toy_runs.words("psnr", report.data, "stopped", "train.keep_last=3")
    ended = children.run(words, report.work, report.log, hook=toy_runs.dying_after_save(20))
    if ended.signal != "SIGKILL":
        raise RuntimeError(f"the run was not stopped at step 20:\n{ended.out[-3000:]}")
    stopped = report.work / "runs/stopped"
    seed = options.seed
    scratch = report.work / "scratch"
    tabulate(report, lambda: states(stopped / "checkpoints", scratch, options.flips, seed))
    best = stopped / "checkpoints/last.safetensors"
    tabulate(report, lambda: weights(best, options.flips, seed + 1))
    side_files(report, stopped, whole, random.Random(seed + 2), options.sides)
    report.figures["files of the stopped run"] = sum(len(f) for _, _, f in os.walk(stopped))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
