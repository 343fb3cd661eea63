"""Which frames of a sequence's modalities belong together, and where its numbering has gaps."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from data.folders import FoundFile
from data.videos import count_frames, is_video_file
from sr_train.ops.errors import DataError

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """Where one frame of one modality is."""

    file: FoundFile
    number: int | None = None
    """Within a video file; None: the file holds this frame alone."""


@dataclass(frozen=True)
class Paired:
    """The frames of a sequence in order."""

    names: tuple[str, ...]
    """Those of the GT files without suffix; of a video, the frames' numbers."""
    numbers: tuple[int, ...] | None
    """By which they are numbered; None where the names tell none."""
    frames: dict[str, tuple[Frame, ...]]
    """modality -> as many frames as there are names."""

    def part(self, first: int, end: int) -> "Paired":
        """Return the frames from one position up to, but without, another."""
        numbers = self.numbers and self.numbers[first:end]
        frames = {modality: each[first:end] for modality, each in self.frames.items()}
        return Paired(self.names[first:end], numbers, frames)


def pair_frames(files: Mapping[str, Sequence[FoundFile]], scale: int) -> Paired | str:
    """Return the frames of a sequence, or why they do not belong together.

    Args:
        files: modality -> files of frames in natural order, or one video; `gt` among them.
        scale: an LQ may have it at the end of its name.
    """
    frames: dict[str, list[Frame]] = {}
    for modality, each in files.items():
        opened = _frames(each)
        if isinstance(opened, str):
            return f"{modality}: {opened}"
        frames[modality] = opened
    gt = frames["gt"]
    result = {"gt": tuple(gt)}
    for modality, others in frames.items():
        if modality != "gt":
            matched = _matched(gt, others, modality, scale)
            if isinstance(matched, str):
                return matched
            result[modality] = matched
    names = tuple(_stem(frame) for frame in gt)
    numbers = _numbers(names)
    rises = numbers is not None and all(a < b for a, b in pairwise(numbers))
    return Paired(names, tuple(numbers) if numbers and rises else None, result)


def cut_at_gaps(paired: Paired) -> list[Paired]:
    """Return the parts between which numbers are missing, often one.

    Where numbers rise by more than they do most often, there is a gap.
    """
    numbers = paired.numbers
    if numbers is None or len(numbers) < 2:
        return [paired]
    steps = [b - a for a, b in pairwise(numbers)]
    counted = Counter(steps)
    usual = min(counted, key=lambda step: (-counted[step], step))
    cuts = [place for place, step in enumerate(steps, start=1) if step > usual]
    return [
        paired.part(first, end)
        for first, end in zip([0, *cuts], [*cuts, len(numbers)], strict=True)
    ]


def _frames(files: Sequence[FoundFile]) -> list[Frame] | str:
    videos = [file for file in files if is_video_file(file.path)]
    if not videos:
        twins = [stem for stem, count in Counter(map(_file_stem, files)).items() if count > 1]
        if twins:
            return f"{len(twins)} frames are there twice, e.g. {twins[0]!r}; keep one of each"
        return [Frame(file) for file in files]
    if len(files) > 1:
        kinds = ", ".join(sorted({file.suffix for file in files}))
        return f"is there several times ({kinds}); keep one"
    try:
        count = count_frames(videos[0].path)
        return [Frame(videos[0], number) for number in range(count)]
    except DataError as error:
        return str(error)


def _file_stem(file: FoundFile) -> str:
    return file.relative.rpartition("/")[2]


def _stem(frame: Frame) -> str:
    return _file_stem(frame.file) if frame.number is None else f"{frame.number:08}"


def _numbers(stems: Sequence[str]) -> list[int] | None:
    """Return the last number in each name, or None where one has none."""
    found = [re.findall(r"\d+", stem) for stem in stems]
    return [int(digits[-1]) for digits in found] if all(found) else None


def _matched(
    gt: Sequence[Frame], others: Sequence[Frame], modality: str, scale: int
) -> tuple[Frame, ...] | str:
    """Return the partner of each GT frame, or why some have none."""
    if gt[0].number is not None or others[0].number is not None:
        if len(gt) == len(others):
            return tuple(others)
        return f"{modality} has {len(others)} frames, but gt has {len(gt)}"
    wanted, stems = [_stem(frame) for frame in gt], [_stem(frame) for frame in others]
    ways = [(wanted, stems)]
    ends = re.compile(rf"_?[xX]{scale}$")
    if modality == "lq" and all(map(ends.search, stems)):
        ways.append((wanted, [ends.sub("", stem) for stem in stems]))
    for keys, other_keys in ways:
        if set(keys) == set(other_keys):
            partners = dict(zip(other_keys, others, strict=True))
            return tuple(partners[key] for key in keys)
    keys, other_keys = ways[-1]
    numbers, other_numbers = _numbers(keys), _numbers(other_keys)
    if numbers and other_numbers and set(numbers) == set(other_numbers):
        by_number = dict(zip(other_numbers, others, strict=True))
        if len(by_number) == len(others) == len(gt):
            return tuple(by_number[number] for number in numbers)
    return _difference(keys, other_keys, modality)


def _difference(keys: Sequence[str], other_keys: Sequence[str], modality: str) -> str:
    """Say how the frames of two modalities differ."""
    counts = f"{modality} has {len(other_keys)} frames, gt has {len(keys)}"
    lacks = [key for key in keys if key not in set(other_keys)]
    extra = [key for key in other_keys if key not in set(keys)]
    if len(lacks) == len(keys):
        return (
            f"{counts}, and neither names nor numbers agree: {modality} has {_some(other_keys)}, "
            f"gt has {_some(keys)}"
        )
    parts = [f"{modality} lacks {_some(lacks)}"] if lacks else []
    parts += [f"gt lacks {_some(extra)}"] if extra else []
    return f"{counts}: {'; '.join(parts)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
