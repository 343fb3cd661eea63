"""Upscale picture files, one after the other."""

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from sr_train.inference.upscaler import Upscaler
from sr_train.inference.wrapping import Pixels
from sr_train.ops.errors import ConfigError, DataError, SRTrainError, did_you_mean
from sr_train.ops.image_io import SUFFIXES, read_picture, write_picture

OutputFormat = Literal["png", "jpg", "webp", "tif", "bmp", "same"]

_FORMATS = ("png", "jpg", "webp", "tif", "bmp", "same")
_DEEP = frozenset({".png", ".tif", ".tiff"})
_WITH_ALPHA = frozenset({".png", ".tif", ".tiff", ".webp"})


class OnProgress(Protocol):
    """What is called after each picture."""

    def __call__(self, done: int, total: int, path: Path, error: str | None) -> None:
        """Take note that `path` is number `done` of `total`; `error` says why it failed."""
        ...


@dataclass
class InferReport:
    """What became of the inputs."""

    done: list[Path] = field(default_factory=list)
    """Files written."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """Inputs that were not upscaled, and why."""
    renamed: list[tuple[Path, Path]] = field(default_factory=list)
    """Inputs that got another name than their own, since two would have shared it."""
    left_out: list[Path] = field(default_factory=list)
    """Files found in the input folders that are no pictures by their suffix."""
    not_kept: dict[str, list[Path]] = field(default_factory=dict)
    """What inputs say beside their pixels and results do not, by name."""


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path


def infer_paths(
    upscaler: Upscaler,
    inputs: Sequence[Path],
    output: Path,
    suffix: str = "",
    format: OutputFormat = "png",
    on_progress: OnProgress | None = None,
) -> InferReport:
    """Read, upscale and write pictures; only one is in memory at a time.

    Nested folders keep their structure below `output`. Depth and alpha are kept (alpha by
    bicubic), and colour profile, EXIF and resolution as far as the format holds them; what is not
    kept is named in the report. A file that cannot be used is reported and the others are done.
    Files of an earlier run are replaced, input files never. Where two inputs would share a name, as
    a.png and a.jpg do, their suffixes become part of it (a_png.png, a_jpg.png).

    Args:
        upscaler: what upscales.
        inputs: files, taken whatever their suffix, and folders, searched for pictures; what lies
            in `output` is not an input.
        output: folder, made if it does not exist.
        suffix: put behind each name, e.g. `_x4`.
        format: of the written files. `png` loses nothing, whatever the input is. `same` keeps the
            input's suffix, so a JPEG is compressed again; a format that cannot hold the depth or
            the alpha of a picture fails for that picture.
        on_progress: called after each picture as (done, total, path, error).

    Raises:
        ConfigError: unknown format or a suffix that is no part of a name.
        DataError: before any work: nothing found, an output that cannot be written, or an output
            that would replace an input.
    """
    check_names(format, suffix)
    report = InferReport()
    found = _find(inputs, output, report)
    jobs = _plan(found, output, suffix, format, report)
    _refuse_replacing(jobs)
    _check_writable(output)
    for number, job in enumerate(jobs, start=1):
        error: str | None = None
        try:
            for name in _upscale_file(upscaler, job):
                report.not_kept.setdefault(name, []).append(job.source)
            report.done.append(job.target)
        except SRTrainError as err:
            error = str(err)
            report.failed.append((job.source, error))
        if on_progress is not None:
            on_progress(number, len(jobs), job.source, error)
    return report


def check_names(format: str, suffix: str) -> None:
    """Raise a ConfigError for an unknown format, or a suffix that is no part of a name."""
    if format not in _FORMATS:
        raise ConfigError(f"format must be one of {', '.join(_FORMATS)}, got {format!r}")
    if Path(f"a{suffix}").name != f"a{suffix}":
        raise ConfigError(f"suffix must be part of a file name, got {suffix!r}")


def _find(inputs: Sequence[Path], output: Path, report: InferReport) -> list[tuple[Path, Path]]:
    """Return (file, its path relative to the folder it was found in), sorted within each input."""
    found: dict[Path, Path] = {}
    looked = []
    for given in inputs:
        root = Path(given).expanduser()
        if root.is_file():
            found.setdefault(root, Path(root.name))
            continue
        if not root.is_dir():
            raise DataError(missing(root))
        files = [path for path in files_below(root) if not lies_in(path, output, root)]
        pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
        report.left_out += [path for path in files if path.suffix.lower() not in SUFFIXES]
        for path in pictures:
            found.setdefault(path, path.relative_to(root))
        looked.append(f"{root.absolute()} ({contents(files, len(pictures))})")
    if not found:
        places = "; ".join(looked) or "nowhere, as no input was given"
        raise DataError(
            f"no pictures to upscale; looked in {places}; pictures end in "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return list(found.items())


def files_below(root: Path) -> list[Path]:
    """Return every file below a folder but hidden ones, sorted."""
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(paths)


def lies_in(path: Path, output: Path, root: Path) -> bool:
    """Return whether `path` is a result of an earlier run, in an output folder below `root`."""
    below = output.resolve()
    return below != root.resolve() and below in path.resolve().parents


def missing(path: Path) -> str:
    """Return what to say about an input that does not exist."""
    parent = path.absolute().parent
    if not parent.is_dir():
        return f"input {path.absolute()} does not exist, nor does {parent}"
    near = did_you_mean(path.name, (entry.name for entry in parent.iterdir()))
    return f"input {path.absolute()} does not exist{near}"


def contents(files: Sequence[Path], pictures: int) -> str:
    """Return a few words about what a folder holds."""
    if not files:
        return "empty"
    kinds = Counter(path.suffix.lower() or "no suffix" for path in files)
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    return f"{pictures} pictures among {len(files)} files: {shown}"


def _plan(
    found: Sequence[tuple[Path, Path]],
    output: Path,
    suffix: str,
    format: OutputFormat,
    report: InferReport,
) -> list[_Job]:
    """Give every input a name of its own below `output`."""

    def named(relative: Path, middle: str) -> Path:
        ending = relative.suffix if format == "same" else f".{format}"
        return output / relative.with_name(f"{relative.stem}{middle}{suffix}{ending}")

    wanted = Counter(named(relative, "") for _, relative in found)
    taken = {path for path, count in wanted.items() if count == 1}
    jobs = []
    for source, relative in found:
        target = named(relative, "")
        if wanted[target] > 1:
            target = _free_name(named, relative, taken)
            taken.add(target)
            if target != named(relative, ""):
                report.renamed.append((source, target))
        jobs.append(_Job(source, target))
    return jobs


def _free_name(named: Callable[[Path, str], Path], relative: Path, taken: set[Path]) -> Path:
    """Return a name with the input's suffix in it and, if need be, a number."""
    kind = relative.suffix.lower().replace(".", "_")
    middles = itertools.chain([kind], (f"{kind}_{number}" for number in itertools.count(2)))
    return next(path for middle in middles if (path := named(relative, middle)) not in taken)


