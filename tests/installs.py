"""The project installed in environments of its own: as a wheel, and editable."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.toys import ROOT

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
OFFLINE = ("--no-deps", "--no-build-isolation")


@dataclass(frozen=True)
class Install:
    """An environment that the project is installed in."""

    venv: Path
    root: Path
    """The folder from which `sr_train` is to be imported there."""

    def program(self, name: str) -> Path:
        """Return the path of a console script."""
        return self.venv / "bin" / name


def copy_source(folder: Path) -> Path:
    """Copy what is built to a folder, because building leaves files behind."""
    folder.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in {".toml", ".md", ""} and not path.name.startswith("."):
            shutil.copy(path, folder)
    for name in ("sr_train", "archs", "losses", "data", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def build_wheel(folder: Path) -> Path:
    """Build the wheel in a folder, without network."""
    source = copy_source(folder / "source")
    run = [*PIP, "wheel", str(source), *OFFLINE, "-w", str(folder / "dist")]
    subprocess.run(run, check=True, cwd=folder)
    (wheel,) = (folder / "dist").glob("sr_train-*.whl")
    return wheel


def install(folder: Path, kind: str) -> Install:
    """Install the project as `wheel` or `editable`, its dependencies borrowed from this Python.

    No `.pth` file of this Python counts there, so its own editable install cannot win.
    """
    venv = folder / "venv"
    run = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
    subprocess.run(run, check=True)
    (site,) = venv.glob("lib/python3*/site-packages")
    lent = [path for path in sys.path if path.endswith("-packages")]
    (site / "lent.pth").write_text("\n".join(lent))
    what = [str(build_wheel(folder))]
    if kind == "editable":
        what = ["--editable", str(folder / "source")]
    pip = [*PIP, "--python", str(venv / "bin/python"), "install", "--ignore-installed", *what]
    subprocess.run([*pip, *OFFLINE], check=True, cwd=folder)
    return Install(venv, folder / "source" if kind == "editable" else site)
