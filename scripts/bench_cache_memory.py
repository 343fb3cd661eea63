"""Measure what memory a training set's cache takes in all processes of a run together.

Run from the project's folder (Linux):

    python -m scripts.bench_cache_memory                # 2 ranks of 2 workers, 1 GiB
    python -m scripts.bench_cache_memory --gib 0.25 --ranks 4

The set is made of scikit-image's photographs at 720x480. Rows: `one a machine` is what training
does; `one a rank` shares with workers alone; `one a process` is what a cache in each worker would
take. Columns: sums over processes of the proportional set size (a page that n processes use counts
1/n in each), of the mapped frames and of everything; seconds until the cache is full.
"""

import argparse
import multiprocessing
import os
import re
import tempfile
import time
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
from rich.console import Console
from rich.table import Table

from data.cache.sharing import SharedBytes
from data.images import ImageDataset
from data.loading.stream import TrainLoader
from scripts.bench_data import read_photos
from sr_train.api.errors import SRTrainError
from sr_train.io.images import write_image

HEIGHT, WIDTH, SCALE = 480, 720, 4
DISTINCT = 8
GIB = 1 << 30


def make_set(folder: Path, gib: float) -> None:
    """Write images that take `gib` when decoded; many are the same file under other names."""
    count = int(gib * GIB / (HEIGHT * WIDTH * 3 * (1 + 1 / SCALE**2)))
    for number, photo in enumerate(read_photos("pkg://skimage/data", DISTINCT)):
        first = folder / f"{number:05}.png"
        write_image(first, cv2.resize(photo, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
        for other in range(number + DISTINCT, count, DISTINCT):
            os.link(first, folder / f"{other:05}.png")


def run_rank(
    folder: str, is_shared: bool, workers: int, gib: float, full: Barrier, told: SimpleQueue
) -> None:
    """Be one rank: fill the cache, take some batches, say who one is, and wait to be measured."""
    with mock.patch.object(SharedBytes, "by_name", SharedBytes.by_name if is_shared else _alone):
        images = ImageDataset(folder, SCALE, lq_size=32, cache_gib=gib)
    start = time.monotonic()
    images.preload()
    seconds = time.monotonic() - start
    full.wait()
    stream = TrainLoader(images, 8, num_workers=workers)
    for _ in range(20):
        next(stream)
    told.put(([os.getpid(), *(child.pid for child in multiprocessing.active_children())], seconds))
    full.wait()
    stream.close()


def _alone(name: str, size: int, head: bytes) -> tuple[SharedBytes, bool]:
    return SharedBytes(size), False


def measure(
    name: str, folder: str, gib: float, is_shared: bool, ranks: int, workers: int
) -> dict[str, Any]:
    """Return a row of the table for one way to share."""
    context = multiprocessing.get_context("spawn")
    full, told = context.Barrier(ranks + 1), context.SimpleQueue()
    processes = [
        context.Process(target=run_rank, args=(folder, is_shared, workers, gib, full, told))
        for _ in range(ranks)
    ]
    for process in processes:
        process.start()
    full.wait()
    ids, seconds = zip(*(told.get() for _ in processes), strict=True)
    maps = [Path(f"/proc/{pid}/smaps").read_text() for rank in ids for pid in rank]
    full.wait()
    for process in processes:
        process.join()
    frames = sum(proportional_bytes(text, "[^\n]*memfd:sr_train-frames[^%]*?\n") for text in maps)
    return {
        "cache": name,
        "processes": f"{ranks} x {1 + workers}",
        "frames, GiB": f"{frames / GIB:.2f}",
        "everything, GiB": f"{sum(proportional_bytes(text, '') for text in maps) / GIB:.2f}",
        "filled in, s": f"{max(seconds):.1f}",
    }


def proportional_bytes(smaps: str, before: str) -> int:
    """Return the sum of the sizes that follow a pattern."""
    return 1024 * sum(int(kb) for kb in re.findall(rf"{before}Pss: +(\d+) kB", smaps))


def parse_args() -> argparse.Namespace:
    """Return the command line's settings."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench_cache_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gib", type=float, default=1.0, help="of the cache (%(default)s)")
    parser.add_argument("--ranks", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of each rank (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_set(Path(folder), args.gib)
        rows = [
            measure("one a machine", folder, args.gib, True, args.ranks, args.workers),
            measure("one a rank", folder, args.gib, False, args.ranks, args.workers),
            measure("one a process", folder, args.gib, False, args.ranks * args.workers, 0),
        ]
    table = Table(*rows[0], title=f"{args.gib} GiB cache: proportional set size, all processes")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


if __name__ == "__main__":
    try:
        main()
    except SRTrainError as error:
        raise SystemExit(f"error: {error}") from None
