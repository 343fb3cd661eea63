"""Further inputs of a network, such as spikes: folders with one tensor for each frame.

Tensors belong to frames of a folder by name or number, as in training, and never by place. The
frames of a video have no names: they take the tensors in order, which must have no gap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sr_train.api.errors import DataError
from sr_train.inference.planning import ClipJob
from sr_train.io import tensors
from sr_train.io.folders import natural_key
from sr_train.io.numbering import check_unique, difference, find_runs, match_frames
from sr_train.io.suffixes import is_tensor_file
from sr_train.io.video.frames import FrameReader


@dataclass(frozen=True)
class _Track:
    """The tensors of one further input."""

    folder: Path
    files: Sequence[Path]
    """In order."""
    by_frame: Mapping[str, Path] | None
    """By the name of the frame without suffix; None: in order."""


class Extra:
    """The further inputs of one clip, frame by frame.

    Args:
        job: the clip.
        folders: of tensors, by the name of the input; in them, its tensors lie where the clip does
            below the input.

    Raises:
        DataError: a folder that is missing, or tensors that do not belong to the frames.
    """

    def __init__(self, job: ClipJob, folders: Mapping[str, Path]) -> None:
        self._tracks = {
            key: _track(key, folder / job.relative, job) for key, folder in folders.items()
        }

    def of(self, name: str, number: int) -> dict[str, np.ndarray]:
        """Return (H, W, C) of each input for a frame.

        Args:
            name: of the frame without suffix.
            number: of the frame; read for a video.

        Raises:
            DataError: it is no tensor (C, H, W), or there is none.
        """
        return {key: _read(_file(track, name, number)) for key, track in self._tracks.items()}


def _track(key: str, folder: Path, job: ClipJob) -> _Track:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a tensor of {key} for each frame")
    files = sorted(
        (
            path
            for path in folder.iterdir()
            if is_tensor_file(path) and not path.name.startswith(".")
        ),
        key=lambda path: natural_key(path.name),
    )
    stems = [path.stem for path in files]
    twice = check_unique(stems)
    if twice:
        raise DataError(f"{folder}: {twice}")
    if job.stems:
        places = match_frames(job.stems, stems)
        if places is None:
            raise DataError(f"{folder}: {difference(job.stems, stems, 'lq', key)}")
        by_frame = {stem: files[at] for stem, at in zip(job.stems, places, strict=True)}
        return _Track(folder, files, by_frame)
    return _Track(folder, _in_order(key, folder, files, stems, job), None)


def _in_order(
    key: str, folder: Path, files: Sequence[Path], stems: Sequence[str], job: ClipJob
) -> list[Path]:
    """Return the tensors of a video's frames, none of them missing."""
    runs = find_runs(stems)
    if len(runs) > 1:
        before, after = stems[runs[0].positions[-1]], stems[runs[1].positions[0]]
        raise DataError(
            f"{folder}: the tensors of a video must follow each other without a gap, but after "
            f"{before} comes {after}"
        )
    with FrameReader(job.source) as reader:
        count = len(reader)
    if len(files) != count:
        raise DataError(
            f"{folder}: {len(files)} tensors of {key}, but {job.source} has {count} frames"
        )
    return [files[position] for run in runs for position in run.positions]


def _file(track: _Track, name: str, number: int) -> Path:
    if track.by_frame is not None:
        return track.by_frame[name]
    if number >= len(track.files):
        count = len(track.files)
        raise DataError(f"{track.folder}: {count} tensors, but the video has more frames")
    return track.files[number]


def _read(file: Path) -> np.ndarray:
    tensor = tensors.read_tensor(file)
    if tensor.ndim != 3:
        raise DataError(f"{file}: expected a tensor (C, H, W), got {tensor.shape}")
    return np.moveaxis(tensor, 0, -1).astype(np.float32)
