"""Steps per second and peak memory of networks in every precision, layout and mode, as one table.

Each row is also told as a share of the bare loop of scripts.bench_step (eager, NCHW, the same
losses) in the same precision. Made for a GPU; on a CPU take --small.

    python -m scripts.bench_networks
    python -m scripts.bench_networks --nets compact rrdbnet_gan --precisions bf16
    python -m scripts.bench_networks --small --device cpu
"""

import argparse
import gc
import itertools
import platform
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from scripts.bench_step import (
    DTYPES,
    GAN,
    Step,
    bare_step,
    configured,
    our_step,
    random_batch,
    timed,
)
from sr_train.api.errors import SRTrainError
from sr_train.factory.components import choose_device
from sr_train.factory.models import make_model
from sr_train.utils.heap import PeakMemory, keep_heap

SCALE = 4
NETS = {
    "compact": ("arch=compact",),
    "rrdbnet": ("arch=rrdbnet",),
    "swinir": ("arch=swinir",),
    "rrdbnet_gan": ("arch=rrdbnet", *GAN),
}
SMALL = {
    "compact": ("arch.num_feat=8", "arch.num_conv=1"),
    "rrdbnet": ("arch.num_feat=8", "arch.num_block=1", "arch.num_grow=4"),
    "swinir": ("arch.embed_dim=12", "arch.depths=[2]", "arch.num_heads=[2]"),
    "rrdbnet_gan": ("arch.num_feat=8", "arch.num_block=1", "arch.num_grow=4"),
}


@dataclass(frozen=True)
class Figures:
    """What a step takes."""

    steps_per_sec: float
    peak_gib: float


def measure(step: Step, device: torch.device, warmup: int, count: int) -> Figures:
    """Run a step some times; the peak holds compilation and warm-up, too."""
    with PeakMemory(device) as memory:
        timed(step, warmup, device)
        milliseconds = timed(step, count, device)
    peak = memory.host if memory.on_device is None else memory.on_device
    return Figures(1000 / milliseconds, (peak or 0) / 2**30)


def row(name: str, words: tuple[str, ...], args: argparse.Namespace, bare: bool) -> Figures | str:
    """Measure one combination; return what went wrong where it cannot be run."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    torch._dynamo.reset()
    torch.manual_seed(0)
    try:
        cfg = configured(*words, f"scale={SCALE}", f"data.lq_size={args.lq_size}")
        model = make_model(cfg, choose_device(args.device))
        batch = random_batch(model, args.batch, args.lq_size, SCALE)
        dtype = DTYPES[cfg.precision.name.value]
        step = bare_step(model, batch, dtype) if bare else our_step(model, batch)
        return measure(step, model.device, args.warmup, args.steps)
    except torch.OutOfMemoryError:
        return "out of memory"
    except SRTrainError as err:
        return str(err).splitlines()[0]


def main() -> None:
    """Print the table, each row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lq-size", type=int, default=64)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="toy networks, to try this script")
    args = parser.parse_args()
    keep_heap()
    console = Console(width=110)
    device = choose_device(args.device)
    label = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    table = Table(
        title=f"x{SCALE}, batch {args.batch}, LQ {args.lq_size}, {device} {label}, "
        f"torch {torch.__version__}"
    )
    for column in ("network", "precision", "mode", "layout", "step/s", "peak GiB", "of bare"):
        table.add_column(column, justify="left" if column in {"network", "mode"} else "right")
    for name, precision in itertools.product(args.nets, args.precisions):
        words = (*NETS[name], *(SMALL[name] if args.small else ()), f"precision={precision}")
        reference = row(name, words, args, bare=True)
        rows = [(("bare", "NCHW"), reference)]
        for compiled, layout in itertools.product((False, True), ("never", "always")):
            mode = (f"net_g.compile={compiled}", f"net_g.channels_last={layout}")
            found = row(name, (*words, *mode), args, bare=False)
            shown = "NCHW" if layout == "never" else "NHWC"
            rows.append((("compiled" if compiled else "eager", shown), found))
        for (mode_name, layout_name), found in rows:
            cells = [name, precision, mode_name, layout_name]
            if isinstance(found, str):
                table.add_row(*cells, found, "", "")
                continue
            ratio = ""
            if isinstance(reference, Figures):
                ratio = f"{found.steps_per_sec / reference.steps_per_sec:.2f}"
            table.add_row(*cells, f"{found.steps_per_sec:.2f}", f"{found.peak_gib:.2f}", ratio)
            console.print(*cells, f"{found.steps_per_sec:.2f} step/s", f"{found.peak_gib:.2f} GiB")
    console.print(table)


if __name__ == "__main__":
    main()
