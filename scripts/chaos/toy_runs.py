"""Three small training runs that harnesses break, and how their ends are compared."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch

from scripts.chaos import children
from scripts.chaos.report import Report

STEPS = 60
_BASE = [
    "scale=2", "device=cpu", "precision=fp32", f"train.steps={STEPS}", "train.checkpoint_every=5",
    "train.val_every=10", "train.log_every=5", "data.lq_size=16", "data.batch_size=2", "seed=3",
]  # fmt: skip
_IMAGES = [
    "arch=compact", "arch.num_feat=8", "arch.num_conv=2", "data.train.gt={data}/gt",
    "data.val.main.gt={data}/val", "data.stream.num_workers=0",
]  # fmt: skip
_CASES = {
    "psnr": [*_BASE, *_IMAGES, "train.max_norm=0.5", "swa.enabled=true"],
    "gan": [
        *_BASE, *_IMAGES, "discriminator=patchgan", "discriminator.arch.num_feat=8",
        "discriminator.arch.num_layers=2", "+objective=gan", "objective_d=[gan,r1]",
        "objective_d.r1.loss.every=4",
    ],
    "clips": [
        *_BASE, "arch=compact_temporal", "arch.frames=3", "arch.net.in_channels=9",
        "arch.net.num_feat=8", "arch.net.num_conv=1", "dataset=[clips]", "data.frames=3",
        "data.train.gt={data}/clips/train", "data.val.main.gt={data}/clips/val",
        "data.stream.num_workers=2",
    ],
}  # fmt: skip
CASES = tuple(_CASES)
"""Images alone, with a discriminator, and clips by two workers over shared memory."""

TINY = [
    "scale=2", "device=cpu", "precision=fp32", "arch=compact", "arch.num_feat=4",
    "arch.num_conv=1", "data.batch_size=2", "data.lq_size=8", "data.stream.num_workers=0",
    "logger=none",
]  # fmt: skip
"""A network whose steps cost next to nothing, for commands that shall not take long."""

STATE = (
    "net_g", "ema", "swa", "generator", "adversary", "random", "callbacks", "step", "best",
    "precision",
)  # fmt: skip
_LEFTOVER = re.compile(r"\.sr_[0-9a-f]{8}\.tmp|.*\.(part|tmp)")
"""What `sr_train.io.files.remove_leftovers` removes, and older names of the same."""


def words(case: str, data: Path, name: str, *more: str) -> list[str]:
    """Return the words that train a case."""
    return ["train", *(w.format(data=data) for w in _CASES[case]), f"name={name}", *more]


def tiny_words(gt: Path | str, name: str, *more: str) -> list[str]:
    """Return settings, without a command, that train the tiny network for a step, unvalidated."""
    return [*TINY, f"data.train.gt={gt}", "~data.val.main", "train.steps=1", f"name={name}", *more]


def unbroken(case: str, report: Report) -> tuple[Path, float]:
    """Make the run that nothing breaks; return its folder and how long it took."""
    folder = report.work / "runs" / f"whole_{case}"
    ended = children.run(
        words(case, report.data, folder.name), report.work, report.log, limit_s=300
    )
    if ended.code != 0:
        raise RuntimeError(f"the unbroken run fails:\n{ended.out[-3000:]}")
    return folder, ended.seconds


def tiny_run(report: Report, name: str = "w") -> Path:
    """Train the tiny network; return its folder."""
    ended = children.run(["train", *tiny_words(report.data / "gt", name)], report.work, report.log)
    if ended.code != 0:
        raise RuntimeError(f"the tiny run fails:\n{ended.out[-3000:]}")
    return report.work / "runs" / name


def dying_after_save(step: int) -> Callable[[], None]:
    """Return a hook that kills the run right behind the save of a step."""

    def hook() -> None:
        from scripts.chaos.moments import die
        from sr_train.engine import trainer

        save = trainer.save_state

        def saved(folder: Path, at: int, *args: Any, **kwargs: Any) -> Path:
            path = save(folder, at, *args, **kwargs)
            if at == step:
                die()
            return path

        trainer.save_state = saved

    return hook


def differing(a: Any, b: Any, path: str = "") -> list[str]:
    """Return the paths at which two nested states are not equal bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        left, right = ({str(k): v for k, v in x.items()} for x in (a, b))
        keys = sorted({*left, *right})
        return [d for k in keys for d in differing(left.get(k), right.get(k), f"{path}/{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, pair in pairs for d in differing(*pair, f"{path}/{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return [] if same else [path]
    return [] if a == b else [path]


def faults_of(folder: Path, reference: Path) -> list[str]:
    """Return every difference between the end of a broken run and that of the unbroken one."""
    try:
        mine, theirs = (_state(each) for each in (folder, reference))
    except Exception as err:
        return [f"lost: {type(err).__name__}: {err}"]
    faults = [
        f"state {d}" for key in STATE for d in differing(mine.get(key), theirs.get(key), key)[:3]
    ]
    for name in sorted(path.name for path in reference.glob("checkpoints/*.safetensors")):
        path = folder / "checkpoints" / name
        if not path.exists():
            faults.append(f"weights {name} missing")
            continue
        parts = differing(
            tensors_and_metadata(path), tensors_and_metadata(reference / "checkpoints" / name)
        )
        faults += [f"weights {name} {d}" for d in parts[:3]]
    return faults + _faults_of_rows(_rows(folder), _rows(reference))


def _faults_of_rows(mine: list[tuple[str, ...]], theirs: list[tuple[str, ...]]) -> list[str]:
    one, two = ({(step, name): value for step, name, value in rows} for rows in (mine, theirs))
    timeless = [k for k in one.keys() & two.keys() if not k[1].startswith(("time/", "memory/"))]
    kinds = {
        "rows twice": [row for row in one if sum(row == each[:2] for each in mine) > 1]
        if len(one) < len(mine)
        else [],
        "rows missing": sorted(two.keys() - one.keys()),
        "rows too many": sorted(one.keys() - two.keys()),
        "values differ": sorted(k for k in timeless if one[k] != two[k]),
    }
    return [f"metrics.csv: {len(v)} {kind}, e.g. {v[0]}" for kind, v in kinds.items() if v]


def tensors_and_metadata(path: Path) -> list[Any]:
    """Return what is in a file of weights; the order of its metadata varies."""
    with safetensors.safe_open(path, framework="pt") as file:
        return [{key: file.get_tensor(key) for key in file.keys()}, file.metadata()]  # noqa: SIM118


def leftovers(folder: Path) -> list[str]:
    """Return temporary files in a run's folder."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if _LEFTOVER.fullmatch(path.name)
    )


def _state(folder: Path) -> dict[str, Any]:
    path = folder / f"checkpoints/step_{STEPS:08d}.pt"
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _rows(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]
