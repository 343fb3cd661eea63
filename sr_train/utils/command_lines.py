"""Command lines and paths as a person standing in the working directory would type them."""

import shlex
import shutil
import sys
from pathlib import Path


def shown_path(path: Path) -> Path:
    """Return a path relative to the working directory, where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def program(name: str) -> str:
    """Return what to type for a program beside this Python: its name, where a shell finds it."""
    folder = Path(sys.executable).parent
    if Path(shutil.which("python") or "").parent == folder:
        return name
    return shlex.quote(str(shown_path(folder) / name))


def command_line(*words: str) -> str:
    """Return the line of one of this program's commands, quoted for a shell."""
    return f"{program('python')} -m sr_train {shlex.join(words)}"
