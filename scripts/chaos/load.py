"""Many files, long runs, sweeps and much use: time, memory, growth and how much is printed.

Example: python -m scripts.chaos.load --files 20000 --steps 5000 --jobs 60 --images 2000 --out chaos

Real processes, each measured. A size of 0 leaves its part out. What must not be: a command that
fails, memory that grows without end, and a print for each of many bad files.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.chaos import toy_runs
from scripts.chaos.children import resident_mib
from scripts.chaos.kill_ranks import ROOT
from scripts.chaos.report import Report, arguments

NEVER = ("failures", "tracebacks", "growth", "much_printed", "not_written")
MOST_PRINTED = 20_000
"""Bytes that may be printed about any number of bad files."""
MOST_GROWTH_MIB = 1.0
"""Growth allowed for each 1,000 steps or each job of a sweep, once a run is under way."""
ENOUGH_STEPS, ENOUGH_JOBS = 2000, 20
"""Shorter ones tell nothing about growth: what a start takes is most of it."""
SAMPLE_SEC = 0.1


@dataclass
class Measured:
    """What a command took."""

    code: int
    seconds: float
    memory: np.ndarray
    """(N, 2): seconds and MiB."""
    out: str

    @property
    def facts(self) -> dict[str, Any]:
        """Figures for the summary."""
        return {
            "exit": self.code,
            "seconds": round(self.seconds, 1),
            "peak_mib": round(float(self.memory[:, 1].max())),
            "printed_bytes": len(self.out),
            "last": self.out.strip().splitlines()[-1][:160] if self.out.strip() else "",
        }

    def growth_mib(self, start: float = 0.4) -> float:
        """Return by how much memory grows over what follows a fraction of the time, fitted."""
        late = self.memory[int(len(self.memory) * start) : -5]
        if len(late) < 10:
            return 0.0
        slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
        return float(slope * (late[-1, 0] - late[0, 0]))


class Loader:
    """Runs commands in processes of their own and measures them.

    Args:
        report: of the harness.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        path = report.data / "gt/p0.png"
        with Image.open(path) as image:
            small = image.crop((0, 0, 32, 32))
        small.save(report.work / "small.png")
        self.small = (report.work / "small.png").read_bytes()

    def command(self, label: str, words: Sequence[str], codes: Sequence[int] = (0,)) -> Measured:
        """Run one command as a user would; note its figures and how it must not end."""
        started = time.monotonic()
        with self.report.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sr_train", *words],
                cwd=self.report.work, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            memory = [(0.0, 0.0)]
            while process.poll() is None:
                memory.append((time.monotonic() - started, resident_mib(process.pid)))
                time.sleep(SAMPLE_SEC)
        out = self.report.log.read_text(errors="replace")
        done = Measured(process.returncode, time.monotonic() - started, np.array(memory), out)
        self.report.figures[label] = done.facts
        if done.code not in codes:
            self.report.add("failures", label=label, **done.facts)
        if "Traceback" in out:
            self.report.add("tracebacks", label=label, tail=out[-2000:])
        if len(out) > MOST_PRINTED:
            self.report.add("much_printed", label=label, bytes=len(out))
        return done

    def tree(self, name: str, count: int, content: bytes, suffix: str = ".png") -> Path:
        """Make a folder of many files, a thousand in each folder of it."""
        root = self.report.work / name
        for number in range(count):
            folder = root / f"{number // 1000:04d}"
            if number % 1000 == 0:
                folder.mkdir(parents=True)
            (folder / f"f{number:06d}{suffix}").write_bytes(content)
        return root


