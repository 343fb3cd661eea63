"""Which frames of a sequence's modalities belong together, and where its numbering has gaps."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.index.folders import FoundFile
from data.index.segments import Frame
from data.index.videos import count_frames
from sr_train.api.errors import DataError
from sr_train.io.numbering import check_unique, difference, find_runs, match_frames
from sr_train.io.suffixes import is_video_file


@dataclass(frozen=True)
class Paired:
    """The frames of a sequence in order."""

    names: tuple[str, ...]
    """Those of the GT files without suffix; of a video, the frames' numbers."""
    begins: tuple[bool, ...]
    """Whether the numbering has a gap before a frame; true of the first."""
    frames: dict[str, tuple[Frame, ...]]
    """modality -> as many frames as there are names."""

    def part(self, first: int, end: int) -> "Paired":
        """Return the frames from one position up to, but without, another."""
        frames = {modality: each[first:end] for modality, each in self.frames.items()}
        return Paired(self.names[first:end], (True, *self.begins[first + 1 : end]), frames)


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
    order, begins = _in_order(frames["gt"])
    gt = [frames["gt"][place] for place in order]
    result = {"gt": tuple(gt)}
    for modality, others in frames.items():
        if modality != "gt":
            matched = _matched(gt, others, modality, scale)
            if isinstance(matched, str):
                return matched
            result[modality] = matched
    return Paired(tuple(_stem(frame) for frame in gt), begins, result)


def cut_at_gaps(paired: Paired) -> list[Paired]:
    """Return the parts between which numbers are missing, often one."""
    cuts = [place for place, is_first in enumerate(paired.begins) if is_first and place > 0]
    return [
        paired.part(first, end)
        for first, end in zip([0, *cuts], [*cuts, len(paired.names)], strict=True)
    ]


def _in_order(frames: Sequence[Frame]) -> tuple[list[int], tuple[bool, ...]]:
    """Return the places of frames in their order, and before which of those there is a gap."""
    if frames[0].number is not None:
        return list(range(len(frames))), (True, *[False] * (len(frames) - 1))
    order: list[int] = []
    begins: list[bool] = []
    for run in find_runs([_stem(frame) for frame in frames]):
        order += run.positions
        begins += [True, *[False] * (len(run.positions) - 1)]
    return order, tuple(begins)


def _frames(files: Sequence[FoundFile]) -> list[Frame] | str:
    videos = [file for file in files if is_video_file(file.path)]
    if not videos:
        return check_unique([file.stem for file in files]) or [Frame(file) for file in files]
    if len(files) > 1:
        kinds = ", ".join(sorted({file.suffix for file in files}))
        return f"is there several times ({kinds}); keep one"
    try:
        count = count_frames(videos[0].path)
        return [Frame(videos[0], number) for number in range(count)]
    except DataError as error:
        return str(error)


def _stem(frame: Frame) -> str:
    return frame.file.stem if frame.number is None else f"{frame.number:08}"


def _matched(
    gt: Sequence[Frame], others: Sequence[Frame], modality: str, scale: int
) -> tuple[Frame, ...] | str:
    """Return the partner of each GT frame, or why some have none."""
    if gt[0].number is not None or others[0].number is not None:
        if len(gt) == len(others):
            return tuple(others)
        return f"{modality} has {len(others)} frames, but gt has {len(gt)}"
    names, other_names = [_stem(frame) for frame in gt], [_stem(frame) for frame in others]
    ends = re.compile(rf"_?[xX]{scale}$") if modality == "lq" else None
    places = match_frames(names, other_names, ends)
    if places is None:
        return difference(names, other_names, "gt", modality)
    return tuple(others[place] for place in places)
