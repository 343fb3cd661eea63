"""How a network of anybody's is called: named where it fails, its output checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sr_train.api.errors import PluginError
from sr_train.api.network import NetSpec
from sr_train.ops.padding import pad_to
from sr_train.utils.failures import naming


def inner(net: nn.Module) -> nn.Module:
    """Return the network itself, whatever wraps it for several processes."""
    found: nn.Module = net.module if isinstance(net, DistributedDataParallel) else net
    return found


def call_network(
    net: nn.Module,
    fed: Tensor,
    where: str = "arch",
    passes: Callable[[Exception], bool] = lambda _: False,
    **options: bool,
) -> Any:
    """Return what a network makes of an input.

    Args:
        net: the network, or its distributed wrapper.
        fed: its input.
        where: config path of the network.
        passes: whether an exception is raised as it is, see `naming`.
        options: further arguments.

    Raises:
        PluginError: naming network, input and exception, where it raises one.
    """
    with naming(where, inner(net), lambda: f"an input of {shape_of(fed)}", passes):
        return net(fed, **options)


def run_generator(
    net: nn.Module,
    lq: Tensor,
    spec: NetSpec,
    call: Callable[[nn.Module, Tensor], object] = call_network,
) -> Tensor:
    """Return a generator's prediction for an input of any size.

    Where the network does not pad inside, the input is mirrored at its right and bottom, and the
    prediction is cut.

    Args:
        net: the generator, or its distributed wrapper.
        lq: (..., C, h, w) as the network takes it.
        spec: of the network.
        call: how it is called.

    Returns:
        (..., out_channels, h * scale, w * scale), of the dtype the network makes.

    Raises:
        PluginError: naming the network: it failed, or returned something else.
    """
    fed = padded(lq, spec)
    sides = [side * spec.scale for side in fed.shape[-2:]]
    made = checked_output(call(net, fed), (*fed.shape[:-3], spec.out_channels, *sides), net, fed)
    if fed is lq:
        return made
    height, width = (side * spec.scale for side in lq.shape[-2:])
    return made[..., :height, :width]


def padded(lq: Tensor, spec: NetSpec) -> Tensor:
    """Return an input of a size that the network takes: itself, or mirrored at right and bottom."""
    return lq if spec.pads_inside else pad_to(lq, spec.size_multiple, spec.min_size)


def checked_output(made: Any, shape: Sequence[int], net: nn.Module, fed: Tensor) -> Tensor:
    """Return the output of a generator, which must be a tensor of a shape.

    Raises:
        PluginError: saying what it is instead.
    """
    label = type(inner(net)).__name__
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


def kind_of(value: Any) -> str:
    """Return in words what a value is."""
    if isinstance(value, Tensor):
        return f"a tensor {shape_of(value)}"
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} {value.dtype}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(str, list(value)[:5]))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing (None)" if value is None else f"{type(value).__name__} {value!r}"[:80]


def shape_of(tensor: Tensor) -> str:
    """Return shape and dtype of a tensor."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
