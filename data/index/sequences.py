"""The index of sequences: which frames belong together, which sequences are used, and which not.

Made once, from names and headers only; no image is decoded.

- A folder of frames is a sequence, or several where the names of its frames show several scenes:
  `city_0001.png` and `walk_0001.png` are of `FOLDER/city` and `FOLDER/walk`.
- Frames of different modalities belong together if their names without suffix are the same, else
  (in all of the sequence) if the numbers in their names are; frames of videos by position. An LQ
  may have `x2`, `X2` or `_x2` at the end of its name, as published ones do. Never is one frame
  taken for another only because of its place: where the names do not say, or some frames lack a
  partner, the sequence cannot be used.
- Where the numbers of frames rise by 1.5 times their usual step or more, there is a gap: the
  sequence is cut there, so that no clip crosses it. `sr_train.io.numbering` has the rules.
- All frames of a modality of a sequence have one size; the LQ that of the GT over the scale,
  further inputs that of the LQ and the same channels and dtype in the whole set.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise

from data.index.pairing import Paired, cut_at_gaps, pair_frames
from data.index.requirements import Requirements
from data.index.scenes import split_scenes
from data.index.segments import IMAGES, Index, Track, make_segment, make_tracks, read_headers
from data.index.selecting import matches, some
from data.index.tracks import Found
from sr_train.api.errors import DataError, did_you_mean
from sr_train.api.text import first_few
from sr_train.io.folders import natural_key


@dataclass
class SequenceIndex(Index):
    """What was found."""

    span: int = 1
    """Frames from the first to the last of a clip."""
    num_sequences: int = 0
    """Of which at least a segment is used."""
    too_short: list[tuple[str, int]] = field(default_factory=list)
    """(name, frames) of segments with fewer frames than a clip spans."""
    gaps: list[tuple[str, str]] = field(default_factory=list)
    """(name of a sequence, where) for each gap in a numbering."""
    scenes: dict[str, list[str]] = field(default_factory=dict)
    """Folder -> the sequences that are scenes of it, where there are several."""

    def check(self, on_bad: str) -> None:
        """Raise where the set cannot be used.

        Raises:
            Problems: as for images.
            DataError: all sequences are too short.
        """
        super().check(on_bad)
        if not self.segments:
            shown = first_few([f"{name} ({count} frames)" for name, count in self.too_short])
            raise DataError(
                f"all {len(self.too_short)} sequences are too short for clips that span "
                f"{self.span} frames: {shown}; lower frames or stride"
            )

    def parts(self) -> list[str]:
        """Return what of its files each segment uses: name, modalities, first number, length."""
        return [
            f"{segment.name}|{modality}|{track.frames[0].number}|{len(segment)}"
            for segment in self.segments
            for modality, track in segment.tracks.items()
        ]


def index_sequences(
    found: Sequence[tuple[str, Found]], requirements: Requirements
) -> SequenceIndex:
    """Select, pair, number and check the sequences that were found.

    Args:
        found: (what the names begin with, sequences), one for each root.
        requirements: what they must be.

    Raises:
        DataError: patterns that match nothing, or leave nothing.
    """
    index = SequenceIndex(span=requirements.num_frames)
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


def _check(
    candidates: Sequence[tuple[str, str, Paired]], requirements: Requirements, index: SequenceIndex
) -> None:
    """Read all headers and make segments of the sequences that fit."""
    every = (frames for _, _, paired in candidates for frames in paired.frames.values())
    headers = read_headers([frame for frames in every for frame in frames])
    fitting: list[tuple[str, str, Paired, dict[str, Track]]] = []
    for name, place, paired in candidates:
        tracks = make_tracks(paired.frames, headers, requirements)
        if isinstance(tracks, dict):
            fitting.append((name, place, paired, tracks))
        else:
            index.left_out += tracks
    usual = _usual_extras([tracks for *_, tracks in fitting])
    for name, place, paired, tracks in fitting:
        faults = _unusual(tracks, usual)
        index.left_out += faults
        if not faults:
            _add_segments(name, place, paired, tracks, requirements, index)


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
            faults.append((tracks[modality].path, why))
    return faults


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
    used = 0
    for part in parts:
        full = name if len(parts) == 1 else f"{name}/{part.names[0]}-{part.names[-1]}"
        if len(part.names) < requirements.num_frames:
            index.too_short.append((full, len(part.names)))
            continue
        cut = {m: Track(part.frames[m], track.header) for m, track in tracks.items()}
        index.segments.append(make_segment(full, place, part.names, cut, requirements.scale))
        used += 1
    index.num_sequences += used > 0
