"""Small images and clips, cut out of the photographs that scikit-image carries."""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

_SOURCE = Path(skimage.__file__).parent / "data"
_TRAINED = (
    "rocket.jpg",
    "ihc.png",
    "retina.jpg",
    "hubble_deep_field.jpg",
    "brick.png",
    "coins.png",
)
_HELD_OUT = ("astronaut.png", "coffee.png")


def make(folder: Path) -> Path:
    """Make gt/, val/, clips/train/{a,b}/ and clips/val/c/ once; return the folder."""
    if (folder / "ready").exists():
        return folder
    for number, name in enumerate(_TRAINED):
        _cut(name, folder / f"gt/p{number}.png", 96, 96)
    for number, name in enumerate(_HELD_OUT):
        _cut(name, folder / f"val/v{number}.png", 48, 64)
    pan("motorcycle_left.png", folder / "clips/train/a", 8, (64, 72), 3)
    pan("chelsea.png", folder / "clips/train/b", 7, (64, 72), -2)
    pan("motorcycle_right.png", folder / "clips/val/c", 4, (40, 48), 2)
    (folder / "ready").touch()
    return folder


def pan(name: str, folder: Path, frames: int, size: tuple[int, int], step: int) -> None:
    """Write the frames of a camera that moves over a photograph by some pixels a frame."""
    for number in range(frames):
        left = 100 + step * number
        _cut(name, folder / f"{number:03d}.png", *size, top=100 + number, left=left)


def pixels(name: str = "astronaut.png") -> np.ndarray:
    """Return a photograph, (H, W, 3) uint8."""
    with Image.open(_SOURCE / name) as image:
        return np.asarray(image.convert("RGB"))


def _cut(name: str, path: Path, height: int, width: int, top: int = 40, left: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = pixels(name)[top : top + height, left : left + width]
    Image.fromarray(np.ascontiguousarray(part)).save(path)