def many_files(loader: Loader, count: int) -> None:
    """Index many images, many empty ones and many files of other kinds."""
    few = ["check", *toy_runs.tiny_words(loader.report.data / "gt", "few"), "step=false"]
    loader.command("check of 6 images", few)
    for label, content, suffix, more, codes in (
        ("images", loader.small, ".png", (), (0,)),
        ("empty images", b"", ".png", (), (2,)),
        ("empty images, skipped", b"", ".png", ("data.train.on_bad=skip",), (2,)),
        ("texts", b"x", ".txt", (), (2,)),
    ):
        root = loader.tree("many", count, content, suffix)
        words = [*toy_runs.tiny_words(root, "many", *more), "step=false"]
        loader.command(f"check of {count} {label}", ["check", *words], codes)
        if content == loader.small:
            train = ["train", *toy_runs.tiny_words(root, "many", "train.steps=50")]
            loader.command(f"50 steps on {count} images", train)
        shutil.rmtree(root)


def long_runs(loader: Loader, steps: int) -> None:
    """Train long, with validation and states, and with a discriminator; go on with long tables."""
    data = loader.report.data
    gan = (
        "discriminator=patchgan", "discriminator.arch.num_feat=4", "+objective=gan",
        "discriminator.arch.num_layers=1", "objective_d=[gan]", "data.lq_size=16",
    )  # fmt: skip
    often = (f"train.steps={steps}", "train.log_every=10", "train.checkpoint_every=250")
    for label, more in (("plain", ()), ("with a discriminator", gan)):
        name = label.split()[-1]
        words = [
            w for w in toy_runs.tiny_words(data / "gt", name, *often, *more) if w != "logger=none"
        ]
        done = loader.command(f"{steps} steps {label}", ["train", *words])
        growth = done.growth_mib() / (0.6 * steps) * 1000
        loader.report.figures[f"{steps} steps {label}, MiB for each 1000"] = round(growth, 3)
        if steps >= ENOUGH_STEPS and growth > MOST_GROWTH_MIB:
            loader.report.add("growth", label=label, mib_for_each_1000_steps=round(growth, 2))
    table = loader.report.work / f"runs/{name}/metrics.csv"
    head, _, body = table.read_text().partition("\n")
    table.write_text(f"{head}\n{body * 20}")
    words = [*words, f"train.steps={steps + 2}", "resume=auto"]
    loader.command("going on with twenty times the metrics.csv", ["train", *words])


def sweep(loader: Loader, jobs: int) -> None:
    """Run many one-step runs in one process."""
    words = toy_runs.tiny_words(loader.report.data / "gt", "sweep", f"seed=range({jobs})")
    done = loader.command(f"sweep of {jobs} runs", ["train", "-m", *words])
    growth = done.growth_mib(0.2) / (0.8 * jobs)
    loader.report.figures["MiB for each run of a sweep"] = round(growth, 3)
    if jobs >= ENOUGH_JOBS and growth > MOST_GROWTH_MIB:
        loader.report.add("growth", label="sweep", mib_for_each_run=round(growth, 2))
    folders = list((loader.report.work / "runs/sweep").glob("sweep_*"))
    if len(folders) != jobs:
        loader.report.add("not_written", label="sweep", folders=len(folders))


def much_use(loader: Loader, count: int) -> None:
    """Upscale many images in one go."""
    loader.command("train for use", ["train", *toy_runs.tiny_words(loader.report.data / "gt", "w")])
    root = loader.tree("inputs", count, loader.small)
    words = ["infer", "checkpoint=runs/w", f"input={root}", "output=out", "device=cpu"]
    loader.command(f"infer of {count} images", words)
    written = sum(1 for _ in (loader.report.work / "out").rglob("*.png"))
    if written != count:
        loader.report.add("not_written", label="infer", written=written)


def main() -> int:
    """Measure each part; return 1 where one did what it should not."""
    options = arguments(__doc__, files=20_000, steps=5000, jobs=60, images=2000)
    loader = Loader(Report("load", options, NEVER))
    for part, size in (
        (many_files, options.files), (long_runs, options.steps), (sweep, options.jobs),
        (much_use, options.images),
    ):  # fmt: skip
        if size:
            part(loader, size)
    return loader.report.finish()


if __name__ == "__main__":
    sys.exit(main())