def _refuse_replacing(jobs: Sequence[_Job]) -> None:
    """Raise if a result would be written over an input."""
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise DataError(
                f"{job.target} is an input and would be replaced; give another output folder or "
                "a suffix such as _sr"
            )


def _check_writable(output: Path) -> None:
    """Make the output folder, and raise a DataError unless a file can be made in it."""
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        raise DataError(f"output must be a folder; {output} looks like the name of a picture")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as err:
        raise DataError(f"cannot write to output folder {output.absolute()}: {err}") from err


def _upscale_file(upscaler: Upscaler, job: _Job) -> list[str]:
    """Read, upscale and write one picture, or raise an SRTrainError.

    Returns:
        What of its metadata could not be kept, by name.
    """
    picture = read_picture(job.source, with_metadata=True)
    _check_format(job, picture.pixels, picture.alpha)
    pixels = upscaler(picture.pixels, name=str(job.source))
    alpha = None if picture.alpha is None else upscaler.upscale_alpha(picture.alpha)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise DataError(f"cannot make the folder {job.target.parent}: {err}") from err
    lost = write_picture(job.target, pixels, alpha, picture.metadata)
    return [*(() if picture.metadata is None else picture.metadata.left_out), *lost]


def _check_format(job: _Job, pixels: Pixels, alpha: Pixels | None) -> None:
    """Raise before the work if the format cannot hold the result."""
    kind = job.target.suffix.lower()
    if kind not in SUFFIXES:
        raise DataError(f"{job.source}: cannot write a picture as {job.target.name}")
    if pixels.dtype == np.uint16 and kind not in _DEEP:
        raise DataError(f"{job.source}: {kind} cannot hold its 16 bits; use png or tif")
    if alpha is not None and kind not in _WITH_ALPHA:
        raise DataError(f"{job.source}: {kind} cannot hold its alpha; use png, webp or tif")
