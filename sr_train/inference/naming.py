"""Where results go: what `output` is, and a name of its own for every result."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sr_train.api.errors import ConfigError, DataError, did_you_mean
from sr_train.inference.finding import Found
from sr_train.io.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from sr_train.io.video.writer import WRITABLE_SUFFIXES, encoding_problems

FORMATS = ("png", "jpg", "webp", "tif", "bmp", "same")
"""What images can be written as; `same` as the input."""

_WORDS = {"jpeg": "jpg", "tiff": "tif"}
_OTHER_IMAGES = (
    "apng arw avif cr2 dds dng exr gif hdr heic heif ico jfif jp2 jpe jxl nef pbm pcx pdf pgm pnm "
    "ppm psd qoi raw svg tga"
)
_OTHER_VIDEOS = (
    "264 265 3g2 3gp asf avi divx dv f4v flv h264 h265 hevc ivf m1v m2t m2ts m2v mj2 mjpeg mpeg "
    "mpg mts mxf nut ogg ogv rm rmvb ts vob wmv wtv y4m yuv"
)
"""Suffixes of files that people have, and that cannot be written."""

_LONGEST_NAME = 255


@dataclass(frozen=True)
class Output:
    """What `output` names."""

    path: Path
    kind: Literal["folder", "image", "video"]

    @property
    def folder(self) -> Path:
        """Return the folder in which results appear."""
        return self.path if self.kind == "folder" else self.path.parent


def parse_output(text: str) -> Output:
    """Tell whether a folder, an image or a video is named.

    A folder is what exists as one, ends in a slash, or has no suffix of an image or a video.

    Raises:
        ConfigError: a suffix that cannot be written, or a file where a folder is to be.
    """
    path = Path(text).expanduser()
    suffix = path.suffix.lower()
    says_folder = text.endswith(("/", os.sep))
    if says_folder or (path.is_dir() and suffix not in WRITABLE_SUFFIXES):
        return _folder(path)
    if suffix in WRITABLE_SUFFIXES:
        if path.is_dir():
            raise ConfigError(
                f"output={text}: a folder with this name exists; end it with / to use"
            )
        return Output(path, "video")
    if suffix in IMAGE_SUFFIXES:
        return Output(path, "image")
    word = suffix.removeprefix(".")
    if suffix in VIDEO_SUFFIXES or word in _OTHER_VIDEOS.split():
        raise ConfigError(_cannot_write(path, "video", path.with_suffix(".mp4"), WRITABLE_SUFFIXES))
    if word in _OTHER_IMAGES.split():
        raise ConfigError(_cannot_write(path, "image", path.with_suffix(".png"), IMAGE_SUFFIXES))
    return _folder(path)


def _cannot_write(path: Path, kind: str, nearest: Path, known: frozenset[str]) -> str:
    return (
        f"output={path}: cannot write {path.suffix!r}; expected output={nearest} or another {kind} "
        f"({', '.join(sorted(known))}); end the name of a folder with /"
    )


def _folder(path: Path) -> Output:
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output={path}: a file with this name exists; expected a folder")
    return Output(path, "folder")


def parse_format(text: str) -> str:
    """Return one of `FORMATS`; jpeg and tiff are other words for two of them.

    Raises:
        ConfigError: none of them.
    """
    word = text.lower().removeprefix(".")
    word = _WORDS.get(word, word)
    if word not in FORMATS:
        hint = did_you_mean(word, [*FORMATS, *_WORDS])
        raise ConfigError(f"format={text}: expected one of {', '.join(FORMATS)}{hint}")
    return word


def check_suffix(suffix: str) -> None:
    """Raise a ConfigError for a suffix that is no part of a name."""
    if Path(f"a{suffix}").name != f"a{suffix}" or "\0" in suffix:
        raise ConfigError(f"suffix={suffix}: expected a part of a file name, for example _x2")


def image_ending(found: Found, format: str) -> str:
    """Return the suffix of the image that becomes of a file."""
    return found.path.suffix if format == "same" else f".{format}"


def video_ending(found: Found, codec: str) -> str:
    """Return the suffix of the video that becomes of one: its own, if that can hold the codec."""
    own = found.path.suffix.lower()
    # .webm is a kind of Matroska, and its sound goes there as it is.
    others = (".mkv",) if own == ".webm" else (".mp4", ".mkv")
    for ending in (own, *others):
        if ending in WRITABLE_SUFFIXES and not encoding_problems(Path(f"x{ending}"), codec):
            return found.path.suffix if ending == own else ending
    return own if own in WRITABLE_SUFFIXES else others[0]


def name_results(
    found: Sequence[Found], endings: Sequence[str], folder: Path, suffix: str
) -> list[Path]:
    """Give every file a result of its own below a folder.

    Where two would share a name, as a.png and a.jpg do, their suffixes become part of it
    (a_png.png, a_jpg.png).

    Args:
        found: files.
        endings: the suffix of each one's result.
        folder: of the results.
        suffix: appended to each name.
    """

    def named(number: int, middle: str) -> Path:
        relative = found[number].relative
        return folder / relative.with_name(f"{relative.stem}{middle}{suffix}{endings[number]}")

    plain = [named(number, "") for number in range(len(found))]
    wanted = Counter(plain)
    taken = {path for path, count in wanted.items() if count == 1}
    for number, path in enumerate(plain):
        if wanted[path] > 1:
            plain[number] = _free_name(named, number, found[number].relative, taken)
            taken.add(plain[number])
    return plain


def _free_name(
    named: Callable[[int, str], Path], number: int, relative: Path, taken: set[Path]
) -> Path:
    """Return a name with the input's suffix in it and, if need be, a number."""
    kind = relative.suffix.lower().replace(".", "_")
    middles = itertools.chain([kind], (f"{kind}_{again}" for again in itertools.count(2)))
    return next(path for middle in middles if (path := named(number, middle)) not in taken)


def too_long(target: Path, longest: int) -> str | None:
    """Return why a name cannot be written, or None."""
    size = len(os.fsencode(target.name))
    if size <= longest:
        return None
    return f"its result would have a name of {size} bytes, {target.name!r}; {longest} is the most"


def longest_name(folder: Path) -> int:
    """Return the most bytes that a name may have in a folder, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return _LONGEST_NAME


def inside(folder: Path, name: str) -> Path:
    """Return the path of a name below a folder, however the name is made.

    Raises:
        DataError: a name that leads out of the folder.
    """
    path = folder / name
    steps = Path(name).parts
    if Path(name).is_absolute() or ".." in steps or not steps or "\0" in name:
        raise DataError(f"{name}: a name that leads out of {folder}; nothing is written there")
    return path
