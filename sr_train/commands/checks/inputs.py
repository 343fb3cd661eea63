"""Whether a network gets what it takes: clips or images, and its extra inputs."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from sr_train.config.schema import RunConfig

_PIXELS = (torch.uint8, torch.uint16)

_MOST = 2.0
"""Floats beyond it are not those of [0, 1] that filters have let ring."""


def check_inputs(spec: NetSpec, sets: Mapping[str, Any]) -> None:
    """Raise where a data set does not give what the network is fed.

    Sets say what they give by `num_frames` (of a training clip; None for images) and
    `extra_channels` (extra tensors by name, with their channels); one that says nothing gives
    images.

    Args:
        spec: what the network says about itself.
        sets: by config path; those below `data.val` may mix, since an image is a clip of one
            frame there, and an image network takes clips frame by frame.

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
            "data.train: gives images, but the network takes clips; expected a data set of "
            "clips, for example dataset=[clips]"
        )
    if not spec.takes_clips and frames is not None:
        raise ConfigError(
            "data.train: gives clips, but the network takes images; expected dataset=[folder], "
            "or a network of clips, for example arch=compact_temporal or arch=basicvsr"
        )
    if frames is not None and frames < spec.min_frames:
        raise ConfigError(
            f"data.frames={frames}: the network needs clips of at least {spec.min_frames} frames"
        )


def sample_problems(sample: Any, cfg: RunConfig, spec: NetSpec) -> Iterator[str]:
    """Yield what is wrong with a training sample, as a data set of anybody's may give it.

    Args:
        sample: of `data.train`.
        cfg: of the run.
        spec: of the network.
    """
    path = "data.train: its samples"
    if not isinstance(sample, Mapping):
        yield f"{path} are {type(sample).__name__}, expected a mapping with lq and gt"
        return
    frames = (cfg.data.frames,) if spec.takes_clips else ()
    side = cfg.data.lq_size
    wanted = {
        "lq": (*frames, 3, side, side),
        "gt": (*frames, 3, side * cfg.scale, side * cfg.scale),
        **{name: (*frames, count, side, side) for name, count in spec.extra_inputs.items()},
    }
    for name, shape in wanted.items():
        value = sample.get(name)
        if not isinstance(value, Tensor):
            found = ", ".join(map(str, sample))
            kind = "no" if value is None else f"{type(value).__name__} for"
            yield f"{path} have {kind} {name}, expected a tensor {shape}; found {found}"
        elif tuple(value.shape) != shape:
            yield f"{path} have {name} of {tuple(value.shape)}, expected {shape}"
        elif value.is_floating_point() and not bool(torch.isfinite(value).all()):
            yield f"{path} have values in {name} that are not finite"
        elif (
            name in {"lq", "gt"} and value.is_floating_point() and float(value.abs().max()) > _MOST
        ):
            yield f"{path} have {name} of {value.dtype} beyond [0, 1]; return uint8 for 0 to 255"
        elif name in {"lq", "gt"} and not (value.is_floating_point() or value.dtype in _PIXELS):
            yield f"{path} have {name} of {value.dtype}, expected uint8, uint16 or float in [0, 1]"
