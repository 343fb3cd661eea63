"""What the step takes from parts that a config names: checked, and named where it is not right."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sr_train.api.errors import PluginError
from sr_train.engine.distributed import fault_of_ranks
from sr_train.utils.failures import naming


def called(net: nn.Module, image: Tensor, where: str, *, with_features: bool = False) -> Any:
    """Return what a network makes of an input.

    Args:
        net: the network, or its distributed wrapper.
        image: its input.
        where: config path of the network.
        with_features: ask a discriminator for its features, too.

    Raises:
        PluginError: naming network, input and exception, where it raises one.
    """
    part = getattr(net, "module", net)

    def given() -> str:
        return f"an input of {shape_of(image)}"

    with naming(where, part, given, lambda err: fault_of_ranks(err) is not None):
        return net(image, with_features=True) if with_features else net(image)


def checked_output(made: Any, shape: Sequence[int], net: nn.Module, fed: Tensor) -> Tensor:
    """Return the output of a generator, which must be a tensor of a shape.

    Raises:
        PluginError: saying what it is instead.
    """
    label = type(getattr(net, "module", net)).__name__
    if not isinstance(made, Tensor):
        raise PluginError(
            f"arch: {label} returned {kind_of(made)} for {shape_of(fed)}; expected one tensor "
            f"{tuple(shape)}"
        )
    if tuple(made.shape) != tuple(shape) or not made.is_floating_point():
        raise PluginError(
            f"arch: {label} made {shape_of(made)} of {shape_of(fed)}; expected {tuple(shape)} of "
            "a floating dtype"
        )
    return made


def checked_logits(made: Any, net: nn.Module, fed: Tensor) -> Any:
    """Return what a discriminator makes: a tensor, or a sequence of tensors.

    Raises:
        PluginError: saying what it is instead.
    """
    parts = [made] if isinstance(made, Tensor) else made
    fits = isinstance(parts, list | tuple) and len(parts) > 0
    if not fits or not all(isinstance(p, Tensor) and p.is_floating_point() for p in parts):
        label = type(getattr(net, "module", net)).__name__
        raise PluginError(
            f"discriminator.arch: {label} returned {kind_of(made)} for {shape_of(fed)}; expected "
            "a tensor of logits, or a list of tensors"
        )
    return made


def checked_features(made: Any, net: nn.Module, fed: Tensor) -> tuple[Any, Sequence[Tensor]]:
    """Return logits and features of a discriminator that was asked for both.

    Raises:
        PluginError: saying what it returned instead.
    """
    if not isinstance(made, list | tuple) or len(made) != 2:
        raise PluginError(
            f"discriminator.arch: {type(net).__name__} returned {kind_of(made)} for "
            "with_features=True; expected (logits, features)"
        )
    logits, features = made
    if not isinstance(features, list | tuple) or not all(isinstance(f, Tensor) for f in features):
        raise PluginError(
            f"discriminator.arch: {type(net).__name__} returned {kind_of(features)} for its "
            "features; expected a list of tensors"
        )
    return checked_logits(logits, net, fed), features


def kind_of(value: Any) -> str:
    """Return in words what a value is."""
    if isinstance(value, Tensor):
        return f"a tensor {shape_of(value)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(str, list(value)[:5]))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing (None)" if value is None else f"{type(value).__name__} {value!r}"[:80]


def shape_of(tensor: Tensor) -> str:
    """Return shape and dtype of a tensor."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
