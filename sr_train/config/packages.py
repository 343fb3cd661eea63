"""The project's own top-level packages, found from where `sr_train` itself lies.

`archs`, `losses`, `data` and `configs` are names that a working directory may hold, too, and Python
mostly looks there first. The project's own are the ones that count, in every process that has
imported `sr_train`; a user's package of the same name is named in an error, never imported halfway.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PLUG_INS = ("archs", "losses", "data", "configs")
"""What lies beside `sr_train`."""

OWN = (*PLUG_INS, "sr_train")
"""Names that no package of a user may have."""

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds all of them."""


class _OwnPackages(MetaPathFinder):
    """Finds the project's packages in `ROOT`, whatever `sys.path` holds."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the project lies; None for any other.

        Raises:
            ModuleNotFoundError: if only a user's package of the same name has such a module.
        """
        top, _, below = fullname.partition(".")
        if top not in PLUG_INS:
            return None
        if not below:
            return PathFinder.find_spec(fullname, [str(ROOT)])
        spec = PathFinder.find_spec(fullname, path)
        if spec is None:
            rival = rival_of(fullname)
            if rival is not None:
                raise ModuleNotFoundError(
                    f"No module named {fullname!r} in {ROOT / top}{rename(top, rival)}",
                    name=fullname,
                )
        return spec


_FINDER = _OwnPackages()


def claim_names() -> None:
    """Make the project's packages the ones that are imported by their names from now on.

    A user's package that was imported before by one of the names is kept by whoever holds it, and
    the next import of that name is the project's.

    Raises:
        ImportError: if a user's package of such a name is just being imported, and imports this.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    for name in PLUG_INS:
        loaded = sys.modules.get(name)
        if loaded is None or _folder_of(loaded) == ROOT / name:
            continue
        below = [word for word in sys.modules if word.startswith(f"{name}.")]
        place = _folder_of(loaded)
        if getattr(loaded.__spec__, "_initializing", False):
            raise ImportError(
                f"the module {name}, which imports sr_train, has the name of its package in "
                f"{ROOT / name}{rename(name, place)}"
            )
        if loaded.__file__ is not None or below:
            warnings.warn(
                f"from now on, `import {name}` is the package of sr_train in "
                f"{ROOT / name}{rename(name, place)}",
                stacklevel=3,
            )
        for word in (name, *below):
            del sys.modules[word]


def rival_of(dotted: str) -> Path | None:
    """Return the user's package, folder of modules or file that has a module of the project's name.

    Args:
        dotted: of the module, such as `data.faces`; a plain folder counts where it holds that.

    Returns:
        The folder of the package, or the file of a single module; None where Python finds none.
    """
    top, _, below = dotted.partition(".")
    for entry in dict.fromkeys(sys.path):
        folder = Path(entry or os.getcwd()).resolve()
        if (folder / "sr_train/__init__.py").is_file():
            continue  # the project itself, or another copy of it
        if (folder / f"{top}.py").is_file() and not below:
            return folder / f"{top}.py"
        module = folder.joinpath(top, *below.split(".")) if below else folder / top
        if module.with_suffix(".py").is_file() and below:
            return folder / top
        if module.is_dir() and any(module.glob("*.py")):
            return folder / top
    return None


def rename(name: str, rival: Path | None) -> str:
    """Return the end of a message that tells a user which folder to rename; empty without one."""
    if rival is None:
        return ""
    return f"; yours in {rival} has the name of sr_train's own {ROOT / name}: rename yours"


def _folder_of(module: ModuleType) -> Path | None:
    """Return the folder of a package, or the file of a single module."""
    if module.__file__ is not None:
        file = Path(module.__file__).resolve()
        return file.parent if hasattr(module, "__path__") else file
    places = list(getattr(module, "__path__", []))
    return Path(places[0]).resolve() if places else None
