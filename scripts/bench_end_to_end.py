"""Compare training from disk with compute alone: what does waiting for data cost?

    python -m scripts.bench_end_to_end --gt GT --lq LQ --scale 4
    python -m scripts.bench_end_to_end                 # 1-megapixel PNG pairs made for it

Blocks of real training steps (stream, step, log at the end of a block) alternate with blocks of the
same step on one batch that stays in memory. The first passes over the images, while the cache
fills, are not counted.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module

from scripts.bench_data import MADE_SETS, make_set, read_photos
from sr_train.config.build import build
from sr_train.config.compose import typed
from sr_train.config.schema import RunConfig, store_schemas
from sr_train.factory.components import choose_device, make_sets
from sr_train.factory.models import make_model
from sr_train.utils.heap import keep_heap


def configure(args: argparse.Namespace, gt: str, lq: str) -> RunConfig:
    """Compose a training config for the bench."""
    store_schemas()
    with initialize_config_module("configs", version_base="1.3"):
        fixed = ["name=bench", "train.steps=1000000", f"data.train.gt={gt}", f"data.train.lq={lq}"]
        chosen = [f"arch={args.arch}", f"scale={args.scale}", f"precision={args.precision}"]
        sizes = [f"data.batch_size={args.batch}", f"data.lq_size={args.lq_size}"]
        overrides = [*fixed, *chosen, *sizes, "~data.val.main", *args.overrides]
        return typed(compose("train", overrides=overrides), RunConfig)


def milliseconds(model: Any, batches: Any, count: int, device: torch.device) -> float:
    """Run `count` steps and one log; return milliseconds per step."""
    start = time.perf_counter()
    for _ in range(count):
        batch: Mapping[str, torch.Tensor] = next(batches)
        model.optimize_parameters(batch, last_micro_batch=True)
    model.meter.read()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / count


def run(args: argparse.Namespace, gt: str, lq: str) -> None:
    """Print medians and their ratio."""
    cfg = configure(args, gt, lq)
    device = choose_device(cfg.device)
    dataset = make_sets({"data.train": cfg.data.train}, [])["data.train"]
    model = make_model(cfg, device)
    stream = build(
        cfg.data.stream, "data.stream", dataset=dataset, batch_size=cfg.data.batch_size, seed=0
    )
    fixed = repeat(next(stream))
    milliseconds(model, stream, args.warmup, device)
    milliseconds(model, fixed, 3, device)
    stream.wait_seconds = 0.0
    pairs = [
        (
            milliseconds(model, stream, args.steps, device),
            milliseconds(model, fixed, args.steps, device),
        )
        for _ in range(args.blocks)
    ]
    stream.close()
    disk, alone = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{args.arch} x{args.scale} {args.precision} batch {args.batch} LQ {args.lq_size}: "
        f"from disk {disk:.1f} ms a step, compute alone {alone:.1f} ms, "
        f"ratio of medians {disk / alone:.3f}, median paired ratio {ratio:.3f}, "
        f"waited {1000 * stream.wait_seconds / (args.blocks * args.steps):.2f} ms a step, "
        f"{stream.num_workers} workers"
    )


def main() -> None:
    """Parse arguments, make images where none are given, run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gt", help="folder of ground truth")
    parser.add_argument("--lq", help="folder of its low-quality partners")
    parser.add_argument("--photos", default="pkg://skimage/data", help="to make images from")
    parser.add_argument("--count", type=int, default=24, help="images to make")
    parser.add_argument("--arch", default="compact")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lq-size", type=int, default=32)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="steps in a block")
    parser.add_argument("--warmup", type=int, default=30, help="steps before the first block")
    parser.add_argument("overrides", nargs="*", help="config overrides")
    args = parser.parse_args()
    keep_heap()
    if args.gt is not None:
        run(args, args.gt, args.lq or "null")
        return
    photos = read_photos(args.photos, args.count)
    with tempfile.TemporaryDirectory() as scratch:
        kind = next(name for name in MADE_SETS if "png" in name)
        run(args, *make_set(photos, Path(scratch), kind, args.scale))


if __name__ == "__main__":
    main()
