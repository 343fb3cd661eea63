"""Mutated images, bombs and impostors through the reader, `infer` and the index of a data set.

Example: python -m scripts.chaos.fuzz_images --cases 400 --seed 1 --out chaos

Each file is read in a child of its own. Then whole commands get them in folders of 25, what wants
much memory alone: `infer`, and `train` with on_bad=skip, whose exit codes must be 0 or 2, and
`infer` must write exactly what can be read. `--special` of the handmade files (0: all).
"""

import os
import random
import shutil
import sys
from pathlib import Path

from scripts.chaos import children, image_cases, toy_runs
from scripts.chaos.mutation import mutated
from scripts.chaos.report import JUDGED, Report, arguments

NEVER = (*JUDGED, "not_written", "leftover_files")
BATCH = 25


def look(path: Path) -> None:
    """Read a file's header, then the file; print what came of it."""
    from sr_train.api.errors import DataError
    from sr_train.io.images import read_header, read_image

    told = []
    for read in (read_header, read_image):
        try:
            read(path)
            told.append("read")
        except DataError:
            told.append("DataError")
    print("header, image:", *told)


def make_files(report: Report, cases: int, special: int, draw: random.Random) -> list[Path]:
    """Write all files; those that need memory are made in a child."""
    folder, pool = report.work / "files", image_cases.seeds()
    folder.mkdir()

    def make() -> None:
        for name, content in image_cases.special().items():
            (folder / name).write_bytes(content)

    made = children.run(make, report.work, report.log, limit_s=600, memory_mib=9000)
    if made.code != 0:
        raise RuntimeError(f"the special files could not be made:\n{made.out[-2000:]}")
    handmade = sorted(folder.iterdir())
    for path in draw.sample(handmade, len(handmade) - special) if special else ():
        path.unlink()
    for name, content in pool.items():
        (folder / name).write_bytes(content)
    for number in range(max(0, cases - len(list(folder.iterdir())))):
        name = draw.choice(list(pool))
        (folder / f"m{number:04d} {name}").write_bytes(mutated(pool[name], draw))
    return sorted(folder.iterdir())


def read_each(report: Report, paths: list[Path]) -> set[str]:
    """Read every file in a child; return the names of those that can be read."""
    good = set()
    for path in paths:
        ended = children.run(lambda path=path: look(path), report.work, report.log, limit_s=60)
        told = ended.last_line() if ended.code == 0 else "nothing"
        report.count("read", told)
        report.judge(path.name, ended, codes=(0,), table="reading")
        if told.endswith("read"):
            good.add(path.name)
    return good


def use(report: Report, network: Path, names: list[str], good: set[str], number: int) -> None:
    """Give `infer` and `train` a folder of files."""
    folder, out = report.work / f"in{number}", report.work / "out"
    folder.mkdir()
    for name in names:
        os.link(report.work / "files" / name, folder / name)
    case = names if len(names) == 1 else f"{len(names)} from {names[0]}"
    use = ["infer", f"checkpoint={network}", f"input={folder.name}", "output=out", "device=cpu"]
    ended = children.run(use, report.work, report.log, limit_s=180)
    report.judge({"infer": case}, ended, table="infer", slow_s=90)
    written = len(list(out.glob("[!.]*"))) if out.exists() else 0
    readable = sorted(good & {*names})
    if written < len(readable) and ended.code in (0, 2):
        facts = {"case": case, "end": ended.kind, "written": written, "readable": readable}
        report.add("not_written", **facts, tail=ended.out[-1000:])
    if out.exists() and toy_runs.leftovers(out):
        report.add("leftover_files", case=case, files=toy_runs.leftovers(out))
    words = toy_runs.tiny_words(folder.name, "index", "data.train.on_bad=skip", "train.steps=3")
    ended = children.run(["train", *words], report.work, report.log, limit_s=180)
    report.judge({"train": case}, ended, table="train", slow_s=90)
    for each in (folder, out, report.work / "runs/index"):
        shutil.rmtree(each, ignore_errors=True)


def main() -> int:
    """Read and use all files; return 1 where one was not answered as it should be."""
    options = arguments(__doc__, cases=400, special=0)
    report = Report("fuzz_images", options, NEVER)
    draw = random.Random(options.seed)
    children.preload()
    network = toy_runs.tiny_run(report)
    paths = make_files(report, options.cases, options.special, draw)
    report.figures["files"] = len(paths)
    good = read_each(report, paths)
    names = [path.name for path in paths]
    heavy = [name for name in names if name.startswith(image_cases.HEAVY)]
    light = [name for name in names if name not in heavy]
    draw.shuffle(light)
    batches = [light[at : at + BATCH] for at in range(0, len(light), BATCH)]
    for number, batch in enumerate([*batches, *([name] for name in heavy)]):
        use(report, network, batch, good, number)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
