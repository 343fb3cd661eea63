"""Names that configs of earlier runs hold, so that those runs can be resumed."""

from typing import Any

_KEYS = {
    ("adversary",): "objective_d",
    ("precision", "calm"): "good_windows",
}
"""Config path of a key, and its name of today."""

_TARGETS = {
    "data.clips.ClipSet": "data.clips.ClipDataset",
    "data.loader.TrainStream": "data.loading.stream.TrainLoader",
    "data.loading.stream.TrainStream": "data.loading.stream.TrainLoader",
    "data.pictures.PictureSet": "data.images.ImageDataset",
}


def in_new_names(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's config, plain Python, under the names of today; values stay as they are."""
    new = _mapping(config, ())
    assert isinstance(new, dict)
    return new


def _mapping(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_mapping(item, path) for item in value]
    if not isinstance(value, dict):
        return value
    new = {}
    for key, item in value.items():
        place = (*path, str(key))
        known = isinstance(item, str) and key == "_target_"
        new[_KEYS.get(place, key)] = _TARGETS.get(item, item) if known else _mapping(item, place)
    return new
