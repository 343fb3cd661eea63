"""What every network here shares: argument checks and gradient checkpointing."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sr_train.api.errors import ConfigError

ResultT = TypeVar("ResultT")

SHUFFLE_SCALES = (1, 2, 3, 4, 5, 6, 7, 8)
"""Scales of a network whose last layer is one convolution and one pixel shuffle."""


def check_choice(network: str, argument: str, found: object, valid: Sequence[object]) -> None:
    """Raise a ConfigError unless `found` is one of `valid`, type included."""
    if not any(found == choice and type(found) is type(choice) for choice in valid):
        shown = ", ".join(repr(choice) for choice in valid)
        raise ConfigError(f"{network}: {argument} must be one of {shown}; got {found!r}")


def check_count(network: str, argument: str, found: int, least: int = 1) -> None:
    """Raise a ConfigError unless `found` is an integer of at least `least`."""
    if not isinstance(found, int) or isinstance(found, bool) or found < least:
        raise ConfigError(
            f"{network}: {argument} must be an integer of at least {least}; got {found!r}"
        )


def colour_of(in_channels: int, out_channels: int) -> Literal["rgb", "y"]:
    """Return what a network of so many channels is fed: luma when it has only one."""
    return "y" if in_channels == out_channels == 1 else "rgb"


def at_least_fp32(x: Tensor) -> Tensor:
    """Return `x` as float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a region in which tensors on the device of `x` keep their own precision."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def run_block(
    block: Callable[..., ResultT], *args: Tensor | None, recompute: bool, random: bool = False
) -> ResultT:
    """Call `block(*args)`, keeping only its inputs for the backward pass if `recompute`.

    Args:
        block: module or function of tensors.
        args: its arguments.
        recompute: run the block again in the backward pass instead of storing its activations;
            has no effect where gradients are off.
        random: the block draws random numbers, which must be the same ones the second time.
    """
    if recompute and torch.is_grad_enabled():
        result: ResultT = checkpoint(block, *args, use_reentrant=False, preserve_rng_state=random)
        return result
    return block(*args)
