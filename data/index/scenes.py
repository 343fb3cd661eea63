"""Folders that hold the frames of several scenes, distinguished by their names."""

import re
from collections.abc import Mapping, Sequence

from data.index.folders import FoundFile
from data.index.tracks import Found
from sr_train.io.numbering import find_runs, match_frames
from sr_train.io.suffixes import is_video_file

_ENDING = re.compile(r"_?[xX][0-9]{1,2}$")

Files = Mapping[str, Sequence[FoundFile]]
"""Modality -> files of frames."""


def split_scenes(found: Found) -> Found:
    """Return what was found with a sequence for each scene, `FOLDER/SCENE`.

    The names of the GT show the scenes, and those of all other modalities follow: a frame belongs
    to the scene of its partner. What has none is left to whatever pairs the frames of a scene.
    """
    result = Found(ignored=found.ignored, bad=found.bad)
    for name, files in found.files.items():
        scenes = {} if name in found.missing else _scenes(files)
        if len(scenes) < 2:
            result.files[name] = dict(files)
            result.places[name] = found.places[name]
            if name in found.missing:
                result.missing[name] = found.missing[name]
            continue
        for scene, each in scenes.items():
            own = _free(f"{name}/{scene}", found, result)
            result.files[own] = each
            result.places[own] = found.places[name]
            result.folders[own] = name
            lacking = next((modality for modality in files if modality not in each), None)
            if lacking is not None:
                result.missing[own] = f"{lacking} has no frame of the scene {scene!r}"
    return result


def _scenes(files: Files) -> dict[str, dict[str, list[FoundFile]]]:
    """Return the files of each scene by modality; nothing where there is only one scene."""
    if any(is_video_file(each[0].path) for each in files.values()):
        return {}
    stems = {modality: [file.stem for file in each] for modality, each in files.items()}
    of_gt = _scene_of_each(stems["gt"])
    if len(set(of_gt.values())) < 2:
        return {}
    scenes: dict[str, dict[str, list[FoundFile]]] = {}
    for modality, each in files.items():
        own = of_gt if modality == "gt" else _followed(stems[modality], stems["gt"], of_gt)
        if set(own.values()).isdisjoint(of_gt.values()):
            return {}  # nothing of it belongs to the GT, as pairing the whole folder will report
        for file in each:
            scenes.setdefault(own[file.stem] or modality, {}).setdefault(modality, []).append(file)
    return scenes


def _scene_of_each(stems: Sequence[str]) -> dict[str, str]:
    """Return the scene of each name; names that are there twice are left to the pairing."""
    names = list(dict.fromkeys(stems))
    return {names[place]: run.scene for run in find_runs(names) for place in run.positions}


def _followed(
    stems: Sequence[str], gt_stems: Sequence[str], of_gt: Mapping[str, str]
) -> dict[str, str]:
    """Return the scenes of another modality's names: those of their partners."""
    places = match_frames(gt_stems, stems, _ENDING)
    if places is not None:
        return {stems[place]: of_gt[name] for name, place in zip(gt_stems, places, strict=True)}
    own = _scene_of_each(stems)
    return {stem: of_gt.get(stem) or of_gt.get(_ENDING.sub("", stem)) or own[stem] for stem in own}


def _free(name: str, found: Found, result: Found) -> str:
    """Return the name, amended where a folder has it already."""
    number = 1
    free = name
    while free in found.files or free in result.files:
        number += 1
        free = f"{name}_{number}"
    return free
