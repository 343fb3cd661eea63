"""Toy images, toy settings and small readers, shared by the tests of whole commands."""

import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_train.io.images import write_image
from sr_train.ops.resize import imresize

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def fails_with(self, *parts: str) -> None:
        """Assert a user's error: code 2, a message with all parts, no traceback."""
        assert self.code == 2, self
        for part in parts:
            assert part in self.err, (part, self)
        assert "Traceback" not in self.err + self.out, self

    def succeeds(self) -> "Outcome":
        """Assert that the command did what it was asked for."""
        assert self.code == 0, self
        return self


def stripes(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Return (H, W, C) uint8 of hard-edged coloured stripes, which bicubic cannot restore."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.empty((height, width, channels), np.uint8)
    for channel in range(channels):
        slope, period = draw.uniform(-2, 2), draw.uniform(5, 9)
        image[..., channel] = np.where((x + slope * y) % period < period / 2, 40, 210)
    return image


def fill(
    folder: Path, count: int = 3, size: tuple[int, int] = (64, 72), first_seed: int = 0
) -> Path:
    """Write `count` striped PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_image(folder / f"p{number}.png", stripes(*size, seed=first_seed + number))
    return folder


def fill_lq(folder: Path, gt: Path, scale: int) -> Path:
    """Write the bicubic partner of every image in `gt`."""
    from sr_train.io.images import read_image

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(gt.glob("*.png")):
        write_image(folder / path.name, imresize(read_image(path).pixels, 1 / scale))
    return folder


def toy_words(folder: Path, *more: str) -> list[str]:
    """Return the settings of a run of four steps that takes a fraction of a second.

    Training images are made in `folder/gt`, validation images in `folder/val`.
    """
    if not (folder / "gt").exists():
        fill(folder / "gt")
        fill(folder / "val", 1, (40, 48), first_seed=7)
    return [
        "name=toy",
        "scale=2",
        "device=cpu",
        "arch=compact",
        "arch.num_feat=8",
        "arch.num_conv=1",
        "precision=fp32",
        "logger=none",
        "data.train.gt=gt",
        "data.val.main.gt=val",
        "data.batch_size=2",
        "data.lq_size=16",
        "data.stream.num_workers=0",
        "train.steps=4",
        *more,
    ]


def fill_clips(folder: Path, **lengths: int) -> Path:
    """Write sequences of striped frames of 64 x 72 pixels, by name with their lengths."""
    for number, (name, length) in enumerate(lengths.items()):
        fill(folder / name, length, first_seed=20 * number)
    return folder


def clip_words(folder: Path, *more: str) -> list[str]:
    """Return the settings of a run of four steps on clips that takes a fraction of a second.

    Sequences are made in `folder/clips/train` and `folder/clips/val`.
    """
    if not (folder / "clips").exists():
        fill_clips(folder / "clips/train", a=6, b=4)
        fill_clips(folder / "clips/val", c=3, d=2)
    words = toy_words(folder)
    taken = ("arch", "data.train", "data.val")
    return [
        *(word for word in words if not word.startswith(taken)),
        "arch=compact_temporal",
        "arch.frames=3",
        "arch.net.in_channels=9",
        "arch.net.num_feat=8",
        "arch.net.num_conv=1",
        "dataset=[clips]",
        "data.train.gt=clips/train",
        "data.val.main.gt=clips/val",
        "data.frames=3",
        *more,
    ]


def no_validation(*words: str) -> list[str]:
    """Return words that train without validation sets."""
    return [*(w for w in words if not w.startswith("data.val.")), "~data.val.main"]


def metrics_rows(run: Path, name: str) -> list[tuple[int, float]]:
    """Return (step, value) of every row of a scalar in metrics.csv."""
    with (run / "metrics.csv").open(newline="") as file:
        return [
            (int(row["step"]), float(row["value"]))
            for row in csv.DictReader(file)
            if row["name"] == name
        ]


def state_of(run: Path, step: int) -> dict[str, Any]:
    """Return the training state of a step."""
    state = torch.load(run / "checkpoints" / f"step_{step:08d}.pt", weights_only=True)
    assert isinstance(state, dict)
    return state


def differing(a: Any, b: Any, path: str = "") -> list[str]:
    """Return the paths at which two nested states are not equal bit for bit, and by how much."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted({*map(str, a), *map(str, b)})
        left, right = ({str(k): v for k, v in x.items()} for x in (a, b))
        return [d for k in keys for d in differing(left.get(k), right.get(k), f"{path}/{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, pair in pairs for d in differing(*pair, f"{path}/{i}")]
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))
        return [] if same else [f"{path} {_distance(a, b)}"]
    return [] if a == b else [f"{path} {a!r:.80} {b!r:.80}"]


def _distance(a: Tensor, b: Tensor) -> str:
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{tuple(a.shape)} {a.dtype}, {tuple(b.shape)} {b.dtype}"
    apart = (a.double() - b.double()).abs().nan_to_num(torch.inf)
    most = int(apart.argmax())
    values = a.flatten()[most].item(), b.flatten()[most].item()
    return f"{int((apart > 0).sum())} of {apart.numel()}, at most {values[0]:g} and {values[1]:g}"


def broken_loss(folder: Path) -> str:
    """Write a loss with a defect, `broken.loss.Loss`; return the word that lets it be used."""
    (folder / "broken").mkdir()
    (folder / "broken/loss.py").write_text(
        "import torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def forward(self, pred):\n"
        "        return pred.sum() / (1 - 1) if pred.numel() < 0 else 1 // 0\n"
    )
    return "plugins=[broken]"


def process(words: Sequence[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start `python -m sr_train WORDS` in a folder, as the leader of a group of processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "sr_train", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
