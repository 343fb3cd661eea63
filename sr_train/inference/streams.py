"""Where the frames of a clip come from and go to: video files and folders of images.

One frame is in memory at a time. Frames of a folder come in the order of their numbers; grey
becomes RGB, and alpha is left out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol

from sr_train.api.errors import ConfigError, DataError
from sr_train.inference.clips import ClipUpscale
from sr_train.inference.feeding import Feeder, Label, Unread
from sr_train.inference.folder import make_folder
from sr_train.inference.planning import ClipJob, ImageJob
from sr_train.inference.wrapping import Pixels
from sr_train.io.images import (
    ImageHeader,
    read_header,
    read_image,
    to_rgb,
    write_image,
)
from sr_train.io.video.frames import Losses, VideoInfo, probe, read_timed_frames
from sr_train.io.video.writer import VideoWriter
from sr_train.utils.signals import Stop, Stopped

NotKept = dict[str, list[Path]]
"""What images say beside their pixels and results do not, by name."""


class Sink(Protocol):
    """What takes the frames of a clip."""

    def write(self, pixels: Pixels, label: Label) -> None:
        """Take the next frame."""
        ...

    def finish_early(self) -> None:
        """End with the frames that were taken, though there are more."""
        ...


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
    """For folders of images, which have none."""


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

    def runs(self) -> Iterator[Iterator[Unread]]:
        """Yield the frames, in the one run that they are."""
        yield self._frames()

    def _frames(self) -> Iterator[Unread]:
        for frame in read_timed_frames(self.path, losses=self.losses):
            label = Label(f"{frame.number:08d}", time=frame.time, number=frame.number)
            yield Unread(self.path, partial(_as_read, frame.pixels, label))


def _as_read(pixels: Pixels, label: Label) -> tuple[Pixels, Label]:
    return pixels, label


class FolderSource:
    """The frames of a folder of images, run by run.

    Args:
        path: the folder, for messages.
        runs: frames that follow each other without a gap or a change of scene; at least one.
        is_one_size: make sure first that all frames are of one size, as a video wants.

    Raises:
        DataError: none can be read, or sizes differ.
    """

    def __init__(
        self, path: Path, runs: Sequence[Sequence[ImageJob]], is_one_size: bool = False
    ) -> None:
        self.path = path
        self.info: VideoInfo | None = None
        self.losses = Losses()
        self._runs = runs
        self.total = sum(map(len, runs))
        first, header = self._first_header()
        self.size = (header.width, header.height)
        self.bits = 16 if header.dtype == "uint16" else 8
        if is_one_size:
            self._check_sizes(first)

    def _first_header(self) -> tuple[Path, ImageHeader]:
        """Return the first header that can be read."""
        failure: DataError | None = None
        for frame in (frame for run in self._runs for frame in run):
            try:
                return frame.source, read_header(frame.source)
            except DataError as err:
                failure = failure or err
        assert failure is not None
        raise failure

    def _check_sizes(self, first: Path) -> None:
        for frame in (frame for run in self._runs for frame in run):
            try:
                header = read_header(frame.source)
            except DataError:
                continue  # reported when it is to be read
            if (header.width, header.height) != self.size:
                raise DataError(
                    f"{frame.source}: is {header.width}x{header.height}, but {first.name} is "
                    f"{self.size[0]}x{self.size[1]}; a video has frames of one size"
                )

    def runs(self) -> Iterator[Iterator[Unread]]:
        """Yield the frames of each run."""
        numbers = count()
        for run in self._runs:
            yield (
                Unread(frame.source, partial(_read_image, frame, number))
                for frame, number in zip(run, numbers, strict=False)
            )


def _read_image(frame: ImageJob, number: int) -> tuple[Pixels, Label]:
    image = read_image(frame.source, with_metadata=True)
    label = Label(frame.source.stem, target=frame.target, number=number, metadata=image.metadata)
    return to_rgb(image.pixels), label


Source = VideoSource | FolderSource


def open_source(job: ClipJob) -> Source:
    """Open the source of a clip.

    Raises:
        DataError: no video or image, damaged, or frames of several sizes for one video.
    """
    if job.runs:
        return FolderSource(job.source, job.runs, is_one_size=job.makes_video)
    return VideoSource(job.source)


class _VideoSink:
    """Writes whole frames into a video file, whatever signals come meanwhile."""

    def __init__(self, writer: VideoWriter, is_timed: bool, stop: Stop) -> None:
        self._writer = writer
        self._is_timed = is_timed
        self._stop = stop

    def write(self, pixels: Pixels, label: Label) -> None:
        # Images that were left out keep their time.
        time = label.time if self._is_timed else label.number / self._writer.fps
        with self._stop.holding():
            self._writer.write(pixels, time)

    def finish_early(self) -> None:
        with self._stop.holding():
            self._writer.finish_early()


@contextmanager
def writing_video(
    path: Path, source: Source, scale: int, wish: VideoWish, stop: Stop, notes: list[str]
) -> Iterator[Sink]:
    """Open a video file for the frames of a source; it appears at the end, whole frames in it.

    Lines on what it does not keep of the source are added to `notes` then.

    Raises:
        ConfigError: codec, quality, pixel format or rate cannot be.
        DataError: size, audio or folder cannot be.
    """
    info = source.info
    fps = wish.fps if info is None else info.fps
    if fps is None:
        raise ConfigError(f"{source.path}: images hold no frame rate; add fps=25, for example")
    make_folder(path.parent)
    opened = VideoWriter(
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
    )
    with stop.shielding(opened) as writer:
        yield _VideoSink(writer, info is not None, stop)
    notes += writer.notes


class _ImageSink:
    """Writes each frame as an image, with its metadata."""

    def __init__(self, folder: Path, suffix: str, ending: str, not_kept: NotKept) -> None:
        self._folder = folder
        self._end = f"{suffix}.{ending}"
        self._not_kept = not_kept

    def write(self, pixels: Pixels, label: Label) -> None:
        path = label.target or self._folder / f"{label.name}{self._end}"
        lost = write_image(path, pixels, None, label.metadata)
        if label.metadata is not None:
            for name in (*label.metadata.left_out, *lost):
                self._not_kept.setdefault(name, []).append(path)

    def finish_early(self) -> None:
        """Do nothing more: every image is whole."""


@contextmanager
def writing_images(folder: Path, suffix: str, format: str, not_kept: NotKept) -> Iterator[Sink]:
    """Make a folder for frames as images.

    Args:
        folder: made if it does not exist.
        suffix: appended to the name of each frame of a video.
        format: of these; `same`, as videos have none: PNG.
        not_kept: takes up which images lost what of their metadata.

    Raises:
        DataError: if the folder cannot be made.
    """
    make_folder(folder)
    yield _ImageSink(folder, suffix, "png" if format == "same" else format, not_kept)


@dataclass(frozen=True)
class ClipEnd:
    """How far a clip came."""

    count: int
    """Frames written."""
    is_early: bool
    """Whether there were more."""
    failure: Exception | None = None
    """The error that ended it, if one did."""
    left_out: Sequence[str] = ()
    """A line on each frame that could not be read."""


def upscale_clip(
    upscale: ClipUpscale,
    source: Source,
    feeder: Feeder,
    opened: AbstractContextManager[Sink],
    on_frame: Callable[[], None],
) -> ClipEnd:
    """Read, upscale and write a clip.

    What ends it early, an error or a signal, leaves the frames that are done: of a video, under
    another name, see `VideoWriter`. Frames of the chunk in work are left off. Frames that cannot be
    read are left out.

    Args:
        upscale: what upscales.
        source: the clip.
        feeder: reads its frames with their further inputs.
        opened: what takes the frames.
        on_frame: called after each.

    Raises:
        Exception: where no frame was done, or one cannot be written.
        Stopped: where no frame was done.
    """
    results = _results(upscale, source, feeder)
    done = 0
    with opened as sink:
        while True:
            try:
                pixels = next(results, None)
            except (Exception, Stopped) as err:
                if done == 0:
                    raise
                sink.finish_early()
                failure = err if isinstance(err, Exception) else None
                return ClipEnd(done, True, failure, feeder.left_out)
            if pixels is None:
                if done == 0 and feeder.left_out:
                    raise DataError(feeder.left_out[0])
                return ClipEnd(done, False, None, feeder.left_out)
            sink.write(pixels, feeder.labels.popleft())
            done += 1
            on_frame()


def _results(upscale: ClipUpscale, source: Source, feeder: Feeder) -> Iterator[Pixels]:
    """Yield the upscaled frames, clip by clip."""
    for run in source.runs():
        for frames in feeder.clips(run):
            yield from upscale(frames, str(source.path))
