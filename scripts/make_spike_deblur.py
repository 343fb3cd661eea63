"""Make a set for deblurring with a spike camera from folders of sharp frames.

Run from the project's folder:

    python -m scripts.make_spike_deblur FRAMES OUT --val walk
    python -m sr_train train dataset=[spike_deblur] data.root=... (OUT is data.root/spike_deblur)

FRAMES holds sequences, FRAMES/SEQUENCE/frame.png, or the frames of one. OUT gets
split/SEQUENCE/{blur,sharp,spike_vox}/frame, the same bytes at every run.

Model: between two frames light changes linearly, before the first and after the last it stays.
`blur` is the mean of the light over an exposure around the frame's moment. A spike camera's pixel
integrates light and fires each time that a threshold is reached (integrate and fire; Zhu et al., A
retina-inspired sampling method for visual texture reconstruction, ICME 2019), here on luma, from a
random charge on, without noise. `spike_vox` counts a pixel's spikes in each of S equal parts of
the exposure, over what white would fire, so that values are about 0 to 1: (S, H, W), float16.
"""

import argparse
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from data.clips import ClipDataset
from sr_train.api.dataset import WholeClip
from sr_train.api.errors import DataError, SRTrainError, did_you_mean
from sr_train.io.images import write_image

_LUMA = np.array([0.2126, 0.7152, 0.0722])

CONSOLE = Console()


class Light:
    """The light that falls on each pixel in the course of a clip, in linear units, white is 1.

    Time is counted in frames; what lies behind a moment asked for must not be asked for again.
    """

    def __init__(self, clip: WholeClip, gamma: float) -> None:
        self._clip = clip
        self._gamma = gamma
        self._frames: dict[int, np.ndarray] = {}
        self._sums: dict[int, np.ndarray] = {}

    def until(self, time: float) -> np.ndarray:
        """Return the integral from frame 0 to a moment, (H, W, 3); negative before frame 0."""
        last = len(self._clip) - 1
        if time <= 0:
            return time * self._frame(0)
        if time >= last:
            return self._sum(last) + (time - last) * self._frame(last)
        number = int(time)
        part = time - number
        before, after = self._frame(number), self._frame(number + 1)
        return self._sum(number) + part * before + part**2 / 2 * (after - before)

    def forget(self, time: float) -> None:
        """Drop what no moment from this one on needs."""
        for table in (self._frames, self._sums):
            for number in [number for number in table if 0 < number < math.floor(time) - 1]:
                del table[number]

    def _frame(self, number: int) -> np.ndarray:
        if number not in self._frames:
            pixels = self._clip.gt(number)
            unit = pixels / np.iinfo(pixels.dtype).max
            self._frames[number] = unit**self._gamma
        return self._frames[number]

    def _sum(self, number: int) -> np.ndarray:
        if number == 0:
            return np.zeros_like(self._frame(0))
        if number not in self._sums:
            area = (self._frame(number - 1) + self._frame(number)) / 2
            self._sums[number] = self._sum(number - 1) + area
        return self._sums[number]


def exposures(
    clip: WholeClip, exposure: float, bins: int, spikes: float, gamma: float, charge: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the blurred image and the spike voxels of each frame.

    Args:
        clip: sharp frames.
        exposure: its length in frames.
        bins: S.
        spikes: that white fires from one frame to the next.
        gamma: stored values are light to the power of 1 / gamma.
        charge: (H, W) in [0, 1), of a threshold, at frame 0.

    Returns:
        (H, W, 3) of the clip's dtype and (S, H, W) float16.
    """
    light = Light(clip, gamma)
    per_bin = spikes * exposure / bins
    for number in range(len(clip)):
        start = number - exposure / 2
        light.forget(start)
        edges = [light.until(start + exposure * place / bins) for place in range(bins + 1)]
        fired = [np.floor(charge + spikes * (edge @ _LUMA)) for edge in edges]
        blur = np.clip((edges[-1] - edges[0]) / exposure, 0, 1) ** (1 / gamma)
        dtype = clip.gt(number).dtype
        pixels = np.floor(blur * np.iinfo(dtype).max + 0.5).astype(dtype)
        yield pixels, (np.diff(np.stack(fired), axis=0) / per_bin).astype(np.float16)


def make_sequence(clip: WholeClip, folder: Path, args: argparse.Namespace) -> None:
    """Write one sequence."""
    if folder.exists():
        raise DataError(f"{folder}: is there already")
    for name in ("blur", "sharp", "spike_vox"):
        (folder / name).mkdir(parents=True)
    height, width = clip.gt(0).shape[:2]
    random = np.random.default_rng([args.seed, zlib.crc32(clip.name.encode())])
    charge = random.random((height, width))
    made = exposures(clip, args.exposure, args.bins, args.spikes, args.gamma, charge)
    for number, (blur, voxel) in enumerate(track(made, clip.name, len(clip), console=CONSOLE)):
        name = clip.frame_name(number)
        write_image(folder / "blur" / f"{name}.png", blur)
        write_image(folder / "sharp" / f"{name}.png", clip.gt(number))
        if args.suffix == ".npy":
            np.save(folder / "spike_vox" / f"{name}.npy", voxel)
        else:
            torch.save(torch.from_numpy(voxel), folder / "spike_vox" / f"{name}.pt")


def parse_args() -> argparse.Namespace:
    """Return the command line's settings."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m scripts.make_spike_deblur",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("frames", help="folder of sequences of sharp frames, or of videos")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--include", nargs="+", metavar="PATTERN", help="of sequences to use")
    parser.add_argument("--val", nargs="+", default=[], metavar="NAME",
                        help="sequences that go to val instead of train")  # fmt: skip
    parser.add_argument("--exposure", type=float, default=3.0, help="frames (%(default)s)")
    parser.add_argument("--bins", type=int, default=5, metavar="S", help="(%(default)s)")
    parser.add_argument("--spikes", type=float, default=20.0,
                        help="that white fires in one frame (%(default)s)")  # fmt: skip
    parser.add_argument("--gamma", type=float, default=2.2, help="(%(default)s)")
    parser.add_argument("--suffix", choices=[".npy", ".pt"], default=".npy", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the charges (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Make the set."""
    args = parse_args()
    clips = ClipDataset(1, gt=args.frames, include=args.include, cache_gib=0)
    for name in args.val:
        if name not in clips.names():
            raise DataError(f"--val: no sequence {name!r}{did_you_mean(name, clips.names())}")
    for number, name in enumerate(clips.names()):
        split = "val" if name in args.val else "train"
        make_sequence(clips.whole(number), args.out / split / name, args)


if __name__ == "__main__":
    try:
        main()
    except SRTrainError as error:
        raise SystemExit(f"error: {error}") from None
