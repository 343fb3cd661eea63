"""The index of sequences: which frames belong together, which sequences are used, and which not.

Made once, from names and headers alone; no image is decoded.

- A folder of frames is a sequence, or several where the names of its frames tell several scenes:
  `city_0001.png` and `walk_0001.png` are of `FOLDER/city` and `FOLDER/walk`.
- Frames of different modalities belong together if their names without suffix are the same, else
  (in all of the sequence) if the numbers in their names are; frames of videos by position. An LQ
  may have `x2`, `X2` or `_x2` at the end of its name, as published ones do. Never is one frame
  taken for another because of its place alone: where the names do not tell, or some frames lack a
  partner, the sequence cannot be used.
- Where the numbers of frames rise by 1.5 times their usual step or more, there is a gap: the
  sequence is cut there, so that no clip crosses it. `sr_train.io.numbering` has the rules.
- All frames of a modality of a sequence have one size; the LQ that of the GT over the scale,
  further inputs that of the LQ and the same channels and dtype in the whole set.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import groupby, pairwise

import numpy as np

from data.index.arguments import Range
from data.index.damage import reason
from data.index.folders import FoundFile
from data.index.frame_files import FrameHeader, read_frame_header
from data.index.pairing import Frame, Paired, cut_at_gaps, pair_frames
from data.index.pairs import size_hint
from data.index.scenes import split_scenes
from data.index.selecting import Selection, matches, some
from data.index.tracks import Found
from data.index.videos import read_video_header
from sr_train.api.errors import DataError, did_you_mean
from sr_train.api.text import one_line
from sr_train.io.folders import natural_key
from sr_train.io.suffixes import is_video_file
from sr_train.utils.threads import in_chunks

IMAGES = ("gt", "lq")
"""Modalities that must be images; all others are further inputs."""

_HEADER_THREADS = 8
_MOST_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Track:
    """One modality of a segment."""

    frames: tuple[Frame, ...]
    header: FrameHeader
    """Of every frame; where images differ in depth, that of the deepest."""


@dataclass(frozen=True)
class Segment:
    """Frames that follow each other without a gap: a sequence, or a part of one."""

    name: str
    """The sequence's, control characters written out; of a part, with `/FIRST-LAST` (names of
    frames) behind it."""
    place: str
    """Folder or video file."""
    frame_names: tuple[str, ...]
    tracks: dict[str, Track]
    """`gt`, `lq` unless that is made, and the further inputs."""
    lq_height: int
    """Pixels on the LQ grid; the GT is cropped to `scale` times it."""
    lq_width: int

    def __len__(self) -> int:
        return len(self.frame_names)


@dataclass
class SequenceIndex:
    """What was found."""

    segments: list[Segment] = field(default_factory=list)
    num_sequences: int = 0
    """Of which at least a segment is used."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(path, why) of sequences and files that cannot be used."""
    too_short: list[tuple[str, int]] = field(default_factory=list)
    """(name, frames) of segments with fewer frames than a clip spans."""
    gaps: list[tuple[str, str]] = field(default_factory=list)
    """(name of a sequence, where) for each gap in a numbering."""
    scenes: dict[str, list[str]] = field(default_factory=dict)
    """Folder -> the sequences that are scenes of it, where there are several."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files that are no frames, by suffix."""

    def files(self) -> list[FoundFile]:
        """Return all files that are used, of each segment and modality in turn; a video's once."""
        tracks = [track for segment in self.segments for track in segment.tracks.values()]
        files = (frame.file for track in tracks for frame in track.frames)
        return [file for file, _ in groupby(files)]

    def parts(self) -> list[str]:
        """Return what of its files each segment uses: name, modalities, first number, length."""
        return [
            f"{segment.name}|{modality}|{track.frames[0].number}|{len(segment)}"
            for segment in self.segments
            for modality, track in segment.tracks.items()
        ]


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a sequence must be to be used."""

    scale: int
    lq_size: int | None = None
    """Side of the training crop in LQ pixels; None: any size will do."""
    num_frames: int = 1
    """Frames from the first to the last of a clip."""
    selection: Selection = field(default_factory=Selection)
    """Held against the sequence's name, and that of the folder that it is a scene of."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Pattern -> (first, end): the frames used, counted from 0 in their order, `end` not among
    them; None: to the last."""


def build_index(found: Sequence[tuple[str, Found]], requirements: Requirements) -> SequenceIndex:
    """Select, pair, number and check the sequences that were found.

    Args:
        found: (what the names begin with, sequences), one for each root.
        requirements: what they must be.

    Raises:
        DataError: patterns that match nothing, or leave nothing.
    """
    index = SequenceIndex()
    split = [(label, split_scenes(each)) for label, each in found]
    names = {
        label + name: list(dict.fromkeys([label + name, name, *_of_folder(label, each, name)]))
        for label, each in split
        for name in each.files
    }
    chosen, lacking = requirements.selection.chosen(names, "sequences")
    index.left_out += lacking
    _check_ranges(names, requirements)
    candidates: list[tuple[str, str, Paired]] = []
    for label, each in split:
        index.ignored += each.ignored
        index.left_out += each.bad
        for name, files in each.files.items():
            full = label + name
            if full not in chosen:
                continue
            if name in each.folders:
                index.scenes.setdefault(label + each.folders[name], []).append(full)
            paired = each.missing.get(name) or pair_frames(files, requirements.scale)
            if isinstance(paired, Paired):
                paired = _in_range(full, paired, requirements)
            if isinstance(paired, str):
                index.left_out.append((each.places[name], paired))
            else:
                candidates.append((full, each.places[name], paired))
    candidates.sort(key=lambda item: natural_key(item[0]))
    _check(candidates, requirements, index)
    index.left_out.sort(key=lambda item: natural_key(item[0]))
    return index


def _of_folder(label: str, found: Found, name: str) -> list[str]:
    """Return what patterns may call the folder that a sequence is a scene of; often nothing."""
    return [label + found.folders[name], found.folders[name]] if name in found.folders else []


def _check_ranges(names: Mapping[str, Sequence[str]], requirements: Requirements) -> None:
    """Raise where a range is of no sequence."""
    for pattern in requirements.ranges:
        if not matches(names, [pattern]):
            scenes = [name for name, others in names.items() if matches(others, [pattern])]
            why = f": its frames are of several scenes, {some(scenes)}; give those"
            hint = why if scenes else did_you_mean(pattern, names)
            raise DataError(f"ranges: no sequence matches {pattern!r}{hint}")


def _in_range(name: str, paired: Paired, requirements: Requirements) -> Paired | str:
    """Return the frames that the ranges leave, or why a range cannot be."""
    bounds = [limit for pattern, limit in requirements.ranges.items() if fnmatchcase(name, pattern)]
    if len(bounds) > 1:
        return f"several of ranges match the sequence {name!r}; one may"
    if not bounds:
        return paired
    first, end = bounds[0]
    count = len(paired.names)
    end = count if end is None else end
    if not 0 <= first < end <= count:
        return (
            f"ranges: {name!r} has the frames [0, {count}], got [{first}, {end}] (from the first "
            "on, up to but without the second)"
        )
    return paired.part(first, end)


def _header_of(path: str) -> FrameHeader | str:
    """Return the header, or why there is none."""
    try:
        return read_video_header(path) if is_video_file(path) else read_frame_header(path)
    except DataError as error:
        return reason(error, path)


def _check(
    candidates: Sequence[tuple[str, str, Paired]], requirements: Requirements, index: SequenceIndex
) -> None:
    """Read all headers and make segments of the sequences that fit."""
    every = (frames for _, _, paired in candidates for frames in paired.frames.values())
    paths = list(dict.fromkeys(frame.file.path for frames in every for frame in frames))
    headers = dict(zip(paths, in_chunks(_header_of, paths, _HEADER_THREADS), strict=True))
    fitting: list[tuple[str, str, Paired, dict[str, Track]]] = []
    for name, place, paired in candidates:
        tracks: dict[str, Track] = {}
        faults: list[tuple[str, str]] = []
        for modality, frames in paired.frames.items():
            track = _track(frames, headers)
            if isinstance(track, Track):
                tracks[modality] = track
            else:
                faults += track
        faults = faults or _unfit(tracks, requirements)
        index.left_out += faults
        if not faults:
            fitting.append((name, place, paired, tracks))
    usual = _usual_extras([tracks for *_, tracks in fitting])
    for name, place, paired, tracks in fitting:
        faults = _unusual(tracks, usual)
        index.left_out += faults
        if not faults:
            _add_segments(name, place, paired, tracks, requirements, index)


def _track(
    frames: Sequence[Frame], headers: Mapping[str, FrameHeader | str]
) -> Track | list[tuple[str, str]]:
    """Return the frames with what they have in common, or (path, why) of those that differ."""
    known: list[FrameHeader] = []
    faults: list[tuple[str, str]] = []
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


def _usual_extras(sets: Sequence[Mapping[str, Track]]) -> dict[str, tuple[int, str]]:
    """Return the channels and dtype that most sequences have, of each further input."""
    counts: dict[str, Counter[tuple[int, str]]] = {}
    for tracks in sets:
        for modality, track in tracks.items():
            if modality not in IMAGES:
                kind = track.header.channels, track.header.dtype
                counts.setdefault(modality, Counter())[kind] += 1
    return {modality: counter.most_common(1)[0][0] for modality, counter in counts.items()}


def _unusual(
    tracks: Mapping[str, Track], usual: Mapping[str, tuple[int, str]]
) -> list[tuple[str, str]]:
    """Return (path, why) for further inputs that are not like those of the other sequences."""
    faults = []
    for modality, (channels, dtype) in usual.items():
        header = tracks[modality].header
        if (header.channels, header.dtype) != (channels, dtype):
            why = f"found {header}, expected {channels} channels of {dtype} as others have"
            faults.append((_path(tracks[modality]), why))
    return faults


def _unfit(tracks: Mapping[str, Track], requirements: Requirements) -> list[tuple[str, str]]:
    """Return (path, why) for what makes the tracks of a sequence unusable together."""
    for modality in IMAGES:
        if modality in tracks and tracks[modality].header.is_tensor:
            return [(_path(tracks[modality]), f"is a tensor; {modality} must be images")]
    gt, scale = tracks["gt"].header, requirements.scale
    size = gt.height // scale, gt.width // scale
    faults = []
    for modality, track in tracks.items():
        header = track.header
        if modality == "gt":
            continue
        if (header.height, header.width) != size:
            faults.append((_path(track), _wrong_size(header, gt, size, scale)))
    need = requirements.lq_size or 1
    if not faults and min(size) < need:
        why = (
            f"too small: found {gt}, expected at least {need * scale}x{need * scale} for an LQ "
            f"crop of {need}x{need} at scale {scale}"
        )
        faults.append((_path(tracks["gt"]), why))
    return faults


def _path(track: Track) -> str:
    return track.frames[0].file.path


def _wrong_size(header: FrameHeader, gt: FrameHeader, size: tuple[int, int], scale: int) -> str:
    height, width = size
    expected = (
        f"({header.channels}, {height}, {width})" if header.is_tensor else f"{width}x{height}"
    )
    hint = ""
    if header.is_tensor and (header.channels, header.height) == size:
        hint = "; this looks like (H, W, S), expected (S, H, W)"
    elif not header.is_tensor:
        hint = size_hint((gt.height, gt.width), (header.height, header.width))
    return (
        f"wrong size for scale {scale}: found {header}, expected {expected} for the GT of "
        f"{gt.width}x{gt.height}{hint}"
    )


def _add_segments(
    name: str,
    place: str,
    paired: Paired,
    tracks: Mapping[str, Track],
    requirements: Requirements,
    index: SequenceIndex,
) -> None:
    """Cut a sequence at its gaps and put each part among the segments, or the too short."""
    parts = cut_at_gaps(paired)
    for before, after in pairwise(parts):
        index.gaps.append((name, f"after {before.names[-1]} comes {after.names[0]}"))
    gt = tracks["gt"].header
    used = 0
    for part in parts:
        full = name if len(parts) == 1 else f"{name}/{part.names[0]}-{part.names[-1]}"
        if len(part.names) < requirements.num_frames:
            index.too_short.append((full, len(part.names)))
            continue
        cut = {m: Track(part.frames[m], track.header) for m, track in tracks.items()}
        height, width = gt.height // requirements.scale, gt.width // requirements.scale
        shown = tuple(map(one_line, part.names))
        index.segments.append(Segment(one_line(full), place, shown, cut, height, width))
        used += 1
    index.num_sequences += used > 0
