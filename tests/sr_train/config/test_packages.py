"""The project's packages win over those of a working directory, before and after they are known."""

import importlib
import sys
from pathlib import Path

import pytest

from sr_train.config import packages
from sr_train.config.packages import PLUG_INS, ROOT, claim_names, rename, rival_of


@pytest.fixture
def forgotten(monkeypatch):
    """Let no package of the names be imported yet, and none be found by the project's finder."""
    for word in [word for word in sys.modules if word.split(".")[0] in PLUG_INS]:
        monkeypatch.delitem(sys.modules, word)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p).resolve() != ROOT])
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if f is not packages._FINDER])


def write(folder, kind, name="data"):
    """Write what a user may have by the name of a package of the project."""
    if kind == "file":
        (folder / f"{name}.py").write_text("MINE = 1\n")
        return folder / f"{name}.py"
    (folder / name).mkdir()
    if kind != "folder":
        (folder / name / "__init__.py").write_text("MINE = 1\n" if kind == "package" else "")
    (folder / name / "mine.py").write_text("MINE = 1\n")
    return folder / name


KINDS = ["package", "empty", "folder", "file"]


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("kind", KINDS)
def test_the_projects_packages_win(kind, in_folder):
    for name in PLUG_INS:
        write(in_folder, kind, name)
    claim_names()
    for name in PLUG_INS:
        module = importlib.import_module(name)
        assert module.__file__ == str(ROOT / name / "__init__.py")
        assert not hasattr(module, "MINE")
    assert importlib.import_module("losses.pixel").__file__ == str(ROOT / "losses/pixel.py")


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("kind", KINDS)
def test_a_package_that_was_imported_before_stays_with_its_holder(kind, in_folder):
    place = write(in_folder, kind)
    theirs = importlib.import_module("data" if kind == "file" else "data.mine")
    with pytest.warns(UserWarning, match="from now on, `import data` is the package of") as told:
        claim_names()
    assert f"yours in {place}" in str(told[0].message)
    assert theirs.MINE == 1
    assert importlib.import_module("data").__file__ == str(ROOT / "data/__init__.py")


@pytest.mark.usefixtures("forgotten")
def test_a_package_that_imports_sr_train_while_it_is_imported_is_told(in_folder):
    place = write(in_folder, "package")
    line = "from sr_train.config.packages import claim_names\nclaim_names()\n"
    (place / "__init__.py").write_text(line)
    with pytest.raises(ImportError, match="data, which imports sr_train") as err:
        importlib.import_module("data")
    assert f"yours in {place} has the name of sr_train's own {ROOT / 'data'}" in str(err.value)


@pytest.mark.parametrize("kind", ["package", "empty", "folder"])
def test_a_module_that_only_the_users_package_has_names_both_folders(kind, in_folder):
    place = write(in_folder, kind)
    with pytest.raises(ModuleNotFoundError) as err:
        importlib.import_module("data.mine")
    assert f"No module named 'data.mine' in {ROOT / 'data'}" in str(err.value)
    assert f"yours in {place}" in str(err.value)
    assert err.value.name == "data.mine"


def test_a_module_that_nobody_has_is_told_as_ever(in_folder):
    write(in_folder, "package")
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'data\.nobodys'$"):
        importlib.import_module("data.nobodys")


def test_another_copy_of_the_project_is_no_users_package(in_folder):
    write(in_folder, "package", "sr_train")
    write(in_folder, "package")
    assert rival_of("data") is None
    assert rename("data", None) == ""


def test_a_second_claim_changes_nothing():
    before = list(sys.meta_path)
    claim_names()
    assert sys.meta_path == before
    assert before.count(packages._FINDER) == 1
