"""What a loss may ask for by the names of its `forward`'s parameters: the contract of losses."""

import inspect
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from sr_train.api.errors import ConfigError, did_you_mean

GENERATOR: tuple[str, ...] = (
    "pred",
    "target",
    "gt",
    "lq",
    "lq_up",
    "ema_pred",
    "step",
    "num_frames",
)
"""For a term of the generator; `target` is `gt` or `lq_up` as its term says. Images of clips
lie one after the other, `num_frames` (1 without clips) for each clip."""

DISCRIMINATOR_INPUTS: tuple[str, ...] = (
    "fake_logits",
    "real_logits",
    "fake_features",
    "real_features",
)
"""For a term of the generator beside them, where there is a discriminator."""

ADVERSARY: tuple[str, ...] = ("fake_logits", "real_logits", "fake", "real", "net_d", "step")
"""For a term of the discriminator."""

TARGETS = {"gt": "gt", "lq": "lq_up"}
"""What a term may take for `target`, and the image that this is."""

COLOURS = {"rgb": None, "y": 1, "cbcr": 2}
"""Colour spaces a term may compare in, and their planes; None: those of the network."""

IMAGES = frozenset({"pred", "target", "gt", "lq_up", "ema_pred", "lq", "fake", "real"})


def names_of(forward: Callable[..., Any]) -> list[str]:
    """Return the parameter names of a loss's `forward`."""
    return [name for name in inspect.signature(forward).parameters if name != "self"]


def resolve_inputs(
    forward: Callable[..., Any], where: str, available_inputs: Collection[str]
) -> list[str]:
    """Return the names that a loss asks for.

    Args:
        forward: the loss's `forward`.
        where: config path of the term, for messages.
        available_inputs: what it may ask for.

    Raises:
        ConfigError: if it asks for something else.
    """
    if getattr(forward, "__func__", forward) is nn.Module.forward:
        raise ConfigError(f"{where}.loss: has no forward(...), such as forward(self, pred, target)")
    names = []
    for name, parameter in inspect.signature(forward).parameters.items():
        if name in available_inputs:
            names.append(name)
        elif parameter.default is inspect.Parameter.empty and name != "self":
            hint = did_you_mean(name, available_inputs)
            if name in DISCRIMINATOR_INPUTS and name not in available_inputs:
                hint = "; it needs a discriminator: discriminator=unet_sn objective_d=[gan]"
            label = getattr(forward, "__qualname__", str(forward))
            raise ConfigError(
                f"{where}.loss: {label} asks for {name!r}, which a step does not have here{hint}"
            )
    return names


def check_planes(loss: nn.Module, planes: int, where: str) -> None:
    """Check that a loss takes images of a number of planes.

    Losses that do not take every number say so by an attribute `planes`, for example (1, 3).

    Args:
        loss: of any kind; one without the attribute takes all.
        planes: 3 for RGB, 1 for luma, 2 for CbCr.
        where: config path of the term, for messages.

    Raises:
        ConfigError: if it does not take them.
    """
    taken: tuple[int, ...] | None = getattr(loss, "planes", None)
    if taken is not None and planes not in taken:
        wanted = " or ".join(str(number) for number in taken)
        raise ConfigError(
            f"{where}: {type(loss).__name__} compares images of {wanted} planes (RGB has 3, "
            f"luma 1, CbCr 2), but here they have {planes}"
        )
