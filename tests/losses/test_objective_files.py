"""The files of `configs/objective` name what is there."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

FILES = sorted((Path(__file__).parents[2] / "configs" / "objective").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_holds_one_term_with_arguments_that_exist(path):
    content = yaml.safe_load(path.read_text())
    (term,) = content.values()
    assert set(term) <= {"loss", "weight", "target", "colour", "start", "ramp"}
    assert term["weight"] != 0
    arguments = dict(term["loss"])
    module, name = arguments.pop("_target_").rsplit(".", 1)
    made = getattr(importlib.import_module(module), name)
    inspect.signature(made).bind(**arguments)
