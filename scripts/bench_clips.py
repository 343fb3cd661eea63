"""Measure how fast training clips come, beside the least that NumPy needs for them.

Run from the project's folder:

    python -m scripts.bench_clips FRAMES        # FRAMES/SEQUENCE/frame.png, or frames right there

Rows: `cached` is ClipDataset + TrainLoader with all frames in RAM, decoded; `encoded` the same with
the files in RAM; `uncached` with neither; `bound` crops, mirrors, turns, copies and collates
arrays that lie in RAM, in plain NumPy, with torch's DataLoader where there are workers; `bound
middle` does so with the middle GT frame alone. The LQ is given in files, made by bicubic before.
torch runs in one thread.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.clips import ClipDataset
from data.loading.stream import TrainLoader
from scripts.bench_data import rate, show
from sr_train.api.errors import SRTrainError
from sr_train.io.images import write_image

Batch = dict[str, Tensor]

CONSOLE = Console()


class PlainClips(Dataset):
    """Crop, mirror, turn and copy of arrays in RAM, and nothing else."""

    def __init__(
        self, sequences: list[tuple[np.ndarray, np.ndarray]], frames: int, side: int, middle: bool
    ) -> None:
        self.sequences = sequences
        self.frames = frames
        self.side = side
        self.middle = middle
        self.scale = sequences[0][1].shape[1] // sequences[0][0].shape[1]
        self.random = np.random.default_rng(0)

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> Batch:
        lq, gt = self.sequences[index % len(self.sequences)]
        side, scale = self.side, self.scale
        first = int(self.random.integers(len(lq) - self.frames + 1))
        lq, gt = lq[first : first + self.frames], gt[first : first + self.frames]
        if self.middle:
            gt = gt[self.frames // 2 :][:1]
        top = int(self.random.integers(lq.shape[1] - side + 1))
        left = int(self.random.integers(lq.shape[2] - side + 1))
        lq = lq[:, top : top + side, left : left + side]
        top, left, side = top * scale, left * scale, side * scale
        gt = gt[:, top : top + side, left : left + side]
        bits = int(self.random.integers(8))
        return {"lq": self._finish(lq, bits), "gt": self._finish(gt, bits)}

    def _finish(self, crop: np.ndarray, bits: int) -> Tensor:
        if bits & 4:
            crop = crop.swapaxes(1, 2)
        crop = crop[:, :: -1 if bits & 2 else 1, :: -1 if bits & 1 else 1]
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(0, 3, 1, 2)))


def measure_stream(clips: ClipDataset, num_workers: int, args: argparse.Namespace) -> float:
    """Return clips per second of our stream."""
    stream = TrainLoader(clips, args.batch_size, num_workers=num_workers, fill_cache=False)
    try:
        return rate(stream, args.batch_size, args.seconds, args.repeats)
    finally:
        stream.close()


def measure_bound(
    clips: ClipDataset, num_workers: int, middle: bool, args: argparse.Namespace
) -> float:
    """Return clips per second of plain NumPy on the same frames."""
    sequences = []
    for number in range(len(clips.names())):
        whole = clips.whole(number)
        pairs = [(whole.lq(t), whole.gt(t)) for t in range(len(whole))]
        lq, gt = (np.stack(each) for each in zip(*pairs, strict=True))
        sequences.append((lq, gt))
    assert clips.num_frames is not None
    assert clips.lq_size is not None
    plain = PlainClips(sequences, clips.num_frames, clips.lq_size, middle)
    loader = DataLoader(plain, args.batch_size, num_workers=num_workers)
    batches: Iterator[Batch] = iter(loader)
    return rate(batches, args.batch_size, args.seconds, args.repeats)


def bench(gt: str, lq: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every clip length, crop and number of workers."""
    rows = []
    for frames in args.clip_frames:
        for gt_size in args.gt_sizes:
            common = {"gt": gt, "lq": lq, "frames": frames, "lq_size": gt_size // args.scale}
            cached = ClipDataset(args.scale, **common, reverse=True)
            encoded = ClipDataset(args.scale, **common, reverse=True, cache="encoded")
            uncached = ClipDataset(args.scale, **common, reverse=True, cache_gib=0)
            cached.preload()
            encoded.preload()
            for num_workers in args.workers:
                row: dict[str, Any] = {"frames": frames, "gt": gt_size, "workers": num_workers}
                row["uncached"] = measure_stream(uncached, num_workers, args)
                row["encoded"] = measure_stream(encoded, num_workers, args)
                row["cached"] = measure_stream(cached, num_workers, args)
                row["bound"] = measure_bound(cached, num_workers, False, args)
                row["bound middle"] = measure_bound(cached, num_workers, True, args)
                row["cached / bound"] = row["cached"] / row["bound"]
                row = {key: round(value, 2) for key, value in row.items()}
                rows.append(row)
                CONSOLE.print(f"[dim]{row}[/dim]")
    return rows


def write_lq(gt: str, folder: Path, scale: int) -> str:
    """Write LQ frames made by bicubic, and return their folder."""
    clips = ClipDataset(scale, gt=gt, cache_gib=0)
    for number, name in enumerate(clips.names()):
        whole = clips.whole(number)
        (folder / name).mkdir(parents=True)
        for t in range(len(whole)):
            write_image(folder / name / f"{whole.frame_name(t)}.png", whole.lq(t))
    is_one = clips.names() == [Path(gt).absolute().name]
    return str(folder / clips.names()[0] if is_one else folder)


def parse_args() -> argparse.Namespace:
    """Return the command line's settings."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench_clips",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("gt", help="folder of sequences of frames")
    parser.add_argument("--scale", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--clip-frames", type=int, nargs="+", default=[5, 15], metavar="T",
                        help="frames of a clip (5 15)")  # fmt: skip
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
    with tempfile.TemporaryDirectory() as folder:
        lq = write_lq(args.gt, Path(folder), args.scale)
        rows = bench(args.gt, lq, args)
    show("clips/s (medians)", rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    try:
        main()
    except SRTrainError as error:
        raise SystemExit(f"error: {error}") from None
