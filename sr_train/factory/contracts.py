"""What the program asks of each part that a config names, looked at before it is used.

A class may have every method and still not be what its place needs; that would be found in the
midst of a run. Nothing is called here but `len()` of a data set.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from torch import nn
from torch.optim import Optimizer

from sr_train.api.callback import EVENTS
from sr_train.api.dataset import TrainDataset, adopt
from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.api.logger import Logger
from sr_train.api.metric import Metric
from sr_train.utils.failures import naming


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
    base: type | None = None
    """The base class that has a default for them, if there is one."""

    def __str__(self) -> str:
        words = [f"{name} ({kind})" for name, (_, kind) in self.values.items()]
        words += [_call(name, given) for name, given in self.calls.items()]
        see = "" if self.base is None else f"; see {self.base.__module__}.{self.base.__name__}"
        return f"a {self.name} has {', '.join(words)}{see}"


def contract_of(name: str, base: type, *needs: str) -> Contract:
    """Return what a base class says of its place: its methods, with their parameters.

    Args:
        name: of the place, for messages.
        base: abstract methods are needed, and attributes that are declared as True or False and
            have no value; all others have a default.
        needs: further methods that are needed there.
    """
    calls = {
        each: tuple(list(inspect.signature(getattr(base, each)).parameters)[1:])
        for each in [*needs, *dir(base)]
        if inspect.isfunction(getattr(base, each, None)) and _is_open(each, base)
    }
    needed = [*base.__abstractmethods__, *needs]  # type: ignore[attr-defined]
    return Contract(
        name,
        {each: given for each, given in calls.items() if each in needed},
        {
            each: (bool, "True or False")
            for each, hint in get_type_hints(base).items()
            if bool in get_args(hint) and not hasattr(base, each)
        },
        {each: given for each, given in calls.items() if each not in needed},
        base,
    )


def _is_open(name: str, base: type) -> bool:
    return not name.startswith("_") or name in base.__abstractmethods__  # type: ignore[attr-defined]


METRIC = contract_of("metric", Metric)

_METHODS_OF_LOGGER = contract_of("logger", Logger)

LOGGER = Contract("logger", {**_METHODS_OF_LOGGER.calls, **_METHODS_OF_LOGGER.optional})
"""All of them are called, as every logger has the base class with the defaults."""

TRAINING_SET = contract_of("training set", TrainDataset, "sample")

VALIDATION_SET = contract_of("validation set", TrainDataset, "whole")

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
        if contract.base is not None and _is_of(contract.base, name, part):
            method = None if name in contract.calls else method
        faults += [fault] if (fault := _fault_of_call(method, name, given)) else []
    return [f"{path}: {label}: {fault} ({contract})" for fault in faults]


def _is_of(base: type, name: str, part: Any) -> bool:
    """Whether a method is that of the base class, which the part has not made its own."""
    return getattr(type(part), name, None) is getattr(base, name)


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


def checked_set(dataset: Any, path: str) -> TrainDataset:
    """Return a data set with a default for all that it may lack.

    Args:
        dataset: as it was built.
        path: config path; `data.train` is to be trained on.

    Raises:
        ConfigError: saying what it must have and lacks, or that it is empty.
    """
    check_contract(dataset, TRAINING_SET if path == "data.train" else VALIDATION_SET, path)
    with naming(path, dataset, lambda: "len()"):
        count = len(dataset)
    if count == 0:
        raise ConfigError(f"{path}: {type(dataset).__name__} is empty: its length is 0")
    return adopt(dataset)


def fingerprint_of(dataset: TrainDataset, path: str) -> str:
    """Return a data set's fingerprint.

    Raises:
        PluginError: naming a set of a user's own, where it fails.
        ConfigError: if it is no text.
    """
    with naming(path, dataset, lambda: "fingerprint()"):
        found: object = dataset.fingerprint()
    if not isinstance(found, str):
        label = type(dataset).__name__
        raise ConfigError(f"{path}: fingerprint() of {label} returned {found!r:.60}, expected text")
    return found


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
    if getattr(part.forward, "__func__", None) is nn.Module.forward:
        raise ConfigError(f"{path}: {type(part).__name__} has no forward(...)")


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
