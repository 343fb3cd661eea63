"""Measure how fast training samples come, beside the least that NumPy needs for them.

Run from the project's folder:

    python -m scripts.bench_data                        # sets made from scikit-image's photographs
    python -m scripts.bench_data --photos ~/photos      # made from one's own
    python -m scripts.bench_data --gt GT --lq LQ --scale 2

Rows: `cached` is ImageDataset + TrainLoader with all images in RAM; `decoded` the same without
cache; `bound` crops, flips, turns, copies and collates arrays that lie in RAM, in plain NumPy,
with torch's DataLoader where there are workers. Columns: uint8 batches, and float32 in [0, 1]
(ours turned into floats by the reader, the bound's by each sample). torch runs in one thread.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.images import ImageDataset
from data.index.folders import list_folder, resolve_root
from data.loading.stream import TrainLoader
from sr_train.api.errors import SRTrainError
from sr_train.io.images import read_image, to_rgb, write_image
from sr_train.ops.resize import imresize

Batch = dict[str, Tensor]

CONSOLE = Console()

# (suffix, height, width) of the sets that are made.
MADE_SETS = {"480x320 jpeg": (".jpg", 320, 480), "1 MP png": (".png", 1024, 1024)}


class PlainCrops(Dataset):
    """Crop, flip, turn and copy of arrays in RAM, and nothing else."""

    def __init__(self, pairs: list[tuple[np.ndarray, np.ndarray]], side: int, floats: bool) -> None:
        self.pairs = pairs
        self.side = side
        self.floats = floats
        self.scale = pairs[0][1].shape[0] // pairs[0][0].shape[0]
        self.random = np.random.default_rng(0)

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> Batch:
        lq, gt = self.pairs[index % len(self.pairs)]
        side, scale = self.side, self.scale
        top = int(self.random.integers(lq.shape[0] - side + 1))
        left = int(self.random.integers(lq.shape[1] - side + 1))
        lq = lq[top : top + side, left : left + side]
        top, left, side = top * scale, left * scale, side * scale
        gt = gt[top : top + side, left : left + side]
        bits = int(self.random.integers(8))
        return {"lq": self._finish(lq, bits), "gt": self._finish(gt, bits)}

    def _finish(self, crop: np.ndarray, bits: int) -> Tensor:
        if bits & 4:
            crop = crop.swapaxes(0, 1)
        crop = crop[:: -1 if bits & 2 else 1, :: -1 if bits & 1 else 1].transpose(2, 0, 1)
        if self.floats:
            return torch.from_numpy(np.multiply(crop, 1 / 255, dtype=np.float32, order="C"))
        return torch.from_numpy(np.ascontiguousarray(crop))


def to_float(batch: Batch) -> Batch:
    """Return float32 tensors in [0, 1]."""
    return {key: value.float().mul_(1 / 255) for key, value in batch.items()}


def read_photos(root: str, count: int) -> list[np.ndarray]:
    """Return `count` images of a folder, 8-bit RGB, from the start again where it has fewer."""
    photos = []
    for file in list_folder(resolve_root(root)).files:
        try:
            pixels = to_rgb(read_image(file.path).pixels)
        except SRTrainError as error:
            CONSOLE.print(f"[yellow]left out: {error}[/yellow]")
            continue
        photos.append(pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8))
    return [photos[number % len(photos)] for number in range(count)]


def make_set(photos: list[np.ndarray], folder: Path, kind: str, scale: int) -> tuple[str, str]:
    """Write pairs made from photographs and return the folders of GT and LQ."""
    suffix, height, width = MADE_SETS[kind]
    height, width = height // scale * scale, width // scale * scale
    folders = folder / kind.replace(" ", "_") / "gt", folder / kind.replace(" ", "_") / "lq"
    for path in folders:
        path.mkdir(parents=True)
    for number, photo in enumerate(photos):
        gt = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
        for path, pixels in zip(folders, (gt, imresize(gt, 1 / scale)), strict=True):
            write_image(path / f"{number:04}{suffix}", pixels)
    return str(folders[0]), str(folders[1])


def rate(batches: Iterator[Batch], batch_size: int, seconds: float, repeats: int) -> float:
    """Return samples per second, the median of some repetitions after one batch of warm-up."""
    next(batches)
    rates = []
    for _ in range(repeats):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(batches)
            count += batch_size
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates)


def measure_stream(
    images: ImageDataset, num_workers: int, floats: bool, args: argparse.Namespace
) -> float:
    """Return samples per second of our stream."""
    stream = TrainLoader(images, args.batch_size, num_workers=num_workers)
    batches: Iterator[Batch] = map(to_float, stream) if floats else stream
    try:
        return rate(batches, args.batch_size, args.seconds, args.repeats)
    finally:
        stream.close()


def measure_bound(
    images: ImageDataset, num_workers: int, floats: bool, args: argparse.Namespace
) -> float:
    """Return samples per second of plain NumPy on the same images."""
    whole = [images.whole(number) for number in range(len(images))]
    pairs = [(np.array(image.lq), np.array(image.gt)) for image in whole]
    assert images.lq_size is not None
    loader = DataLoader(PlainCrops(pairs, images.lq_size, floats), args.batch_size,
                        num_workers=num_workers)  # fmt: skip
    return rate(iter(loader), args.batch_size, args.seconds, args.repeats)


def bench(name: str, gt: str, lq: str | None, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one set at every crop size and number of workers."""
    rows = []
    for gt_size in args.gt_sizes:
        common = {"gt": gt, "lq": lq, "scale": args.scale, "lq_size": gt_size // args.scale}
        cached = ImageDataset(**common, on_bad="skip")
        decoded = ImageDataset(**common, on_bad="skip", cache_gib=0)
        cached.preload()
        ways: list[tuple[str, Callable[..., float], ImageDataset]] = [
            ("decoded", measure_stream, decoded),
            ("cached", measure_stream, cached),
            ("bound", measure_bound, cached),
        ]
        for way, measure, images in ways:
            for num_workers in args.workers:
                row = {"set": name, "gt": gt_size, "way": way, "workers": num_workers}
                for key, floats in (("uint8", False), ("float32", True)):
                    row[key] = round(measure(images, num_workers, floats, args), 1)
                rows.append(row)
                CONSOLE.print(
                    f"[dim]{name} gt {gt_size} {way}, {num_workers} workers: "
                    f"{row['uint8']:,.0f} uint8, {row['float32']:,.0f} float32 samples/s[/dim]"
                )
    return rows


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return our best cached rate over the best bound, per set and crop size."""
    result = []
    for name, gt_size in dict.fromkeys((row["set"], row["gt"]) for row in rows):
        here = [row for row in rows if (row["set"], row["gt"]) == (name, gt_size)]
        ratio: dict[str, Any] = {"set": name, "gt": gt_size}
        for key in ("uint8", "float32"):
            best = {
                way: max(row[key] for row in here if row["way"] == way)
                for way in ("cached", "bound")
            }
            ratio[key] = round(best["cached"] / best["bound"], 2)
        result.append(ratio)
    return result


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    CONSOLE.print(table)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)


def parse_args() -> argparse.Namespace:
    """Return the command line's settings."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gt", help="folder of ground truth; default: sets made from --photos")
    parser.add_argument("--lq", help="folder of its LQ partners; default: made by bicubic")
    parser.add_argument("--photos", default="pkg://skimage/data", help="folder (%(default)s)")
    parser.add_argument("--count", type=int, default=24, help="images a set (%(default)s)")
    parser.add_argument("--scale", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--gt-sizes", type=int, nargs="+", default=[128, 256], metavar="N",
                        help="sides of the GT crop in pixels (128 256)")  # fmt: skip
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], metavar="N",
                        help="numbers of worker processes (0 2)")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="a repetition (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5,
                        help="repetitions, of which the median counts (%(default)s)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse_args()
    # Threads of torch that wait for each other measure the machine's other users.
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    if args.gt:
        rows = bench(Path(args.gt).name, args.gt, args.lq, args)
    else:
        photos = read_photos(args.photos, args.count)
        with tempfile.TemporaryDirectory() as folder:
            for kind in MADE_SETS:
                gt, lq = make_set(photos, Path(folder), kind, args.scale)
                rows += bench(kind, gt, lq, args)
    show("samples/s (medians)", rows)
    show("best cached / best bound", ratios(rows))
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "ratios": ratios(rows)}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except SRTrainError as error:
        raise SystemExit(f"error: {error}") from None
