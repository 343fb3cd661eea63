"""Which settings are paths, and what a path or the name of a folder may be."""

import os
from collections.abc import Callable, Iterator
from typing import Any

_SETTINGS = {
    *("checkpoint", "input", "output", "out_dir", "root", "resume", "pretrained"),
}
"""Names of settings that are paths, wherever they stand in the schema."""

_ARGUMENTS = {"gt", "lq", "root", "weights", "spynet", "calibration"}
"""Names of arguments of components that are paths, or lists of them."""

_MOST_BYTES = 200
"""Of a run's name: file systems take 255 bytes, and what lies in the folder has names, too."""


def name_problems(name: str) -> list[str]:
    """Return what keeps a run's name from being that of a folder."""
    fits = name not in {"", ".", ".."} and name.isprintable() and "/" not in name
    fits = fits and "${" not in name  # Hydra would look for what it refers to
    if fits and len(name.encode(errors="surrogateescape")) <= _MOST_BYTES:
        return []
    shown = name if len(name) <= 60 else f"{name[:57]}..."
    return [
        f"name={shown}: expected the name of a folder: printable letters without '/' and '${{', at "
        f"most {_MOST_BYTES} bytes"
    ]


def empty_paths(values: dict[str, Any]) -> Iterator[str]:
    """Yield a problem per path that is empty, which would be the working directory.

    Args:
        values: of a typed config, as plain Python.
    """
    for key, value in _paths(values, ""):
        if value == "":
            yield f"{key}: is empty; expected a path"


def with_literal_tildes(config: Any) -> None:
    """Let `~name` be a file of that name, in place, where there is no user whose home it means."""
    _change(config, lambda path: os.path.abspath(path) if _means_no_home(path) else path)


def _means_no_home(path: str) -> bool:
    return path.startswith("~") and os.path.expanduser(path) == path


def _paths(node: Any, prefix: str, inside: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (config path, value) of every path; `inside` a component, by its arguments' names."""
    for key, value in node.items():
        place = f"{prefix}{key}"
        if isinstance(value, dict):
            of_extra = prefix == "" and key == "extra"
            within = inside or "_target_" in value
            yield from (
                ((f"{place}.{name}", path) for name, path in value.items())
                if of_extra
                else _paths(value, f"{place}.", within)
            )
        elif key in (_ARGUMENTS if inside else _SETTINGS):
            yield from ((place, item) for item in (value if isinstance(value, list) else [value]))


def _change(config: Any, change: Callable[[str], str]) -> None:
    values = config if isinstance(config, dict) else vars(config)
    is_component = isinstance(config, dict)
    for key, value in values.items():
        is_path = key in (_ARGUMENTS if is_component else _SETTINGS)
        if is_path and isinstance(value, str):
            values[key] = change(value)
        elif is_path and isinstance(value, list):
            values[key] = [change(item) if isinstance(item, str) else item for item in value]
        elif key == "extra" and not is_component:
            values[key] = {name: change(path) for name, path in value.items()}
        elif isinstance(value, dict) or hasattr(value, "__dataclass_fields__"):
            _change(value, change)
