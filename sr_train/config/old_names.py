"""Configs of runs that were started before keys and classes were renamed, in the names of today.

They apply to what a run has stored, never to what people type.
"""

from collections.abc import Mapping
from typing import Any

_KEYS = {"adversary": "objective_d"}
"""Keys at the root of a config."""

_TARGETS = {
    "data.pictures.PictureSet": "data.images.ImageDataset",
    "data.clips.ClipSet": "data.clips.ClipDataset",
    "data.loader.TrainStream": "data.loading.stream.TrainLoader",
}
"""Values of `_target_`, anywhere in a config."""


def in_new_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config, plain Python, with the keys and targets that today's program reads.

    Values stay as they are; a key that is there under its new name already wins.
    """
    renamed = {_KEYS[key]: value for key, value in config.items() if key in _KEYS}
    kept = {key: value for key, value in config.items() if key not in _KEYS}
    return {key: _with_new_targets(value) for key, value in {**renamed, **kept}.items()}


def _with_new_targets(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_new_targets(each) for each in value]
    if not isinstance(value, dict):
        return value
    new = {key: _with_new_targets(each) for key, each in value.items()}
    if isinstance(new.get("_target_"), str):
        new["_target_"] = _TARGETS.get(new["_target_"], new["_target_"])
    return new
