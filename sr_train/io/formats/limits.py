"""How large an image may be; set for this process and all that it starts."""

import math
import os

from sr_train.io.formats.layout import UnusableError

MAX_MEGAPIXELS = 200.0
"""Megapixels of an image if nothing else is said: of 16-bit RGBA, decoding takes 3 GiB."""

_VARIABLE = "SR_TRAIN_MAX_MEGAPIXELS"


def set_max_megapixels(megapixels: float) -> None:
    """Set the size beyond which images are refused, before anything of them is decoded.

    It holds for this process and, by its environment, for those that it starts: workers, forked
    or not, and ranks.
    """
    os.environ[_VARIABLE] = repr(float(megapixels))


def max_megapixels() -> float:
    """Return the size beyond which images and frames are refused."""
    return float(os.environ.get(_VARIABLE, MAX_MEGAPIXELS))


def check_size(height: int, width: int) -> None:
    """Raise where an image is too large.

    Raises:
        UnusableError: it is; says how to raise the limit.
    """
    most = max_megapixels()
    found = height * width / 1e6
    if found > most:
        raise UnusableError(
            f"too large: its header says {width}x{height}, {found:.4g} megapixels, and "
            f"io.max_megapixels is {most:g}; if it really is that large, set "
            f"io.max_megapixels={math.ceil(found)}"
        )
