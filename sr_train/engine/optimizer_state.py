"""What an optimizer has learnt, by the names of the parameters it is about."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sr_train.engine.sharding import split_moments
from sr_train.io.weight_files import is_dense

_SET_BY_US = {"params", "lr", "initial_lr", "start"}

Numbers = dict[str, float | int | bool]


class OptimizerState:
    """Write and read the moments and counters of an optimizer.

    Moments go by the names of their parameters, so that they find them again where parameters
    were frozen, set free or put into other groups in between. Counters are the plain numbers that
    an optimizer changes in its groups by itself, as some do beside their moments: steps taken, or
    the weight of an average. Every other setting of a group is the config's.

    Args:
        optimizer: as it was made, before its first step.
        names: of the optimizer's parameters, in its order.
    """

    def __init__(self, optimizer: Optimizer, names: Sequence[str]) -> None:
        self._optimizer = optimizer
        self._names = list(names)
        self._configured = [_numbers(group) for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        moments = self._optimizer.state_dict()["state"]
        pairs = zip(self._optimizer.param_groups, self._configured, strict=True)
        return {
            "class": type(self._optimizer).__name__,
            "moments": {self._names[place]: row for place, row in moments.items()},
            "counters": [dict(_numbers(group).items() - given.items()) for group, given in pairs],
        }

    def faults(self, state: Mapping[str, Any]) -> list[str]:
        """Name the parameters whose stored moments the optimizer could not use.

        Args:
            state: as stored; that of another class is dropped and has no faults.
        """
        if state["class"] != type(self._optimizer).__name__:
            return []
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        kept: dict[int, dict[str, Any]] = {}
        faults = [f"{name}: no counter of a group" for name in self._unknown(state["counters"])]
        for name, parameter in zip(self._names, parameters, strict=True):
            row = state["moments"].get(name)
            if row:
                if parameter.ndim not in kept:
                    kept[parameter.ndim] = kept_for(self._optimizer, parameter)
                faults += [
                    f"{name}: {told}" for told in _row_faults(row, kept[parameter.ndim], parameter)
                ]
        return faults

    def _unknown(self, counters: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return what is stored as a counter and is another setting of the groups."""
        group = self._optimizer.param_groups[0]
        names = dict.fromkeys(name for row in counters for name in row)
        return [
            name
            for name in names
            if name in _SET_BY_US or not isinstance(group.get(name, 0), bool | int | float)
        ]

    def load_state_dict(self, state: Mapping[str, Any]) -> str:
        """Take up stored state where it is of the same class; say what was done."""
        optimizer, names = self._optimizer, self._names
        if state["class"] != type(optimizer).__name__:
            return f"state of the {state['class']} optimizer dropped"
        stored = state["moments"]
        rows = {at: stored[name] for at, name in enumerate(names) if name in stored}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.load_state_dict(
            {
                "state": split_moments(rows, parameters),
                "param_groups": optimizer.state_dict()["param_groups"],
            }
        )
        counters = state["counters"]
        for place, group in enumerate(optimizer.param_groups):
            group.update(counters[min(place, len(counters) - 1)])
        note = "optimizer state kept"
        if stored and len(rows) < len(names):
            note += f", {len(names) - len(rows)} of {len(names)} parameters start without"
        if len(rows) < len(stored):
            note += f", that of {len(stored) - len(rows)} other parameters dropped"
        return note


def _numbers(group: Mapping[str, Any]) -> Numbers:
    return {
        name: value
        for name, value in group.items()
        if name not in _SET_BY_US and isinstance(value, bool | int | float)
    }


def kept_for(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    """Return what an optimizer keeps for a parameter, by name, learnt from a step on another.

    The other one has as many axes, of two elements each. Where an optimizer does not take a
    step on it, nothing is returned.
    """
    probe = torch.zeros([2] * parameter.ndim, device=parameter.device, dtype=parameter.dtype)
    probe = nn.Parameter(probe)
    probe.grad = torch.zeros_like(probe)
    twin = object.__new__(type(optimizer))
    twin.__dict__.update(optimizer.__dict__)
    twin.param_groups = [{**optimizer.param_groups[0], "params": [probe]}]
    twin.state = defaultdict(dict)
    try:
        twin.step()
    except Exception:  # a user's own may want more than a gradient
        return {}
    return dict(twin.state[probe])


def _row_faults(
    row: Mapping[str, Any], kept: Mapping[str, Any], parameter: Tensor
) -> Iterator[str]:
    for key, like in kept.items():
        if key not in row:
            yield f"{key} is missing"
            continue
        found = row[key]
        if isinstance(like, Tensor) and like.ndim > 0:
            if like.shape == (2,) * parameter.ndim:
                yield from _moment_faults(key, found, parameter)
        elif isinstance(like, Tensor | int | float):
            is_tensor = isinstance(found, Tensor) and is_dense(found) and found.numel() == 1
            if not (is_tensor or isinstance(found, int | float)):
                yield f"{key} is no number"


def _moment_faults(key: str, found: Any, parameter: Tensor) -> Iterator[str]:
    fits = isinstance(found, Tensor) and is_dense(found) and found.shape == parameter.shape
    if not (fits and found.is_floating_point()):
        yield f"{key} is no tensor of shape {tuple(parameter.shape)}"
    elif found.isnan().any():
        yield f"{key} holds NaN"
