"""Where the frames of each sequence lie, for each modality.

A modality is one of the images or tensors that belong to a frame: `gt`, `lq`, or a further input
such as `spikes`. A sequence is a folder of frames, or a video file. Two layouts are known:

- parallel roots: `GT_ROOT/.../SEQUENCE/frame.png` or `GT_ROOT/.../SEQUENCE.mp4`, and the same
  below the root of every other modality;
- nested folders: `BASE/.../SEQUENCE/FOLDER/frame.png`, one FOLDER for each modality.

A sequence is named by its path below the root, e.g. `00001/0001`.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.index.folders import FoundFile, advice_on, list_folder
from data.index.frame_files import FRAME_SUFFIXES
from data.index.selecting import some
from sr_train.api.errors import DataError, did_you_mean
from sr_train.io.suffixes import VIDEO_SUFFIXES, is_video_file, suffix_of

_ITSELF = "."


@dataclass
class Found:
    """The frames of every modality by sequence, as they lie there."""

    files: dict[str, dict[str, list[FoundFile]]] = field(default_factory=dict)
    """sequence -> modality -> files of frames in natural order, or one video file."""
    missing: dict[str, str] = field(default_factory=dict)
    """sequence -> why it cannot be used: a modality that is not there."""
    places: dict[str, str] = field(default_factory=dict)
    """sequence -> its folder or video file, for messages."""
    folders: dict[str, str] = field(default_factory=dict)
    """sequence -> what the sequence of the whole folder would be called, for scenes of it."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files that are no frames, by suffix."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """(path, why) of broken links and of folders that cannot be entered."""


def find_parallel(roots: Mapping[str, Path]) -> Found:
    """Find sequences of the same path below one root for each modality.

    Raises:
        DataError: a root without frames, or two that have no sequence in common.
    """
    found = Found()
    by_root = {modality: _by_sequence(root, found) for modality, root in roots.items()}
    first, *others = by_root
    for modality in others:
        if not by_root[first].keys() & by_root[modality].keys():
            raise DataError(
                f"{roots[modality]}: no sequence here belongs to one in {roots[first]}; found "
                f"{some(list(by_root[modality]))}; expected names such as "
                f"{some(list(by_root[first]))}"
            )
    for name in dict.fromkeys(name for sequences in by_root.values() for name in sequences):
        found.files[name] = {m: by_root[m][name] for m in by_root if name in by_root[m]}
        holder = next(m for m in by_root if name in by_root[m])
        file = found.files[name][holder][0]
        found.places[name] = file.path if is_video_file(file.path) else str(Path(file.path).parent)
        lacking = next((m for m in by_root if name not in by_root[m]), None)
        if lacking is not None:
            hint = did_you_mean(name, by_root[lacking])
            found.missing[name] = f"no {lacking} of this name in {roots[lacking]}{hint}"
    if _ITSELF in found.files and (own := roots[first].name) not in found.files:
        found.files[own] = found.files.pop(_ITSELF)
        found.places[own] = found.places.pop(_ITSELF)
        if _ITSELF in found.missing:
            found.missing[own] = found.missing.pop(_ITSELF)
    return found


def find_nested(base: Path, folders: Mapping[str, str]) -> Found:
    """Find the folders that hold the folders of modalities.

    Args:
        base: searched with all its folders.
        folders: modality -> name of the folder of its frames inside that of a sequence.

    Raises:
        DataError: no frames, or a folder that no sequence has.
    """
    found = Found()
    by_folder = _by_sequence(base, found, with_videos=False)
    kinds: dict[str, None] = {}
    for path, files in by_folder.items():
        kinds[path.rpartition("/")[2]] = None
        for modality, folder in folders.items():
            if path == folder or path.endswith(f"/{folder}"):
                name = path[: -len(folder)].rstrip("/") or base.name
                found.files.setdefault(name, {})[modality] = files
                found.places[name] = str(Path(files[0].path).parents[folder.count("/") + 1])
    for modality, folder in folders.items():
        if not any(modality in tracks for tracks in found.files.values()):
            hint = advice_on(found.ignored) or did_you_mean(folder, [k for k in kinds if k])
            raise DataError(
                f"{base}: no sequence has a folder {folder!r} with frames (looked for "
                f"{base}/SEQUENCE/{folder}){hint}"
            )
    for name, tracks in found.files.items():
        lacking = next((folder for m, folder in folders.items() if m not in tracks), None)
        if lacking is not None:
            found.missing[name] = _lacks_folder(Path(found.places[name]), lacking)
    return found


def _by_sequence(root: Path, found: Found, with_videos: bool = True) -> dict[str, list[FoundFile]]:
    """Return the frames below a root by the folder they lie in, and each video by itself."""
    suffixes = FRAME_SUFFIXES | VIDEO_SUFFIXES if with_videos else FRAME_SUFFIXES
    listing = list_folder(root, suffixes)
    found.ignored += listing.ignored
    found.bad += listing.bad
    sequences: dict[str, list[FoundFile]] = {}
    for file in listing.files:
        if is_video_file(file.path):
            sequences.setdefault(file.relative, []).append(file)
        else:
            sequences.setdefault(file.relative.rpartition("/")[0], []).append(file)
    if with_videos and "" in sequences:
        # Frames right in the root: it is a sequence itself. Roots may differ in name.
        sequences[_ITSELF] = sequences.pop("")
    return sequences


def _lacks_folder(sequence: Path, folder: str) -> str:
    inner = sequence / folder
    if inner.is_dir():
        kinds = dict.fromkeys(suffix_of(name) for name in os.listdir(inner))
        return f"its folder {folder!r} holds no frames{advice_on(kinds)}"
    others = sorted(entry.name for entry in os.scandir(sequence) if entry.is_dir())
    hint = did_you_mean(folder, others)
    return f"no folder {folder!r} in it; found {', '.join(others)}{hint}"
