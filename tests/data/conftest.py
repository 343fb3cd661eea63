"""Small picture folders made from noise and ramps."""

from pathlib import Path

import numpy as np
import pytest

from sr_train.ops.image_io import write_picture


def noise(height, width, channels=3, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype)


def fill(folder: Path, names, size=(40, 56), suffix=".png", **kinds):
    """Write one noise picture per name; returns the folder."""
    for seed, name in enumerate(names):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, noise(*size, seed=seed, **kinds))
    return folder


@pytest.fixture
def gt_dir(tmp_path):
    """Seven pictures of 56x40 in two folders, names that need natural order."""
    return fill(tmp_path / "gt", ["a1", "a2", "a10", "sub/b1", "sub/b2", "sub/b10", "z"])


@pytest.fixture
def paired_dirs(tmp_path):
    """LQ noise, and GT that repeats each LQ pixel twice: gt[::2, ::2] == lq, and only there."""
    for seed, name in enumerate(["p", "q", "r"]):
        lq = noise(30, 41, seed=seed)
        for folder, pixels in (("lq", lq), ("gt", lq.repeat(2, axis=0).repeat(2, axis=1))):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_picture(tmp_path / folder / f"{name}.png", pixels)
    return tmp_path / "gt", tmp_path / "lq"
