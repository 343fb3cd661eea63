"""Frames that belong together, checked by their headers: images and parts of sequences alike.

An image is a segment of one frame.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from data.index.damage import reason, skip_advice
from data.index.folders import FoundFile
from data.index.frame_files import FrameHeader, read_frame_header
from data.index.requirements import Requirements
from data.index.videos import read_video_header
from sr_train.api.errors import DataError, Problems
from sr_train.api.text import one_line
from sr_train.io.suffixes import is_video_file
from sr_train.utils.threads import in_chunks

IMAGES = ("gt", "lq")
"""Modalities that must be images; all others are further inputs."""

_HEADER_THREADS = 8
_MOST_FAULTS = 5

Fault = tuple[str, str]
"""(path, why) of a file that cannot be used."""

Headers = Mapping[str, FrameHeader | str]
"""Path -> header, or why there is none."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where one frame of one modality is."""

    file: FoundFile
    number: int | None = None
    """Within a video file; None: the file holds only this frame."""


@dataclass(frozen=True, slots=True)
class Track:
    """One modality of a segment."""

    frames: tuple[Frame, ...]
    header: FrameHeader
    """Of every frame; where images differ in depth, that of the deepest."""

    @property
    def path(self) -> str:
        """Of the first frame's file, to name the track by."""
        return self.frames[0].file.path


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames that follow each other without a gap: an image, a sequence, or a part of one."""

    name: str
    """Path below the root without suffix, control characters written out; with several roots,
    `ROOT/` before it; of a part, with `/FIRST-LAST` (names of frames) after it."""
    place: str
    """Folder or file."""
    frame_names: tuple[str, ...]
    """Within the segment; the one of an image is empty."""
    tracks: dict[str, Track]
    """`gt`, `lq` unless that is made, and the further inputs."""
    lq_height: int
    """Pixels on the LQ grid; the GT is cropped to `scale` times it."""
    lq_width: int

    def __len__(self) -> int:
        return len(self.frame_names)

    def frame_label(self, t: int) -> str:
        """Return what to call frame t among those of all segments."""
        return "/".join(part for part in (self.name, self.frame_names[t]) if part)


@dataclass
class Index:
    """What was found below the roots of a set."""

    segments: list[Segment] = field(default_factory=list)
    left_out: list[Fault] = field(default_factory=list)
    """Of images, sequences and files that cannot be used."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files that are no frames, by suffix."""

    def files(self) -> list[FoundFile]:
        """Return all files that are used, of each segment and modality in turn; a video's once."""
        tracks = [track for segment in self.segments for track in segment.tracks.values()]
        files = (frame.file for track in tracks for frame in track.frames)
        return [file for file, _ in groupby(files)]

    def problems(self) -> list[str]:
        """Return one line, `path: why`, for each file that cannot be used."""
        return [one_line(f"{path}: {why}") for path, why in self.left_out]

    def check(self, on_bad: str) -> None:
        """Raise where the set cannot be used.

        Args:
            on_bad: `error`: any file that is left out is too much; else only all of them.

        Raises:
            Problems: files that cannot be used, all of them.
        """
        problems = self.problems()
        if problems and (on_bad == "error" or not self.segments):
            raise Problems(problems, advice=skip_advice(self.segments))

    def parts(self) -> list[str]:
        """Return a text for what each segment uses of its files, for fingerprints."""
        return [segment.name for segment in self.segments]


def read_headers(frames: Sequence[Frame]) -> Headers:
    """Read the header of each file once, side by side."""
    paths = list(dict.fromkeys(frame.file.path for frame in frames))
    found = in_chunks(_header_of, paths, _HEADER_THREADS)
    # A million files have few headers that differ.
    same: dict[FrameHeader | str, FrameHeader | str] = {}
    return {
        path: same.setdefault(header, header) for path, header in zip(paths, found, strict=True)
    }


def _header_of(path: str) -> FrameHeader | str:
    """Return the header, or why there is none."""
    try:
        return read_video_header(path) if is_video_file(path) else read_frame_header(path)
    except DataError as error:
        return reason(error, path)


