"""Whether a training state has every part that a resume reads, each of its kind."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_train.api.errors import CheckpointError
from sr_train.api.text import brief
from sr_train.engine.adaptive import ADAPTIVE_PRECISION
from sr_train.engine.precision import DTYPES
from sr_train.io.weight_files import is_dense

_MOST_STEPS = 10**8
"""Beyond any run; a schedule is laid out over twice as many steps as were taken."""

_MOST_SHOWN = 4

_PARTS = frozenset({"net_g", "generator", "card", "callbacks", "policies", "random", "config"})


def is_state(content: Any) -> bool:
    """Tell a training state of this program, perhaps without a part, from what others save."""
    return isinstance(content, dict) and len(_PARTS & content.keys()) >= 3


def check_state(state: Mapping[str, Any], path: Path) -> None:
    """Raise where a part of a training state is missing or of another kind.

    Whether it fits a model is another question, see `sr_train.engine.state_fit`.

    Raises:
        CheckpointError: naming the parts.
    """
    faults = _faults(state)
    if faults:
        more = len(faults) - _MOST_SHOWN
        shown = [*faults[:_MOST_SHOWN], *([f"... and {more} more"] if more > 0 else [])]
        raise CheckpointError(f"{path}: no whole training state: {'; '.join(shown)}")


def _faults(state: Mapping[str, Any]) -> list[str]:
    newer = {key: rule for key, rule in _NEWER.items() if key in state}
    faults = _parts(state, "", {**_STATE, **newer})
    if faults:
        return faults
    faults += _learner(state["generator"], "generator")
    faults += _parts(state["card"], "card.", _CARD)
    for name in ("ema", "swa"):
        if state[name] is not None:
            faults += _parts(state[name], f"{name}.", _AVERAGE)
    if state["adversary"] is not None:
        found = _parts(state["adversary"], "adversary.", _ADVERSARY)
        faults += found or _learner(state["adversary"]["learner"], "adversary.learner")
    if ADAPTIVE_PRECISION in state["callbacks"]:
        kept = state["callbacks"][ADAPTIVE_PRECISION]
        faults += _parts(kept, f"callbacks.{ADAPTIVE_PRECISION}.", _ADAPTIVE_PRECISION)
    if not faults and state["generator"]["steps"] != state["step"]:
        faults.append(f"generator.steps: found {state['generator']['steps']}, step {state['step']}")
    return faults


def _learner(state: Mapping[str, Any], where: str) -> list[str]:
    faults = _parts(state, f"{where}.", _LEARNER)
    if faults:
        return faults
    faults += _parts(state["optimizer"], f"{where}.optimizer.", _OPTIMIZER)
    faults += _parts(state["scaler"], f"{where}.scaler.", _SCALER)
    applied, steps = int(state["applied_steps"]), state["steps"]
    if not 0 <= applied <= steps:
        faults.append(f"{where}.applied_steps: found {applied}, expected 0 to {steps}")
    return faults


Test = Callable[[Any], bool]
Rules = Mapping[str, tuple[Test, str]]


def _parts(state: Mapping[str, Any], where: str, rules: Rules) -> list[str]:
    faults = []
    for key, (fits, expected) in rules.items():
        if key not in state:
            faults.append(f"{where}{key}: missing, expected {expected}")
        elif not fits(state[key]):
            faults.append(f"{where}{key}: found {_told(state[key])}, expected {expected}")
    return faults


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor"
    if isinstance(value, str | int | float | None):
        return brief(repr(value) if isinstance(value, str) else value, 40)
    return f"a {type(value).__name__}"


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_STEPS


def _is_interval(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _is_dicts(value: Any) -> bool:
    return _is_dict(value) and all(_is_dict(item) for item in value.values())


def _is_tensors(value: Any) -> bool:
    """Tell a state dict; what a module keeps as `_extra_state` may be anything."""
    if not _is_dict(value):
        return False
    weights = [item for name, item in value.items() if not name.endswith("_extra_state")]
    return bool(weights) and all(map(_is_weight, weights))


def _is_weight(value: Any) -> bool:
    return isinstance(value, Tensor) and is_dense(value)


def _is_scalar(value: Any) -> bool:
    one = _is_weight(value) and value.numel() == 1 and not value.is_complex()
    return one and bool(torch.isfinite(value).all())


def _is_whole(value: Any) -> bool:
    return _is_scalar(value) and not value.is_floating_point()


def _is_config(value: Any) -> bool:
    """Tell a config: plain values under text at any depth, and the parts that are compared."""
    parts = isinstance(value, dict) and isinstance(value.get("discriminator"), dict)
    return parts and "arch" in value["discriminator"] and _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_dict(value) and all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    small = not isinstance(value, int) or value.bit_length() < 64
    return small and (value is None or isinstance(value, str | int | float))


def _is_arguments(value: Any) -> bool:
    return isinstance(value, dict) and _is_plain(value)


def _is_best(value: Any) -> bool:
    return _is_dict(value) and all(
        best is None or type(best) in (int, float) for best in value.values()
    )


def _is_window(value: Any) -> bool:
    if value == {}:
        return True
    parts = _is_dicts(value) and value.keys() == {"values", "weights"}
    return (
        parts
        and _holds_lists(value["values"], lambda each: isinstance(each, float))
        and _holds_lists(value["weights"], _is_weight)
    )


def _holds_lists(value: Mapping[str, Any], fits: Test) -> bool:
    return all(isinstance(found, list) and all(map(fits, found)) for found in value.values())


def _is_lines(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_counters(value: Any) -> bool:
    numbers = (bool, int, float)
    return (
        isinstance(value, list)
        and bool(value)
        and all(map(_is_dict, value))
        and all(isinstance(item, numbers) for group in value for item in group.values())
    )


def _is_random(value: Any) -> bool:
    """Tell states of generators, by putting them into generators that nobody draws from."""
    return isinstance(value, list) and bool(value) and all(map(_is_random_of_rank, value))


def _is_random_of_rank(value: Any) -> bool:
    try:
        version, internal, gauss = value["python"]
        random.Random().setstate((version, tuple(internal), gauss))
        np.random.RandomState().set_state(tuple(value["numpy"]))
        torch.Generator().set_state(value["torch"])
        cuda = value["cuda"]
        return isinstance(cuda, list) and all(state.dtype is torch.uint8 for state in cuda)
    except Exception:  # each of them raises what it likes
        return False


def _optional(fits: Test) -> Test:
    return lambda value: value is None or fits(value)


_WHOLE = (_is_count, "a whole number from 0 up")
_NAMED = (_is_dict, "a dict with text for keys")
_TENSORS = (_is_tensors, "tensors by their names")
_SCALAR = (_is_scalar, "one number in a tensor")

_STATE: Rules = {
    "step": _WHOLE,
    "net_g": _TENSORS,
    "generator": _NAMED,
    "ema": (_optional(_is_dict), "a dict with text for keys, or None"),
    "swa": (_optional(_is_dict), "a dict with text for keys, or None"),
    "adversary": (_optional(_is_dict), "a dict with text for keys, or None"),
    "card": _NAMED,
    "config": (_is_config, "a config with its discriminator"),
    "best": (_is_best, "numbers by the names of metrics"),
    "callbacks": (_is_dicts, "dicts by their names"),
    "precision": (lambda value: _is_text(value) and value in DTYPES, f"one of {', '.join(DTYPES)}"),
    "random": (_is_random, "states of random generators"),
}

_NEWER: Rules = {
    "healthy": (_optional(_is_count), "a whole number from 0 up, or None"),
    "awaiting": (_optional(_is_count), "a whole number from 0 up, or None"),
    "validated": (lambda value: isinstance(value, bool), "True or False"),
    "window": (_is_window, "numbers and weights of a log window"),
}
"""Parts that states of before lack."""

_LEARNER: Rules = {
    "steps": _WHOLE,
    "applied_steps": (_is_whole, "a whole number in a tensor"),
    "optimizer": _NAMED,
    "scaler": _NAMED,
    "skipped_in_row": _SCALAR,
}

_OPTIMIZER: Rules = {
    "class": (_is_text, "the name of a class"),
    "moments": (_is_dicts, "dicts by the names of parameters"),
    "counters": (_is_counters, "one dict of numbers for each group"),
}

_SCALER: Rules = {
    "dynamic": (lambda value: isinstance(value, bool), "True or False"),
    **dict.fromkeys(("scale", "good_steps", "num_growths", "num_backoffs"), _SCALAR),
}

_AVERAGE: Rules = {"net": _TENSORS, "num_updates": _SCALAR}

_ADVERSARY: Rules = {
    "net": _TENSORS,
    "learner": _NAMED,
    "interval": (_is_interval, "a whole number from 1 up"),
}

_CARD: Rules = {
    "architecture": (_is_text, "the dotted name of a class"),
    "arguments": (_is_arguments, "plain values by their names"),
    "scale": (_is_interval, "a whole number from 1 up"),
}

_ADAPTIVE_PRECISION: Rules = {
    "levels": (_is_lines, "names of precisions"),
    **dict.fromkeys(("level", "bad_windows", "good_windows", "good_windows_needed"), _WHOLE),
    "changes": (_is_lines, "what was changed"),
}
