"""The program's own top-level packages, found from where `sr_train` itself lies.

`archs`, `losses`, `data` and `configs` are names that a working directory may hold, too, and
`python -m` looks there first. The program's own are the ones that count.
"""

import importlib.util
import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

OWN = ("archs", "losses", "data", "configs", "sr_train")
"""Names that no package of a user may have."""

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds all of them."""


@cache
def own_packages() -> None:
    """Make the program's own packages the ones that are imported by these names."""
    for name in OWN:
        loaded = sys.modules.get(name)
        if loaded is not None and _place(loaded) == ROOT / name:
            continue
        for foreign in [word for word in sys.modules if word.split(".")[0] == name]:
            del sys.modules[foreign]
        if shadowing(name) is not None and sys.path[0] != str(ROOT):
            sys.path.insert(0, str(ROOT))  # children that start afresh look there
        spec = PathFinder.find_spec(name, [str(ROOT)])
        assert spec is not None
        assert spec.loader is not None, f"{ROOT / name} has no __init__.py"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


def shadowing(name: str) -> Path | None:
    """Return the folder of another package of that name which Python would find first."""
    spec = PathFinder.find_spec(name, [path for path in sys.path if path != str(ROOT)])
    if spec is None or spec.origin is None:
        return None  # a folder without __init__.py shadows nothing
    place = Path(spec.origin).resolve().parent
    return None if place == ROOT / name else place


def _place(module: ModuleType) -> Path | None:
    return None if module.__file__ is None else Path(module.__file__).resolve().parent
