"""Compare tiled with whole-image inference: time, peak memory and largest difference.

Every case runs in a process of its own, so that its peak memory is its own. Weights are random
but keep the variance, so that influence reaches the edge of the receptive field.

Examples:
    python -m scripts.bench_tiling --size 480 520 --tiles whole 64 128 256
    python -m scripts.bench_tiling --size 3000 4000 --pixels --tiles auto 256
    python -m scripts.bench_tiling --target archs.rrdb.RRDBNet --argument num_block=2 --scale 2
"""

import argparse
import ast
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from sr_train.api.network import NetSpec
from sr_train.inference.tiling import tiled_forward
from sr_train.inference.upscaler import Upscaler
from sr_train.io.images import read_image, to_rgb
from sr_train.utils.heap import keep_heap


def make_net(options: argparse.Namespace) -> nn.Module:
    """Return the network named by `--target` with random weights that keep the variance."""
    module, name = options.target.rsplit(".", 1)
    arguments = {}
    for pair in options.argument:
        key, _, value = pair.partition("=")
        arguments[key] = ast.literal_eval(value)
    torch.manual_seed(0)
    net: nn.Module = getattr(importlib.import_module(module), name)(
        scale=options.scale, **arguments
    )
    for parameter in net.parameters():
        if parameter.ndim == 4:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    return net.eval().to(options.device)


def make_image(options: argparse.Namespace) -> np.ndarray:
    """Return the named image, or noise of the size asked for, uint8 (H, W, 3)."""
    if options.image is not None:
        return to_rgb(read_image(options.image).pixels)
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*options.size, 3), dtype=np.uint8)


def peak_mib() -> float:
    """Return the largest resident memory of this process so far (Linux).

    Not `getrusage`, whose figure a child takes over from its parent.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no VmHWM")


def tile_of(case: str) -> int | Literal["auto"] | None:
    """Return what the case means to an `Upscaler`."""
    if case == "whole":
        return None
    return "auto" if case == "auto" else int(case)


def make_runner(options: argparse.Namespace) -> Callable[[], np.ndarray]:
    """Return a function that makes the prediction of the case, after a small warm-up."""
    net, image, tile = make_net(options), make_image(options), tile_of(options.case)
    spec = net.spec
    if not isinstance(spec, NetSpec):
        raise SystemExit(f"{options.target} says nothing about itself: it has no spec")
    with torch.no_grad():
        net(torch.zeros(1, spec.in_channels, 64, 64, device=options.device))
    if options.pixels or tile == "auto":
        upscaler = Upscaler(
            net,
            spec,
            options.device,
            tile=tile,
            overlap=options.overlap,
            tile_batch=options.tile_batch,
        )
        return lambda: upscaler(image)
    planes = np.ascontiguousarray(image[..., : spec.in_channels].transpose(2, 0, 1)[None])
    lq = torch.from_numpy(planes).float() / 255
    return lambda: tiled_forward(
        net, lq, spec, tile, options.overlap, options.tile_batch, options.device
    ).numpy()


def run_case(options: argparse.Namespace) -> None:
    """Run one case, save its result, print its figures as JSON."""
    keep_heap()
    run = make_runner(options)
    before, times = peak_mib(), []
    for _ in range(options.repeats):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    after = peak_mib()
    np.save(options.save, result)
    print(json.dumps({"seconds": statistics.median(times), "before": before, "peak": after}))


def largest_difference(path: Path, reference: Path) -> float:
    """Return max |a - b| of two saved arrays, read row by row."""
    a, b = np.load(path, mmap_mode="r"), np.load(reference, mmap_mode="r")
    return max(float(np.abs(x.astype(np.float64) - y).max()) for x, y in zip(a, b, strict=True))


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="archs.compact.SRVGGNetCompact")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument(
        "--argument", action="append", default=[], metavar="KEY=VALUE", help="of the network"
    )
    parser.add_argument("--image", type=Path, help="LQ image; default: noise of --size")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 520), metavar=("H", "W"))
    parser.add_argument(
        "--tiles", nargs="+", default=["whole", "128", "256"], help="whole, auto (--pixels), N"
    )
    parser.add_argument("--overlap", type=int, help="default: the receptive field")
    parser.add_argument("--tile-batch", type=int, default=1)
    parser.add_argument(
        "--pixels", action="store_true", help="8 bit in and out, as infer does; else floats"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--save", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "auto" in options.tiles and not options.pixels:
        parser.error("auto needs --pixels")
    return options


def main() -> None:
    """Print one line per case; differences are to the first one."""
    options = parse()
    if options.case is not None:
        run_case(options)
        return
    unit = "levels" if options.pixels else "of values 0..1"
    print(f"{'tile':>8} {'s':>8} {'peak MiB':>9} {'before':>7}   largest difference, {unit}")
    with tempfile.TemporaryDirectory() as folder:
        saved = [Path(folder) / f"{number}.npy" for number in range(len(options.tiles))]
        for case, path in zip(options.tiles, saved, strict=True):
            command = [sys.executable, "-m", "scripts.bench_tiling", *sys.argv[1:]]
            child = subprocess.run(
                [*command, "--case", case, "--save", str(path)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found = json.loads(child.stdout.splitlines()[-1])
            difference = largest_difference(path, saved[0])
            print(
                f"{case:>8} {found['seconds']:8.2f} {found['peak']:9.0f} {found['before']:7.0f}   "
                f"{difference:.2e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
