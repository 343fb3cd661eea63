"""Full, read-only and failing disks while a run trains and saves, and while a network is used.

Example (as root, on Linux): python -m scripts.chaos.full_disk --points 24 --out chaos

A small file system of its own is mounted below the work folder. Training begins with `--points`
amounts of room left on it; then room is made, the run goes on, and must end as the unbroken one.
Use and read-only disks must end with words and exit code 2, or 0. Failures of single writers (EIO,
a limit on file sizes) likewise. Without root it says so, and does nothing.
"""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.chaos import children, toy_runs
from scripts.chaos.report import JUDGED, Report, arguments

NEVER = (*JUDGED, "lost", "different", "leftover_files")
SIZE_MIB = 48
LIMIT_BYTES = 6000


class SmallDisk:
    """A file system of a few megabytes.

    Args:
        place: where it is mounted.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Mount it for a while."""
        self.place.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "chaos"]
        subprocess.run(["mount", *options, str(self.place)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(self.place)], check=True)

    @contextmanager
    def with_room(self, left: int) -> Iterator[None]:
        """Leave so many bytes free for a while."""
        about, ballast = os.statvfs(self.place), self.place / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, about.f_bavail * about.f_frsize - left))
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be written for a while."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.place)], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(self.place)], check=True)


def bytes_of(folder: Path) -> int:
    """Return what a folder takes on a disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def training(report: Report, disk: SmallDisk, whole: Path, points: int) -> None:
    """Let a disk fill while a run trains; go on with room, and compare."""
    total = bytes_of(whole)
    for point in range(points):
        left = int(total * 0.95 * point / max(1, points - 1))
        shutil.rmtree(disk.place / "runs", ignore_errors=True)
        words = toy_runs.words("psnr", report.data, "r")
        with disk.with_room(left):
            ended = children.run(words, disk.place, report.log, patience_s=2)
        facts = {"left": left, "end": ended.kind, "fault": ended.fault()}
        report.judge({"training, bytes left": left}, ended, table="training", slow_s=120)
        again = children.run([*words, "resume=auto"], disk.place, report.log)
        if again.code != 0:
            report.add("lost", **facts, then=again.fault(), tail=again.out[-2000:])
            continue
        faults = toy_runs.faults_of(disk.place / "runs/r", whole)
        leftovers = toy_runs.leftovers(disk.place / "runs/r")
        if faults:
            report.add("different", **facts, faults=faults)
        if leftovers:
            report.add("leftover_files", **facts, files=leftovers)
    shutil.rmtree(disk.place / "runs", ignore_errors=True)


def uses(report: Report, network: Path, scored: str) -> dict[str, list[str]]:
    """Return commands that use a network and write."""
    infer = ["infer", f"checkpoint={network}", f"input={report.data}/gt", "device=cpu"]
    on_val = ["+dataset=main", f"data.val.main.gt={report.data}/val", "device=cpu"]
    return {
        "images": [*infer, "output=o"],
        "video": [*infer, "output=o.mp4", "fps=5"],
        "export": ["export", f"checkpoint={network}", "output=x.safetensors", "overwrite=true"],
        "validate": ["validate", f"checkpoint={network}", *on_val, f"output={scored}",
                     "save_images=true"],
    }  # fmt: skip


def using(report: Report, disk: SmallDisk, network: Path) -> None:
    """Let the disk be full, or nearly, while a network is used; files are whole or not there."""
    for what, words in uses(report, network, "scores").items():
        for left in (0, 4096, 12_000, 40_000):
            with disk.with_room(left):
                ended = children.run(words, disk.place, report.log)
            report.judge({"use": what, "bytes left": left}, ended, table="use")
            leftovers = toy_runs.leftovers(disk.place)
            if leftovers:
                report.add("leftover_files", use=what, left=left, files=leftovers)
            for path in disk.place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def not_writable(report: Report, disk: SmallDisk, network: Path) -> None:
    """Use and train on a disk that nothing can be written to."""
    shutil.copytree(network, disk.place / "runs/ro")
    gt = report.data / "gt"
    new = toy_runs.tiny_words(gt, "new")
    commands = {
        **uses(report, disk.place / "runs/ro", "scores"),
        "train": ["train", *new],
        "resume": ["train", *toy_runs.tiny_words(gt, "ro", "train.steps=9", "resume=auto")],
        "check": ["check", *new],
        "overfit": ["overfit", *toy_runs.tiny_words(gt, "o", "num_steps=3")],
    }
    with disk.read_only():
        for what, words in commands.items():
            ended = children.run(words, disk.place, report.log)
            report.judge({"read-only disk": what}, ended, table="read-only disk", slow_s=60)
    shutil.rmtree(disk.place / "runs")


def failing(target: str) -> Callable[[], None]:
    """Return a hook that lets one writer, or reading, fail with EIO."""

    def bad(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def hook() -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        from sr_train.monitoring import run_files
        from sr_train.monitoring.run_files import MetricsFile

        if target == "metrics.csv":
            MetricsFile.append = bad  # type: ignore[method-assign]
        elif target == "fsync":
            os.fsync = bad
        elif target == "tensorboard":
            RecordWriter.write = bad
        elif target == "manifest":
            run_files._write_launches = bad
        else:
            opened = Path.open

            def read(self: Path, *args: Any, **kwargs: Any) -> Any:
                # A header that cannot be read ends a run before it begins.
                decodes = sys._getframe(1).f_code.co_name == "read_image"
                return (bad if decodes else opened)(self, *args, **kwargs)

            Path.open = read  # type: ignore[method-assign]

    return hook


def single_writers(report: Report, network: Path) -> None:
    """Let one writer fail at a time, then all files beyond some kilobytes."""
    words = toy_runs.words("psnr", report.data, "io", "data.train.cache_gib=0", "train.steps=20")
    for target in ("metrics.csv", "fsync", "tensorboard", "manifest", "reading"):
        shutil.rmtree(report.work / "runs/io", ignore_errors=True)
        ended = children.run(words, report.work, report.log, hook=failing(target))
        report.judge({"EIO": target}, ended, table="EIO", codes=(2,), slow_s=60)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))

    commands = {**uses(report, network, "v"), "train": toy_runs.words("psnr", report.data, "lim")}
    for what, argv in commands.items():
        ended = children.run(argv, report.work, report.log, hook=limit)
        report.judge({"file size limit": what}, ended, table="file size limit", slow_s=60)


def main() -> int:
    """Fill disks; return 1 where something was lost."""
    options = arguments(__doc__, points=24)
    report = Report("full_disk", options, NEVER)
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        report.figures["skipped"] = "a disk can be mounted by root on Linux alone"
        return report.finish()
    children.preload()
    whole, _ = toy_runs.unbroken("psnr", report)
    network = toy_runs.tiny_run(report)
    disk = SmallDisk(report.work / "disk")
    with disk.mounted():
        training(report, disk, whole, options.points)
        using(report, disk, network)
        not_writable(report, disk, network)
    single_writers(report, network)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
