"""Mutated, foreign and malicious weights through infer, export and train: code 0 or 2, nothing run.

Example: python -m scripts.chaos.fuzz_weights --cases 120 --seed 1 --out chaos

`--cases` mutations beside the handmade files (`--handmade` of them at random; 0: all). A mutation
of a file with a checksum inside, if it is taken, must give the output of the file as it was: a bit
that changes weights and is not noticed is a finding.
"""

import random
import shutil
import sys
from pathlib import Path

from scripts.chaos import children, toy_runs, weight_cases
from scripts.chaos.fuzz_tensors import saved
from scripts.chaos.mutation import mutated
from scripts.chaos.report import JUDGED, Report, arguments

NEVER = (*JUDGED, "silently_different")
ARCH = ["arch=compact", "arch.num_feat=4", "arch.num_conv=1", "scale=2"]


def make_files(report: Report, run: Path, cases: int, most: int, draw: random.Random) -> list[Path]:
    """Write all files; bombs need memory while they are made, hence in a child."""
    folder = report.work / "files"
    folder.mkdir()
    state = max(run.glob("checkpoints/step_*.pt")).read_bytes()
    best = run / "checkpoints/last.safetensors"

    def make() -> None:
        made = weight_cases.handmade(state, best, report.work / "canary")
        for name in draw.sample(sorted(made), most) if most else made:
            (folder / name.replace(" ", "_")).write_bytes(made[name])

    ended = children.run(make, report.work, report.log, limit_s=600, memory_mib=8000)
    if ended.code != 0:
        raise RuntimeError(f"the files could not be made:\n{ended.out[-3000:]}")
    report.figures["handmade"] = len(list(folder.iterdir()))
    weights, about = toy_runs.tensors_and_metadata(best)
    pool = {
        "state.pt": state, "own.safetensors": best.read_bytes(),
        **weight_cases.without_checksums(state, weights, about),
        "foreign.pth": saved({"params": weights}), "old.pth": saved(weights, legacy=True),
    }  # fmt: skip
    for number in range(cases):
        name = draw.choice(sorted(pool))
        (folder / f"z{number:04d}_{name}").write_bytes(mutated(pool[name], draw, head=600))
    return sorted(folder.iterdir())


def commands(path: Path, number: int, data: Path) -> list[list[str]]:
    """Return what to do with a file: use it always, and go on, start from it or export it."""
    checkpoint = f"checkpoint={path}"
    own = ARCH if path.name.startswith("table") or path.suffix == ".pth" else []
    found = [["infer", checkpoint, "input=in", "output=out", "device=cpu", *own]]
    train = ["train", *toy_runs.tiny_words(data / "gt", "r", "train.steps=3")]
    if path.suffix == ".pt":
        found.append([*train, f"resume={path}"])
    elif number % 3 == 0:
        found.append([*train, f"net_g.pretrained={path}"])
    elif number % 3 == 1:
        export = ["export", checkpoint, "output=e.safetensors", "overwrite=true"]
        found.append([*export, *own])
    return found


def main() -> int:
    """Use every file; return 1 where one was not answered as it should be."""
    options = arguments(__doc__, cases=120, handmade=0)
    report = Report("fuzz_weights", options, NEVER)
    draw, canary = random.Random(options.seed), report.work / "canary"
    children.preload()
    run = toy_runs.tiny_run(report)
    (report.work / "in").mkdir()
    shutil.copy(report.data / "val/v0.png", report.work / "in/a.png")
    good = report.work / "good"
    use = ["infer", f"checkpoint={run}", "input=in", f"output={good}", "device=cpu"]
    children.run(use, report.work, report.log)
    expected = (good / "a.png").read_bytes()
    paths = make_files(report, run, options.cases, options.handmade, draw)
    report.figures["files"] = len(paths)
    for number, path in enumerate(paths):
        for argv in commands(path, number, report.data):
            for name in ("runs/r", "out"):
                shutil.rmtree(report.work / name, ignore_errors=True)
            canary.unlink(missing_ok=True)
            ended = children.run(argv, report.work, report.log, limit_s=60)
            report.judge({argv[0]: path.name}, ended, table=argv[0], canary=canary)
            made = report.work / "out/a.png"
            checked = path.name.endswith(("_own.safetensors", "_state.pt"))
            if argv[0] == "infer" and checked and made.exists() and made.read_bytes() != expected:
                report.add("silently_different", case=path.name, tail=ended.out[-500:])
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
