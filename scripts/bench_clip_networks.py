"""Steps per second and peak memory of the video networks, as one table.

In every precision, eager and compiled, with and without gradient checkpointing: BasicVSR++ on
clips of 15 frames of 64 x 64 pixels, VRT on 6 of 64 x 64 (x4) and on 6 of 192 x 192 (deblurring).
Made for a GPU; on a CPU take --small.

    python -m scripts.bench_clip_networks
    python -m scripts.bench_clip_networks --nets basicvsrpp --precisions bf16 fp16
    python -m scripts.bench_clip_networks --small --device cpu --steps 1 --warmup 1
"""

import argparse
import gc
import itertools
import platform
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from scripts.bench_networks import Figures, measure
from scripts.bench_step import DTYPES, configured, our_step
from sr_train.api.errors import SRTrainError
from sr_train.config.schema import RunConfig
from sr_train.engine.model import SRModel
from sr_train.factory.components import choose_device
from sr_train.factory.models import input_shape, make_model
from sr_train.utils.heap import keep_heap


@dataclass(frozen=True)
class Row:
    """A network, the size of its clips, and what makes it a toy."""

    arch: str
    scale: int
    frames: int
    lq_size: int
    small: tuple[str, ...]


_TINY = tuple(
    f"arch.{key}={value}"
    for key, value in {
        "window_size": "[2,4,4]",
        "depths": [2] * 9,
        "indep_reconsts": [8],
        "embed_dims": [8] * 9,
        "num_heads": [2] * 9,
        "deformable_groups": 4,
    }.items()
)

ROWS = {
    "basicvsrpp": Row(
        "basicvsrpp", 4, 15, 64, ("arch.mid_channels=16", "arch.num_blocks=1", "data.frames=3")
    ),
    "vrt": Row("vrt", 4, 6, 64, (*_TINY, "data.frames=2")),
    "vrt_deblur": Row("vrt_deblur", 1, 6, 192, (*_TINY, "data.frames=2")),
}
_SMALL_SIDE = 16


def batch_of(cfg: RunConfig, model: SRModel) -> dict[str, Tensor]:
    """Return a batch of random pixels for a network of clips, uint8, on the host."""
    count, frames, _, side, _ = input_shape(cfg, model.spec)

    def pixels(size: int) -> Tensor:
        return torch.randint(0, 256, (count, frames, 3, size, size), dtype=torch.uint8)

    batch = {"lq": pixels(side), "gt": pixels(side * cfg.scale)}
    pins = model.device.type == "cuda"
    return {name: value.pin_memory() if pins else value for name, value in batch.items()}


def figures(words: tuple[str, ...], args: argparse.Namespace) -> Figures | str:
    """Measure one combination; return what went wrong where it cannot be run."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    torch._dynamo.reset()
    torch.manual_seed(0)
    try:
        cfg = configured(*words)
        model = make_model(cfg, choose_device(args.device))
        step = our_step(model, batch_of(cfg, model))
        return measure(step, model.device, args.warmup, args.steps)
    except torch.OutOfMemoryError:
        return "out of memory"
    except SRTrainError as err:
        return str(err).splitlines()[0]


def words_of(row: Row, args: argparse.Namespace) -> tuple[str, ...]:
    """Return the config of a row."""
    side = _SMALL_SIDE if args.small else row.lq_size
    return (
        f"arch={row.arch}",
        f"scale={row.scale}",
        "objective=[charbonnier]",
        f"data.batch_size={args.batch}",
        f"data.frames={row.frames}",
        f"data.lq_size={side}",
        *(row.small if args.small else ()),
    )


def main() -> None:
    """Print the table, each row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=1, help="clips")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--small", action="store_true", help="toy networks, to try this script")
    args = parser.parse_args()
    keep_heap()
    console = Console(width=110)
    device = choose_device(args.device)
    label = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    table = Table(title=f"batch {args.batch}, {device} {label}, torch {torch.__version__}")
    for column in ("network", "precision", "mode", "checkpointing", "step/s", "peak GiB"):
        table.add_column(column, justify="right" if "/" in column or "GiB" in column else "left")
    modes = itertools.product((False, True), (False, True))
    for name, precision, (compiled, saving) in itertools.product(
        args.nets, args.precisions, list(modes)
    ):
        words = (
            *words_of(ROWS[name], args),
            f"precision={precision}",
            f"net_g.compile={compiled}",
            f"arch.gradient_checkpointing={saving}",
        )
        found = figures(words, args)
        cells = [name, precision, "compiled" if compiled else "eager", "yes" if saving else "no"]
        numbers = (
            [found, ""]
            if isinstance(found, str)
            else [f"{found.steps_per_sec:.2f}", f"{found.peak_gib:.2f}"]
        )
        table.add_row(*cells, *numbers)
        console.print(*cells, *numbers)
    console.print(table)


if __name__ == "__main__":
    main()
