"""Weights split over the ranks (FSDP2), for networks whose training state fits on no single GPU.

Each rank keeps 1/N of every weight, gradient, moment and average, and gathers the weights of one
block while it computes. Stored states are whole: a run may resume in one process, or by DDP.

Reference: Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, VLDB 2023,
    https://arxiv.org/abs/2304.11277
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

_LEAST_FRACTION = 0.02
"""A block is gathered by itself where it holds at least this fraction of all weights."""


def shard_(net: nn.Module) -> None:
    """Split a network's parameters over all ranks, in place; names stay the same.

    The parameters are new objects afterwards: make optimizer and averages after it, or from them.
    """
    # It warns of writing into what a network returns; no loss here may, a test looks at each.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    least = _LEAST_FRACTION * sum(p.numel() for p in net.parameters())
    # Without a mesh FSDP takes the machine's accelerator, whatever the network lies on.
    kind = next(net.parameters()).device.type
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    for block in _blocks(net, least):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # Without it the root would hold its whole weights after a forward that no backward follows.
    fully_shard(net, mesh=mesh, reshard_after_forward=True)


def is_sharded(net: nn.Module) -> bool:
    """Tell whether a network's parameters are split over ranks."""
    return isinstance(net, FSDPModule)


def to_local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, sharing its memory; a whole tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def global_norm(parts: Sequence[Tensor], net: nn.Module) -> Tensor:
    """Return the L2 norm of tensors of which this rank holds `parts`, a scalar on the device.

    A collective where the network is split.
    """
    norm = nn.utils.get_total_norm(parts, foreach=None)
    if is_sharded(net):
        norm = norm.square()
        dist.all_reduce(norm)
        norm = norm.sqrt()
    return norm


def global_max_abs(parts: Sequence[Tensor], net: nn.Module) -> Tensor:
    """Return the largest magnitude in each tensor of which this rank holds a part, (N,).

    A collective where the network is split.
    """
    zero = torch.zeros(1, device=parts[0].device)  # stands for a part without elements
    peaks = [torch.linalg.vector_norm(p if p.numel() else zero, float("inf")) for p in parts]
    result = torch.stack([peak.float() for peak in peaks])
    if is_sharded(net):
        dist.all_reduce(result, op=dist.ReduceOp.MAX)
    return result


def fill_full_net(full_net: nn.Module, net: nn.Module) -> nn.Module:
    """Put the weights of a split network together in a plain one, and return that.

    A collective: all ranks call it.
    """
    full_net.load_state_dict(gather_full(net.state_dict()))
    return full_net


def gather_full(state: Any) -> Any:
    """Return a nested state with every split tensor put together, on the host.

    A collective where there are split tensors: all ranks call it.
    """
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        return {key: gather_full(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(gather_full(value) for value in state)
    return state


def split_like(value: Any, like: Tensor) -> Any:
    """Split a whole tensor, the same on all ranks, the way another of its shape is."""
    fits = isinstance(value, Tensor) and value.shape == like.shape
    if not (isinstance(like, DTensor) and fits) or isinstance(value, DTensor):
        return value
    placed = value.to(like.device)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)


def split_weights(weights: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Return whole weights as `net.load_state_dict` wants them; a plain network's as they are."""
    current = net.state_dict()
    return {
        name: split_like(value, current[name]) if name in current else value
        for name, value in weights.items()
    }


def split_moments(
    state: dict[int, dict[str, Any]], parameters: Sequence[Tensor]
) -> dict[int, dict[str, Any]]:
    """Return whole moments of an optimizer, by place of their parameter, split as those are."""
    return {
        place: {name: split_like(value, parameters[int(place)]) for name, value in row.items()}
        for place, row in state.items()
    }


def _blocks(net: nn.Module, least: float) -> Iterator[nn.Module]:
    """Yield the composite items of lists of layers that are large enough, none inside another."""
    for child in net.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            for item in child.children():
                large = sum(p.numel() for p in item.parameters()) >= least
                if large and any(item.children()) and type(item).forward is not nn.Module.forward:
                    yield item
        else:
            yield from _blocks(child, least)
