"""What an optimizer has learnt, by the names of the parameters it is about."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from sr_train.engine.sharding import split_moments

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
