"""Compare SRModel.optimize_parameters with a bare PyTorch loop, side by side in one process.

The bare loop runs a copy of the same network on the same batch: forward, L1, backward, fused
Adam; no average, no log. Blocks of both alternate, so that a noisy machine hits both.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_module
from torch import nn

from sr_train.cli.assemble import choose_device
from sr_train.cli.learning import make_model
from sr_train.config.compose import typed
from sr_train.config.schema import RunConfig, store_schemas
from sr_train.engine.host import keep_heap


def bare_loop(net: nn.Module, batch: dict, device: torch.device, dtype: torch.dtype) -> Callable:
    """Return a function that makes one step without any framework."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)
    lq = batch["lq"].to(device).float() / 255
    gt = batch["gt"].to(device).float() / 255

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            pred = net(lq)
        nn.functional.l1_loss(pred.float(), gt).backward()
        optimizer.step()

    return step


def timed(step: Callable, count: int, device: torch.device) -> float:
    """Return milliseconds per step over `count` steps."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / count


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="compact")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lq-size", type=int, default=32)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--bare-precision", default=None, choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    parser.add_argument("--default-heap", action="store_true", help="leave malloc as it is")
    parser.add_argument("overrides", nargs="*", help="config overrides, such as net_g.compile=true")
    args = parser.parse_args()
    if not args.default_heap:
        keep_heap()
    store_schemas()
    with initialize_config_module("configs", version_base="1.3"):
        fixed = ["name=bench", "train.steps=1000000", "data.train.gt=.", "~data.val.main"]
        chosen = [f"arch={args.arch}", f"scale={args.scale}", f"precision={args.precision}"]
        cfg = typed(compose("train", overrides=[*fixed, *chosen, *args.overrides]), RunConfig)
    device = choose_device(cfg.device)
    torch.manual_seed(0)
    model = make_model(cfg, device)
    channels, size, scale = model.spec.in_channels, args.lq_size, args.scale
    batch = {
        "lq": torch.randint(0, 256, (args.batch, max(channels, 3), size, size), dtype=torch.uint8),
        "gt": torch.randint(
            0, 256, (args.batch, max(channels, 3), size * scale, size * scale), dtype=torch.uint8
        ),
    }
    plain = copy.deepcopy(model.generator.net).to(memory_format=torch.contiguous_format)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    bare = bare_loop(plain, batch, device, dtypes[args.bare_precision or args.precision])

    def ours() -> None:
        model.optimize_parameters(batch, last_micro_batch=True)

    for step in (bare, ours):
        timed(step, 3, device)
    pairs = []
    for _ in range(args.blocks):
        pairs.append((timed(bare, args.steps, device), timed(ours, args.steps, device)))
        model.meter.read()
    bare_ms = statistics.median(pair[0] for pair in pairs)
    ours_ms = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    print(
        f"{args.arch} x{scale} batch {args.batch} lq {size} {device} {args.precision} "
        f"{' '.join(args.overrides)}\n"
        f"bare {bare_ms:.1f} ms ({args.bare_precision or args.precision})  ours {ours_ms:.1f} ms  "
        f"ratio of medians {ours_ms / bare_ms:.3f}  median paired ratio {ratio:.3f}"
    )


if __name__ == "__main__":
    main()
