"""Names in a state dict: what other programs call a parameter becomes a network's own name."""

from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import nn

ValueT = TypeVar("ValueT")

Shape = tuple[int, ...]
Argument = int | float | bool | list[float] | str


@runtime_checkable
class Renames(Protocol):
    """A module that knows what other programs call its parameters."""

    def own_name(self, name: str) -> str | None:
        """Return the own name for one of another program, or `name` as it is.

        None: it names no weights of this network, but says of them what is true of it.
        """


@runtime_checkable
class Describes(Protocol):
    """A network that can see from names and shapes with which arguments weights were made."""

    def arguments_in(self, shapes: Mapping[str, Shape]) -> dict[str, Argument] | None:
        """Read arguments of the network's class off names and shapes.

        Args:
            shapes: by name, in the network's own naming where it knows the names.

        Returns:
            Arguments by name, this network's where the weights do not say; text for what is no
            argument, in which weights of the class may differ all the same. None: they are not
            weights of this class.
        """


def to_own_names(net: nn.Module, state: Mapping[str, ValueT]) -> dict[str, ValueT]:
    """Return a state dict under the names that `net` and its submodules use."""
    own = dict(state)
    for place, module in net.named_modules():
        _rename(module, own, f"{place}." if place else "")
    return own


def accept_other_names(module: nn.Module) -> None:
    """Let `load_state_dict` of a `Renames` module, or of one that holds it, take other names."""
    module.register_load_state_dict_pre_hook(_rename)


def _rename(
    module: nn.Module, state: MutableMapping[str, Any], prefix: str, *unused: object
) -> None:
    if not isinstance(module, Renames):
        return
    for name in [name for name in state if name.startswith(prefix)]:
        found = module.own_name(name.removeprefix(prefix))
        if found is None:
            del state[name]
            continue
        own = prefix + found
        if own not in state:
            state[own] = state.pop(name)
