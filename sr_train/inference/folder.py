"""Upscale image files, one after the other."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from sr_train.api.errors import DataError
from sr_train.inference.planning import ImageJob
from sr_train.inference.upscaler import Upscaler
from sr_train.io.files import remove_leftovers
from sr_train.io.images import read_image, unwritable, write_image

OnImage = Callable[[ImageJob, Exception | None, Sequence[str]], None]
"""Called after each image with what went wrong, if anything did, and what of its metadata the
result lacks, by name."""


def upscale_images(
    upscaler: Upscaler,
    jobs: Sequence[ImageJob],
    on_image: OnImage,
    is_wanted: Callable[[], bool] = lambda: True,
) -> int:
    """Read, upscale and write images; only one is in memory at a time.

    Depth and alpha are kept (alpha by bicubic), and colour profile, EXIF and resolution as far as
    the format holds them; what is not kept is reported. An image that fails, for whatever reason,
    is reported and the others are done. Files of an earlier run are replaced. A format that cannot
    hold the depth or the alpha of an image fails for that image.

    Args:
        upscaler: what upscales.
        jobs: see `plan_inputs`.
        on_image: called after each.
        is_wanted: asked before each image; False ends the work.

    Returns:
        How many were gone through, failed ones too.
    """
    folders = _Folders()
    for number, job in enumerate(jobs):
        if not is_wanted():
            return number
        error: Exception | None = None
        lost: Sequence[str] = ()
        try:
            lost = _upscale_file(upscaler, job, folders)
        except Exception as err:
            error = err
        on_image(job, error, lost)
    return len(jobs)


def check_writable(folder: Path) -> None:
    """Make a folder, and raise a DataError unless files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        words = f"cannot write to output folder {folder.absolute()}: {_why(err, folder)}"
        raise DataError(words) from err


class _Folders:
    """Makes folders for results, and cleans them of what a killed run left."""

    def __init__(self) -> None:
        self._ready: set[Path] = set()

    def make(self, folder: Path) -> None:
        if folder in self._ready:
            return
        make_folder(folder)
        self._ready.add(folder)


def make_folder(folder: Path) -> None:
    """Make a folder for results, and remove temporary files that a killed run left there.

    Raises:
        DataError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise DataError(f"cannot make the folder {folder}: {_why(err, folder)}") from err
    remove_leftovers(folder)


def _why(err: OSError, folder: Path) -> str:
    """Return why a folder cannot be made or used."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place) and not place.is_dir():
            return f"{place} is a file" if place.exists() else f"{place} is a link to nothing"
    return err.strerror or str(err)


def _upscale_file(upscaler: Upscaler, job: ImageJob, folders: _Folders) -> list[str]:
    """Read, upscale and write one image.

    Returns:
        What of its metadata could not be kept, by name.
    """
    image = read_image(job.source, with_metadata=True)
    height, width = (side * upscaler.spec.scale for side in image.pixels.shape[:2])
    has_alpha = image.alpha is not None
    why = unwritable(job.target.suffix.lower(), height, width, image.pixels.dtype, has_alpha)
    if why is not None:
        raise DataError(f"{job.source}: {why}")
    pixels = upscaler(image.pixels, name=str(job.source))
    alpha = None if image.alpha is None else upscaler.upscale_alpha(image.alpha)
    folders.make(job.target.parent)
    lost = write_image(job.target, pixels, alpha, image.metadata)
    return [*(() if image.metadata is None else image.metadata.left_out), *lost]
