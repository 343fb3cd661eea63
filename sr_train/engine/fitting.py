"""Whether tensors out of a file are weights of a network: names, shapes, kinds, values."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sr_train.api.names import Argument, Describes, Shape, to_own_names
from sr_train.api.text import brief
from sr_train.io.weight_files import is_dense

_MOST_PREFIXES = 8
"""Wrappers around a network that are tried to be taken off."""


@dataclass(frozen=True)
class Fit:
    """What of a file fits a network."""

    fitting: dict[str, Tensor]
    """Under the network's own names."""
    misfits: list[str]
    """What is missing, unknown or of another shape: a phrase each."""
    spoilt: list[str]
    """What no network can use, though names and shapes fit: a phrase each."""
    hint: str | None
    """What the network's class makes of names and shapes that do not fit."""


def fit_of(
    net: nn.Module, tensors: Mapping[str, Tensor], *, values: Collection[str] | None = None
) -> Fit:
    """Compare tensors with the weights of a network, which may be on the meta device.

    Args:
        net: left as it is.
        tensors: under the network's own names, or others that it knows.
        values: names of weights whose every number is looked at, too; None: all.
    """
    wanted = {name: w for name, w in net.state_dict().items() if isinstance(w, Tensor)}
    given = _named_for(net, tensors, wanted)
    shapes = {name: _shape(value) for name, value in given.items()}
    fitting = {
        name: value
        for name, value in given.items()
        if name in wanted and shapes[name] == tuple(wanted[name].shape)
    }
    misfits = _phrases(
        ("missing in the file", (name for name in wanted if name not in given)),
        ("unknown to the network", (name for name in given if name not in wanted)),
        (
            "of another shape",
            (
                f"{name}: found {shapes[name]}, expected {tuple(wanted[name].shape)}"
                for name in wanted
                if name in given and name not in fitting
            ),
        ),
    )
    hint = _hint(net, shapes, wanted) if misfits else None
    spoilt = {
        name: told
        for name, value in fitting.items()
        if (told := _kind_fault(value, wanted[name]))
        or ((values is None or name in values) and (told := _value_fault(value, wanted[name])))
    }
    return Fit(fitting, misfits, _by_reason(spoilt), hint)


def _named_for(
    net: nn.Module, tensors: Mapping[str, Tensor], wanted: Mapping[str, object]
) -> dict[str, Tensor]:
    """Return tensors under the network's names; take off prefixes that all share, if it helps."""
    as_it_is = given = to_own_names(net, tensors)
    for _ in range(_MOST_PREFIXES):
        if given.keys() & wanted.keys():
            return given
        heads = {name.partition(".")[0] for name in tensors}
        if len(heads) != 1 or not all("." in name for name in tensors):
            break
        tensors = {name.partition(".")[2]: value for name, value in tensors.items()}
        given = to_own_names(net, tensors)
    return given if given.keys() & wanted.keys() else as_it_is


def _hint(net: nn.Module, given: Mapping[str, Shape], wanted: Mapping[str, Tensor]) -> str | None:
    """Say in which arguments of its class a network differs from the one the weights are of."""
    if not isinstance(net, Describes):
        return None
    found = net.arguments_in(given)
    here = net.arguments_in({name: tuple(value.shape) for name, value in wanted.items()})
    if found is None or here is None:
        return None
    other = {key: value for key, value in found.items() if value != here[key]}
    if not other:
        return None
    told = ", ".join(f"{key} {value} (here {here[key]})" for key, value in other.items())
    kind = type(net).__name__
    if any(isinstance(value, str) for value in other.values()):
        return f"the file is of another {kind}, which this one cannot be: {told}"
    words = " ".join(_override(key, value) for key, value in other.items())
    return f"the file is of another {kind}: {told}; for that: {words}"


def _override(key: str, value: Argument) -> str:
    """Return what sets an argument on the command line."""
    if isinstance(value, list):
        return f"'arch.{key}=[{','.join(f'{item:g}' for item in value)}]'"
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}"
    return f"scale={shown}" if key == "scale" else f"arch.{key}={shown}"


def _shape(value: Tensor) -> Shape:
    return () if value.is_nested else tuple(value.shape)


def _kind_fault(value: Tensor, wanted: Tensor) -> str | None:
    if not is_dense(value):
        kinds = {"nested": value.is_nested, "quantized": value.is_quantized}
        kinds |= {"without numbers (meta)": value.is_meta}
        return next((kind for kind, true in kinds.items() if true), "sparse")
    found, expected = _category(value.dtype), _category(wanted.dtype)
    if found == expected or (found, expected) == ("float", "int"):
        return None
    return f"{_word(value.dtype)} instead of {_word(wanted.dtype)}"


def _value_fault(value: Tensor, wanted: Tensor) -> str | None:
    """Look at what the numbers become in the network, which may hold smaller ones."""
    there = value.to(wanted.dtype)
    if there.dtype.is_floating_point:
        return None if torch.isfinite(there).all() else "NaN or infinite"
    if value.dtype.is_floating_point and not torch.equal(there.to(value.dtype), value):
        return f"{_word(value.dtype)} instead of {_word(wanted.dtype)}"
    return None


def _category(dtype: torch.dtype) -> str:
    if dtype.is_floating_point:
        return "float"
    if dtype.is_complex:
        return "complex"
    return "bool" if dtype is torch.bool else "int"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _by_reason(spoilt: Mapping[str, str]) -> list[str]:
    reasons = dict.fromkeys(spoilt.values())
    return _phrases(
        *((reason, [n for n, r in spoilt.items() if r == reason]) for reason in reasons)
    )


def _phrases(*groups: tuple[str, Iterable[str]]) -> list[str]:
    return [told for label, names in groups for told in phrase(label, list(names))]


def phrase(label: str, names: Sequence[str]) -> list[str]:
    """Return one phrase that counts names and shows the first; none for no name."""
    if not names:
        return []
    shown = ", ".join(brief(name, 120) for name in names[:5])
    return [f"{len(names)} {label}: {shown}{', ...' if len(names) > 5 else ''}"]
