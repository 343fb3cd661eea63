"""LICENSE, CONTRIBUTING and CHANGELOG: they are whole, and name what is there."""

import hashlib
import re
import tomllib

import pytest

import sr_train
from tests.toys import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_license_is_the_standard_text():
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE"])


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_paths_that_are_named_are_there(name):
    text = (ROOT / name).read_text()
    tops = "|".join(path.name for path in ROOT.iterdir() if not path.name.startswith("."))
    found = re.findall(rf"`((?:{tops})(?:/[\w./]*)?)`", text)
    named = [path for path in found if "NAME" not in path and not re.match(r"[a-z]+$", path)]
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert named or name == "CHANGELOG.md"


def test_commands_of_the_makefile_are_there():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told = re.findall(r"^    make ([a-z -]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert {word for line in told for word in line.split("  ")[0].split()} <= set(targets)
    assert len(told) >= 3


def test_the_version_is_the_same_everywhere():
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == sr_train.__version__ == PROJECT["version"]
