"""What the program asks of each part that a config names, looked at before it is used.

A class may have every method and still not be what its place needs; that would be found in the
midst of a run. Nothing is called here but `len()` of a data set.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sr_train.api.callback import EVENTS
from sr_train.api.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Contract:
    """What a part must have."""

    name: str
    calls: Mapping[str, tuple[str, ...]]
    """Methods, and what they are called with, by position."""
    values: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    """Attributes, and what they are: for `isinstance`, and in words."""
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Methods that may be missing; what is there must take the arguments."""

    def __str__(self) -> str:
        words = [f"{name} ({kind})" for name, (_, kind) in self.values.items()]
        words += [_call(name, given) for name, given in self.calls.items()]
        return f"a {self.name} has {', '.join(words)}"


METRIC = Contract(
    "metric", {"__call__": ("pred", "gt", "scale")}, {"higher_is_better": (bool, "True or False")}
)

LOGGER = Contract(
    "logger",
    {
        "scalars": ("values", "step"),
        "image": ("name", "pixels", "step"),
        "text": ("name", "text"),
        "close": (),
    },
)

_SET = {"__len__": (), "report": (), "fingerprint": ()}
_TOLD: dict[str, tuple[str, ...]] = {
    "warnings": ("num_samples",),
    "verify": (),
    "whole_sizes": (),
    "gt_files": (),
}

TRAINING_SET = Contract(
    "training set", {**_SET, "sample": ("epoch", "index")}, optional={**_TOLD, "batch": ("places",)}
)

VALIDATION_SET = Contract("validation set", {**_SET, "whole": ("index",)}, optional=_TOLD)

STREAM = Contract(
    "stream",
    {"__next__": (), "seek": ("position",), "close": ()},
    {"wait_seconds": (int | float, "a number")},
)

_EVENT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(EVENTS, ("run",)),
    "on_log": ("run", "window"),
    "on_validation_end": ("run", "scores"),
    "on_save": ("run", "path"),
    "on_run_end": ("run", "outcome"),
}

CALLBACK = Contract("callback", {**_EVENT, "state_dict": (), "load_state_dict": ("state",)})

SCHEDULE = Contract("schedule", {"__call__": ("step",)})


def contract_problems(part: Any, contract: Contract, path: str) -> list[str]:
    """Return what a part lacks, one line each.

    Args:
        part: as it was built.
        contract: of its place.
        path: config path, for messages.
    """
    label, faults = type(part).__name__, []
    for name, (kind, expected) in contract.values.items():
        found = getattr(part, name, None)
        if found is None:
            faults.append(f"has no {name}, expected {expected}")
        elif not isinstance(found, kind):
            faults.append(f"its {name} is {found!r:.60}, expected {expected}")
    for name, given in {**contract.calls, **contract.optional}.items():
        method = getattr(part, name, None)
        if name == "__call__" and callable(part):
            method = part  # of a function, the attribute does not say what it takes
        if method is None and name in contract.optional:
            continue
        faults += [fault] if (fault := _fault_of_call(method, name, given)) else []
    return [f"{path}: {label}: {fault} ({contract})" for fault in faults]


def check_contract(part: Any, contract: Contract, path: str) -> None:
    """Raise where a part is not what its place needs.

    Raises:
        ConfigError: saying what it lacks.
    """
    problems = contract_problems(part, contract, path)
    if problems:
        raise ConfigError("; ".join(problems))


def check_callback(callback: Any, path: str) -> None:
    """Raise where a callback would not be called as it expects, or not at all.

    Raises:
        ConfigError: saying which event does not fit, or is none.
    """
    label = type(callback).__name__
    faults = [
        f"{path}: {label}: {name} is no event{did_you_mean(name, EVENTS)}"
        for name in dir(type(callback))
        if name.startswith("on_") and name not in EVENTS
    ]
    for name, given in CALLBACK.calls.items():
        fault = _fault_of_call(getattr(callback, name, None), name, given)
        faults += [f"{path}: {label}: {fault}"] if fault else []
    if faults:
        raise ConfigError("; ".join(faults))


def check_set(dataset: Any, path: str) -> None:
    """Raise where a data set lacks something, or is empty.

    Args:
        dataset: as it was built.
        path: config path; `data.train` is to be trained on.

    Raises:
        ConfigError: saying what it lacks.
    """
    check_contract(dataset, TRAINING_SET if path == "data.train" else VALIDATION_SET, path)
    count = len(dataset)
    if count == 0:
        raise ConfigError(f"{path}: {type(dataset).__name__} is empty: its length is 0")


def check_kind(part: Any, kind: type, path: str) -> None:
    """Raise where a part is no object of a class.

    Raises:
        ConfigError: saying what it is instead.
    """
    if not isinstance(part, kind):
        found = part.__name__ if isinstance(part, type) else type(part).__name__
        raise ConfigError(f"{path}: {found} is no {_WORDS.get(kind, kind.__name__)}")


def check_module(part: Any, path: str) -> None:
    """Raise where a part is no module, or one that was never set up.

    Raises:
        ConfigError: saying what it is instead.
    """
    check_kind(part, nn.Module, path)
    if "_parameters" not in vars(part):
        raise ConfigError(
            f"{path}: {type(part).__name__} is not set up; its __init__ must call "
            "super().__init__() first"
        )


_WORDS = {nn.Module: "torch.nn.Module", Optimizer: "torch.optim.Optimizer"}


def _fault_of_call(method: Callable[..., Any] | None, name: str, given: tuple[str, ...]) -> str:
    if not callable(method):
        return f"has no {_call(name, given)}"
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return ""  # a builtin, which does not say what it takes
    try:
        signature.bind(*given)
    except TypeError as err:
        return f"its {name}{signature} is called as {_call(name, given)}: {err}"
    return ""


def _call(name: str, given: tuple[str, ...]) -> str:
    return f"{name}({', '.join(given)})"