def make_tracks(
    frames: Mapping[str, Sequence[Frame]], headers: Headers, requirements: Requirements
) -> dict[str, Track] | list[Fault]:
    """Return the tracks of frames that belong together, or why they cannot be used.

    Args:
        frames: modality -> its frames, as many of each; `gt` among them.
        headers: of all their files.
        requirements: what they must be.
    """
    tracks: dict[str, Track] = {}
    faults: list[Fault] = []
    for modality, each in frames.items():
        track = _track(each, headers)
        if isinstance(track, Track):
            tracks[modality] = track
        else:
            faults += track
    return faults or _unfit(tracks, requirements) or tracks


def make_segment(
    name: str, place: str, frame_names: Sequence[str], tracks: dict[str, Track], scale: int
) -> Segment:
    """Return tracks that fit together as a segment."""
    gt = tracks["gt"].header
    shown = tuple(map(one_line, frame_names))
    return Segment(one_line(name), place, shown, tracks, gt.height // scale, gt.width // scale)


def _track(frames: Sequence[Frame], headers: Headers) -> Track | list[Fault]:
    """Return the frames with what they have in common, or (path, why) of those that differ."""
    known: list[FrameHeader] = []
    faults: list[Fault] = []
    for frame in frames:
        header = headers[frame.file.path]
        if isinstance(header, str):
            faults.append((frame.file.path, header))
            continue
        known.append(header)
        first = known[0]
        if _kind(header) != _kind(first):
            path = frame.file.path
            faults.append((path, f"found {header}, expected {first} as the frames before it"))
    if faults:
        # A video has one fault, not one for each of its frames.
        return list(dict(faults[:_MOST_FAULTS]).items())
    if len(known) == 1:
        return Track(tuple(frames), known[0])
    deepest = max(known, key=lambda header: np.dtype(header.dtype).itemsize)
    alpha = any(header.has_alpha for header in known)
    return Track(tuple(frames), replace(deepest, has_alpha=alpha))


def _kind(header: FrameHeader) -> tuple[object, ...]:
    """Return what all frames of a track have in common."""
    return (
        header.is_tensor,
        header.height,
        header.width,
        (header.channels, header.dtype) if header.is_tensor else None,
    )


def _unfit(tracks: Mapping[str, Track], requirements: Requirements) -> list[Fault]:
    """Return (path, why) for what makes tracks unusable together."""
    for modality in IMAGES:
        if modality in tracks and tracks[modality].header.is_tensor:
            return [(tracks[modality].path, f"is a tensor; {modality} must be images")]
    gt, scale = tracks["gt"], requirements.scale
    size = gt.header.height // scale, gt.header.width // scale
    faults = [
        (track.path, _wrong_size(track.header, gt, size, scale))
        for modality, track in tracks.items()
        if modality != "gt" and (track.header.height, track.header.width) != size
    ]
    need = requirements.lq_size or 1
    if not faults and min(size) < need:
        why = (
            f"too small: found {gt.header}, expected at least {need * scale}x{need * scale} for "
            f"an LQ crop of {need}x{need} at scale {scale}"
        )
        faults.append((gt.path, why))
    return faults


def _wrong_size(header: FrameHeader, gt: Track, size: tuple[int, int], scale: int) -> str:
    height, width = size
    expected = (
        f"({header.channels}, {height}, {width})" if header.is_tensor else f"{width}x{height}"
    )
    hint = ""
    if header.is_tensor and (header.channels, header.height) == size:
        hint = "; this looks like (H, W, S), expected (S, H, W)"
    elif not header.is_tensor:
        hint = _size_hint((gt.header.height, gt.header.width), (header.height, header.width))
    return (
        f"wrong size for scale {scale}: found {header}, expected {expected} for the GT of "
        f"{gt.header.width}x{gt.header.height} ({gt.path}){hint}"
    )


def _size_hint(gt: tuple[int, int], lq: tuple[int, int]) -> str:
    """Return what two sizes (height, width) that do not fit may mean, or nothing."""
    scales = range(1, 17)
    fitting = [n for n in scales if (gt[0] // n, gt[1] // n) == lq]
    if fitting:
        return f"; these two fit scale {fitting[0]}"
    if any((lq[0] // n, lq[1] // n) == gt for n in scales):
        return "; the LQ is the larger one: are gt and lq swapped?"
    return ""
