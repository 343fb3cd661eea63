"""Where the frames of a clip come from and go to: video files and folders of pictures.

One frame is in memory at a time. Folders are read in natural order, 2 before 10; grey becomes
RGB, and alpha is left out.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from sr_train.inference.clips import ClipUpscale, Frame
from sr_train.inference.wrapping import Pixels
from sr_train.ops import tensor_io
from sr_train.ops.errors import ConfigError, DataError
from sr_train.ops.folders import natural_key
from sr_train.ops.image_io import SUFFIXES as PICTURES
from sr_train.ops.image_io import read_header, read_picture, to_rgb, write_picture
from sr_train.ops.images.metadata import Metadata
from sr_train.ops.video_io import Losses, VideoInfo, probe, read_timed_frames
from sr_train.ops.video_out import VideoWriter


@dataclass(frozen=True)
class Label:
    """What is kept of a frame while it is upscaled."""

    name: str
    """Without a suffix."""
    suffix: str = ".png"
    """Of the picture it came from."""
    time: Fraction | None = None
    """Seconds, of a frame of a video."""
    metadata: Metadata | None = None
    """Of a picture."""
    number: int | None = None
    """Of a frame of a video, where damaged ones are counted too."""


Write = Callable[[Pixels, Label], None]


@dataclass(frozen=True)
class VideoWish:
    """How video files are to be written."""

    codec: str = "h264"
    quality: int | None = None
    """CRF; None: what `VideoWriter` says."""
    pixel_format: str | None = None
    audio: bool = True
    """Copy the audio of the input."""
    fps: Fraction | None = None
    """For folders of pictures, which tell none."""


class VideoSource:
    """The frames of a video file.

    Raises:
        DataError: no video, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info: VideoInfo | None = probe(path)
        self.size = (self.info.width, self.info.height)
        self.bits = 16 if self.info.bits > 8 else 8
        self.total = self.info.frames
        self.losses = Losses()
        """What could not be read of it, once it was."""

    def __iter__(self) -> Iterator[tuple[Pixels, Label]]:
        for frame in read_timed_frames(self.path, losses=self.losses):
            yield frame.pixels, Label(f"{frame.number:08d}", time=frame.time, number=frame.number)


class FolderSource:
    """The pictures that lie directly in a folder.

    Raises:
        DataError: if there is none, or the first one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info: VideoInfo | None = None
        self.losses = Losses()
        self.files = in_natural_order(path, PICTURES)
        if not self.files:
            raise DataError(f"{path}: no pictures lie directly in it")
        header = read_header(self.files[0])
        self.size = (header.width, header.height)
        self.bits = 16 if header.dtype == "uint16" else 8
        self.total = len(self.files)

    def __iter__(self) -> Iterator[tuple[Pixels, Label]]:
        for file in self.files:
            picture = read_picture(file, with_metadata=True)
            label = Label(file.stem, file.suffix, metadata=picture.metadata)
            yield to_rgb(picture.pixels), label


Source = VideoSource | FolderSource


@contextmanager
def writing_video(
    path: Path, source: Source, scale: int, wish: VideoWish, notes: list[str]
) -> Iterator[Write]:
    """Open a video file for the frames of a source; it appears at the end.

    Lines on what it does not keep of the source are added to `notes` then.

    Raises:
        ConfigError: codec, quality, pixel format or rate cannot be.
        DataError: size, audio or folder cannot be.
    """
    info = source.info
    fps = wish.fps if info is None else info.fps
    if fps is None:
        raise ConfigError(f"{source.path}: pictures tell no frame rate; add fps=25, for example")
    _make_folder(path.parent)
    with VideoWriter(
        path,
        (source.size[0] * scale, source.size[1] * scale),
        fps,
        wish.codec,
        wish.quality,
        wish.pixel_format,
        bits=source.bits,
        like=info,
        copy_from=None if info is None else source.path,
        audio=wish.audio,
    ) as writer:
        yield lambda pixels, label: writer.write(pixels, label.time)
    notes += writer.notes


@contextmanager
def writing_pictures(
    folder: Path, suffix: str, format: str, not_kept: dict[str, list[Path]] | None = None
) -> Iterator[Write]:
    """Make a folder and write each frame as a picture into it, with its metadata.

    Args:
        folder: made if it does not exist.
        suffix: put behind each name.
        format: of the files; `same` as the input's.
        not_kept: takes up which pictures lost what of their metadata, by its name.

    Raises:
        DataError: if the folder cannot be made.
    """
    _make_folder(folder)

    def write(pixels: Pixels, label: Label) -> None:
        ending = label.suffix if format == "same" else f".{format}"
        path = folder / f"{label.name}{suffix}{ending}"
        lost = write_picture(path, pixels, None, label.metadata)
        if not_kept is not None and label.metadata is not None:
            for name in (*label.metadata.left_out, *lost):
                not_kept.setdefault(name, []).append(path)

    yield write


def upscale_clip(
    upscale: ClipUpscale,
    source: Source,
    extra: Mapping[str, Path],
    opened: AbstractContextManager[Write],
    on_frame: Callable[[], None],
) -> int:
    """Read, upscale and write a clip; return how many frames it had.

    Args:
        upscale: what upscales.
        source: the clip.
        extra: a folder of tensors for each further input of the network, one file a frame.
        opened: what takes the frames.
        on_frame: called behind each.

    Raises:
        SRTrainError: for everything a user can mend.
    """
    labels: deque[Label] = deque()
    count = 0

    def frames() -> Iterator[Frame]:
        tensors = {key: _tensors(folder, source) for key, folder in extra.items()}
        read = 0
        for pixels, label in source:
            labels.append(label)
            # A tensor of a frame that is damaged is passed over with it.
            wanted = read if label.number is None else label.number
            parts = {key: _nth(found, wanted - read) for key, found in tensors.items()}
            read = wanted + 1
            yield {"lq": pixels, **parts}

    with opened as write:
        for pixels in upscale(frames(), str(source.path)):
            write(pixels, labels.popleft())
            count += 1
            on_frame()
    return count


def _nth(tensors: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Return the next tensor after passing over some."""
    for _ in range(count):
        next(tensors)
    return next(tensors)


def in_natural_order(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Return the files of a kind that lie directly in a folder, 2 before 10; no hidden ones."""
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(files, key=lambda path: natural_key(path.name))


def _tensors(folder: Path, source: Source) -> Iterator[np.ndarray]:
    """Yield (H, W, C) of every tensor (C, H, W) in a folder, one for each frame.

    Raises:
        DataError: if there are more or fewer than frames, or one is no (C, H, W).
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a tensor for each frame")
    files = in_natural_order(folder, tensor_io.SUFFIXES)
    if source.info is None and len(files) != source.total:
        raise DataError(
            f"{folder}: {len(files)} tensors, but {source.path} has {source.total} frames"
        )
    for file in files:
        tensor = tensor_io.read_tensor(file)
        if tensor.ndim != 3:
            raise DataError(f"{file}: expected a tensor (C, H, W), got {tensor.shape}")
        yield np.moveaxis(tensor, 0, -1).astype(np.float32)
    raise DataError(f"{folder}: {len(files)} tensors, but {source.path} has more frames")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise DataError(f"cannot make the folder {folder}: {err}") from None
