"""Turn raw streams of a spike camera (`.dat`) into the voxels that data sets read.

Run from the project's folder:

    python -m scripts.spikes_to_voxels SPIKES OUT --height 250 --width 400

SPIKES is a `.dat` file or a folder of such, searched with all its folders. A `.dat` file has one
bit for each pixel and moment, eight to a byte, the lowest bit first, row by row and moment by
moment, without a header: its size says nothing about height and width. Cameras of the Vidar kind
store rows from the bottom up, which is turned here (--top-down: leave them).

Each file becomes the voxels of one frame, OUT/NAME.npy, or, with --frames N, those of N frames that
share the stream evenly, OUT/NAME/00000000.npy and so on. A voxel grid is (S, H, W), float16: how
often each pixel fired in each of S equal parts of the time, over how often it could have.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from data.index.folders import list_folder
from sr_train.api.errors import DataError, SRTrainError

CONSOLE = Console()


def read_spikes(path: Path, height: int, width: int, top_down: bool = False) -> np.ndarray:
    """Return the spikes of a raw stream.

    Args:
        path: of the stream.
        height: rows of the sensor.
        width: columns.
        top_down: whether the upper row comes first.

    Returns:
        (T, H, W), uint8, 1 where a pixel fires.

    Raises:
        DataError: it cannot be read, or does not hold whole moments of that size.
    """
    try:
        stream = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    moment, rest = divmod(height * width, 8)
    if rest or len(stream) == 0 or len(stream) % moment:
        raise DataError(
            f"{path}: {len(stream)} bytes are no whole number of moments of {width}x{height} bits "
            f"({height * width / 8:g} bytes each); see --height and --width"
        )
    spikes = np.unpackbits(stream, bitorder="little").reshape(-1, height, width)
    return spikes if top_down else spikes[:, ::-1]


def voxels(spikes: np.ndarray, frames: int, bins: int) -> Iterator[np.ndarray]:
    """Yield the voxel grid of each frame that a stream is shared by.

    Args:
        spikes: (T, H, W), of 0 and 1.
        frames: how many share it evenly.
        bins: S.

    Returns:
        (S, H, W), float16, in [0, 1].

    Raises:
        DataError: the stream has fewer moments than parts.
    """
    if len(spikes) < frames * bins:
        raise DataError(f"{len(spikes)} moments are too few for {frames} frames of {bins} parts")
    edges = np.arange(frames * bins + 1) * len(spikes) // (frames * bins)
    for frame in range(frames):
        own = edges[frame * bins : (frame + 1) * bins + 1]
        parts = [spikes[a:b].mean(axis=0) for a, b in pairwise(own)]
        yield np.stack(parts).astype(np.float16)


def convert(path: Path, out: Path, args: argparse.Namespace) -> None:
    """Write the voxels of one stream; `out` has no suffix."""
    spikes = read_spikes(path, args.height, args.width, args.top_down)
    try:
        made = list(voxels(spikes, args.frames or 1, args.bins))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    for number, grid in enumerate(made):
        target = out.with_name(f"{out.name}.npy")
        if args.frames is not None:
            target = out / f"{number:08}.npy"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, grid)


def parse_args() -> argparse.Namespace:
    """Return the command line's settings."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m scripts.spikes_to_voxels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spikes", type=Path, help="a .dat file, or a folder of them")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--height", type=_positive, required=True, help="of the sensor in pixels")
    parser.add_argument("--width", type=_positive, required=True, help="of the sensor in pixels")
    parser.add_argument("--bins", type=_positive, default=5, metavar="S", help="(%(default)s)")
    parser.add_argument("--frames", type=_positive, metavar="N",
                        help="that share each stream; else a stream is one frame's")  # fmt: skip
    parser.add_argument("--top-down", action="store_true", help="the upper row comes first")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def main() -> None:
    """Convert what was named."""
    args = parse_args()
    if args.spikes.is_file():
        convert(args.spikes, args.out / args.spikes.stem, args)
        return
    files = list_folder(args.spikes.absolute(), frozenset({".dat"})).files
    for file in track(files, "voxels", console=CONSOLE):
        convert(Path(file.path), args.out / file.relative, args)


if __name__ == "__main__":
    try:
        main()
    except SRTrainError as error:
        raise SystemExit(f"error: {error}") from None
