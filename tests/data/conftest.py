"""Small image folders made from noise and ramps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sr_train.io.images import write_image


def noise(height, width, channels=3, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype)


def fill(folder: Path, names, size=(40, 56), suffix=".png", **kinds):
    """Write one noise image per name; returns the folder."""
    for seed, name in enumerate(names):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, noise(*size, seed=seed, **kinds))
    return folder


@pytest.fixture
def gt_dir(tmp_path):
    """Seven images of 56x40 in two folders, names that need natural order."""
    return fill(tmp_path / "gt", ["a1", "a2", "a10", "sub/b1", "sub/b2", "sub/b10", "z"])


@pytest.fixture
def paired_dirs(tmp_path):
    """LQ noise, and GT that repeats each LQ pixel twice: gt[::2, ::2] == lq, and only there."""
    for seed, name in enumerate(["p", "q", "r"]):
        lq = noise(30, 41, seed=seed)
        for folder, pixels in (("lq", lq), ("gt", lq.repeat(2, axis=0).repeat(2, axis=1))):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{name}.png", pixels)
    return tmp_path / "gt", tmp_path / "lq"


def frame_pixels(t, height, width, factor=1, start=0):
    """An image that tells its moment (R) and the row and column (G, B) on the grid of the GT."""
    rows, columns = np.mgrid[:height, :width] * factor
    moment = np.full((height, width), start + 10 * t)
    return np.stack([moment, rows, columns], axis=-1).astype(np.uint8)


def write_tensor(path, array):
    """Write `.npy` or `.pt`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        torch.save(torch.from_numpy(array), path)


def write_frames(folder: Path, count, size=(40, 48), factor=1, start=0, names="{:08}"):
    """Write `count` images of `frame_pixels`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for t in range(count):
        write_image(folder / f"{names.format(t)}.png", frame_pixels(t, *size, factor, start))
    return folder


def write_nested(root: Path, sequences, split="train", suffix=".npy", size=(40, 48)):
    """Write root/split/sequence/{blur,sharp,spike_vox} for x2, {sequence: frames}."""
    half = size[0] // 2, size[1] // 2
    for start, (name, count) in enumerate(sequences.items()):
        folder = root / split / name
        write_frames(folder / "sharp", count, size, start=start)
        write_frames(folder / "blur", count, half, 2, start)
        for t in range(count):
            planes = frame_pixels(t, *half, 2, start).transpose(2, 0, 1).astype(np.float32)
            # As many channels as differ from three: moment, row, column, and two that rise.
            voxel = np.concatenate([planes, planes[:1] + 1, planes[:1] + 2])
            write_tensor(folder / "spike_vox" / f"{t:08}{suffix}", voxel)
    return root


@pytest.fixture
def frames_dir(tmp_path):
    """GT of two sequences, `a` of 9 frames and `b/c` of 7, 48x40."""
    write_frames(tmp_path / "gt" / "a", 9)
    write_frames(tmp_path / "gt" / "b" / "c", 7, start=1)
    return tmp_path / "gt"


@pytest.fixture
def nested_dir(tmp_path):
    """The spike deblurring layout at x2: `one` of 8 frames and `two` of 6."""
    return write_nested(tmp_path / "spikes", {"one": 8, "two": 6})
