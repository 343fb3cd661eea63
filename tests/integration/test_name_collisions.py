"""A working directory may hold `data`, `losses`, `archs`, `configs`: nothing of it breaks a run.

`python -c` stands for a notebook: both look into the working directory first, by an empty path.
"""

import os
import subprocess
from pathlib import Path
from textwrap import indent

import pytest

from tests.installs import Install, install
from tests.toys import fill, toy_words

pytestmark = pytest.mark.slow

NAMES = ("archs", "losses", "data", "configs")

IMPORTS = """
import sr_train, archs.compact, losses.pixel, data.clips, configs
for module in (sr_train, archs, losses, data, configs):
    print(module.__file__)
"""

TRAINING = """
import multiprocessing, sys
if METHOD:
    multiprocessing.set_start_method(METHOD)
from sr_train.cli.entry import main
sys.argv[1:] = WORDS
sys.exit(main())
"""

WAYS = ["module", "program", "notebook", "spawn", "forkserver", "torchrun", "pytest"]


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, tmp_path_factory) -> Install:
    return install(tmp_path_factory.mktemp(request.param), request.param)


def litter(folder: Path, kind: str) -> None:
    """Write what a user may have by the names of the project's packages."""
    for name in NAMES:
        if kind == "file":
            (folder / f"{name}.py").write_text("raise SystemExit('a foreign module')\n")
            continue
        (folder / name).mkdir()
        (folder / name / "photo.png").write_bytes(b"")
        if kind != "folder":
            text = "" if kind == "empty" else "raise SystemExit('a foreign package')\n"
            (folder / name / "__init__.py").write_text(text)
    (folder / "sr_train").mkdir()


def run(folder: Path, *words: str | Path) -> str:
    """Run the environment's Python, or a program of it; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.parametrize("kind", ["package", "empty", "folder", "file"])
def test_a_notebook_finds_the_projects_packages(installed, kind, tmp_path):
    litter(tmp_path, kind)
    found = run(tmp_path, installed.program("python"), "-c", IMPORTS)
    names = ("sr_train", *NAMES)
    assert found.split() == [str(installed.root / name / "__init__.py") for name in names]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_training_takes_the_projects_packages(installed, way, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    fill(folder / "gt")
    fill(folder / "val", 1, (40, 48), first_seed=7)
    litter(folder, "package")
    words = ["train", *toy_words(folder), "train.steps=2", "data.stream.num_workers=1"]
    python = installed.program("python")
    typed = {
        "module": [python, "-m", "sr_train", *words],
        "program": [installed.program("sr-train"), *words],
        "torchrun": [
            *(python, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"),
            *("-m", "sr_train", *words),
        ],
        "pytest": [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
    }
    method = way if way in {"spawn", "forkserver"} else ""
    script = TRAINING.replace("METHOD", repr(method)).replace("WORDS", repr(words))
    if way == "pytest":
        body = indent(IMPORTS, "    ")
        (folder / "test_mine.py").write_text(f"def test():\n{body}")
    run(folder, *typed.get(way, [python, "-c", script]))
    weights = folder / "runs/toy/checkpoints/last.safetensors"
    assert weights.is_file() or way == "pytest"


def test_a_users_class_in_a_package_of_such_a_name_is_told_with_both_folders(installed, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/faces.py").write_text("raise SystemExit('a foreign module')\n")
    words = ["check", *toy_words(tmp_path), "data.train._target_=data.faces.FaceSet"]
    done = subprocess.run(
        [str(installed.program("python")), "-m", "sr_train", *words],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done
    told = (
        f"yours in {tmp_path / 'data'} has the name",
        f"{installed.root / 'data'}: rename yours",
    )
    assert all(part in done.stderr for part in told), done.stderr
