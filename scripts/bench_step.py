"""Compare SRModel.optimize_parameters with a bare PyTorch loop, side by side in one process.

The bare loop runs copies of the same networks on the same batch: forward, losses, backward, fused
Adam; no average, no guard, no log. Blocks of both alternate, so that a noisy machine hits both.

    python -m scripts.bench_step --precision bf16
    python -m scripts.bench_step --gan --blocks 5 --steps 1
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_module
from torch import Tensor, nn

from sr_train.config.compose import typed
from sr_train.config.schema import RunConfig, store_schemas
from sr_train.engine.model import SRModel
from sr_train.factory.components import choose_device
from sr_train.factory.models import make_model
from sr_train.utils.heap import keep_heap

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GAN = ("discriminator=unet_sn", "objective_d=[gan]", "objective=[l1,gan]")
GAN_WEIGHT = 0.1

Step = Callable[[], None]
Batch = dict[str, Tensor]


def configured(*words: str) -> RunConfig:
    """Return the config of a run that reads no data."""
    store_schemas()
    fixed = ["name=bench", "train.steps=1000000", "data.train.gt=.", "~data.val.main"]
    with initialize_config_module("configs", version_base="1.3"):
        return typed(compose("train", overrides=[*fixed, *words]), RunConfig)


def random_batch(model: SRModel, count: int, lq_size: int, scale: int) -> Batch:
    """Return a batch of random pixels, uint8, on the host."""
    channels = max(model.spec.in_channels, 3)

    def pixels(side: int) -> Tensor:
        return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)

    batch = {"lq": pixels(lq_size), "gt": pixels(lq_size * scale)}
    pins = model.device.type == "cuda"
    return {name: value.pin_memory() if pins else value for name, value in batch.items()}


def bare_step(model: SRModel, batch: Batch, dtype: torch.dtype) -> Step:
    """Return a function that makes one step without any framework, on copies of the networks."""
    device = model.device

    def plain(net: nn.Module) -> nn.Module:
        return copy.deepcopy(net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    net_g = plain(model.generator.net)
    net_d = None if model.discriminator is None else plain(model.discriminator.net)
    adam_g = torch.optim.Adam(net_g.parameters(), lr=1e-4, fused=True)
    adam_d = None if net_d is None else torch.optim.Adam(net_d.parameters(), lr=1e-4, fused=True)
    lq, gt = (batch[name].to(device).float() / 255 for name in ("lq", "gt"))
    half = dtype != torch.float32
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    bce = nn.functional.binary_cross_entropy_with_logits

    def run(net: nn.Module, image: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=half):
            return net(image).float()

    def apply(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    def step() -> None:
        adam_g.zero_grad(set_to_none=True)
        pred = run(net_g, lq)
        loss = nn.functional.l1_loss(pred, gt)
        if net_d is None or adam_d is None:
            apply(adam_g, loss)
            return
        net_d.requires_grad_(False)
        logits = run(net_d, pred)
        apply(adam_g, loss + GAN_WEIGHT * bce(logits, torch.ones_like(logits)))
        net_d.requires_grad_(True)
        adam_d.zero_grad(set_to_none=True)
        real, fake = run(net_d, gt), run(net_d, pred.detach())
        apply(adam_d, (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))) / 2)

    return step


def our_step(model: SRModel, batch: Batch) -> Step:
    """Return a function that makes one step of the framework."""
    return lambda: model.optimize_parameters(batch, last_micro_batch=True)


def timed(step: Step, count: int, device: torch.device) -> float:
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
    parser.add_argument("--precision", default="fp32", choices=list(DTYPES))
    parser.add_argument("--bare-precision", default=None, choices=list(DTYPES))
    parser.add_argument("--gan", action="store_true", help="with the U-Net discriminator")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    parser.add_argument("--default-heap", action="store_true", help="leave malloc as it is")
    parser.add_argument("overrides", nargs="*", help="config overrides, such as net_g.compile=true")
    args = parser.parse_args()
    if not args.default_heap:
        keep_heap()
    chosen = [f"arch={args.arch}", f"scale={args.scale}", f"precision={args.precision}"]
    cfg = configured(*chosen, *(GAN if args.gan else ()), *args.overrides)
    torch.manual_seed(0)
    model = make_model(cfg, choose_device(cfg.device))
    batch = random_batch(model, args.batch, args.lq_size, args.scale)
    bare_precision = args.bare_precision or args.precision
    bare, ours = bare_step(model, batch, DTYPES[bare_precision]), our_step(model, batch)
    for step in (bare, ours):
        timed(step, min(3, args.steps), model.device)
    pairs = []
    for _ in range(args.blocks):
        times = [timed(step, args.steps, model.device) for step in (bare, ours)]
        pairs.append(times)
        model.meter.read()
    bare_ms = statistics.median(pair[0] for pair in pairs)
    ours_ms = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    print(
        f"{args.arch}{' + unet_sn' if args.gan else ''} x{args.scale} batch {args.batch} "
        f"lq {args.lq_size} {model.device} {args.precision} {' '.join(args.overrides)}\n"
        f"bare {bare_ms:.1f} ms ({bare_precision})  ours {ours_ms:.1f} ms  "
        f"ratio of medians {ours_ms / bare_ms:.3f}  median paired ratio {ratio:.3f}"
    )


if __name__ == "__main__":
    main()
