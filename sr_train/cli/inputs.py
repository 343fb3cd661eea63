"""Whether a network gets what it takes: clips or pictures, and its extra inputs."""

from collections.abc import Mapping
from typing import Any

from sr_train.ops.errors import ConfigError
from sr_train.ops.spec import NetSpec


def check_inputs(spec: NetSpec, sets: Mapping[str, Any]) -> None:
    """Raise where a data set does not give what the network is fed.

    Sets say what they give by `num_frames` (of a training clip; None for pictures) and
    `extra_channels` (extra tensors by name, with their channels); one that says nothing gives
    pictures.

    Args:
        spec: what the network says about itself.
        sets: by config path; those below `data.val` may mix, since a picture is a clip of one
            frame there, and a picture network takes clips frame by frame.

    Raises:
        ConfigError: naming set, finding and expectation.
    """
    for path, dataset in sets.items():
        frames: int | None = getattr(dataset, "num_frames", None)
        given: Mapping[str, int] = getattr(dataset, "extra_channels", {})
        if path == "data.train":
            _check_frames(spec, frames)
        for name, channels in spec.extra_inputs.items():
            if given.get(name) != channels:
                raise ConfigError(_other_input(path, name, channels, given))


def _other_input(path: str, name: str, channels: int, given: Mapping[str, int]) -> str:
    wanted = f"{path}: the network takes {name!r} of {channels} channels beside lq"
    if name in given:
        return f"{wanted}, the files have {given[name]}; set arch.extra_inputs.{name}={given[name]}"
    found = ", ".join(given) or "no further inputs"
    return f"{wanted}, the data set gives {found}; name its folder: {path}.modalities.{name}=..."


def _check_frames(spec: NetSpec, frames: int | None) -> None:
    if spec.takes_clips and frames is None:
        raise ConfigError(
            "data.train: gives pictures, but the network takes clips; expected a data set of "
            "clips, for example dataset=[clips]"
        )
    if not spec.takes_clips and frames is not None:
        raise ConfigError(
            "data.train: gives clips, but the network takes pictures; expected dataset=[folder], "
            "or a network of clips, for example arch=compact_temporal or arch=basicvsr"
        )
    if frames is not None and frames < spec.min_frames:
        raise ConfigError(
            f"data.frames={frames}: the network needs clips of at least {spec.min_frames} frames"
        )
