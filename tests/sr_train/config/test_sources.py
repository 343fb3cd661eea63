"""A user's own configs beside the shipped ones."""

from pathlib import Path

import pytest
from hydra.types import RunMode

from sr_train.api.errors import ConfigError
from sr_train.config.loader import ComposeError, Loader
from sr_train.config.sources import SHIPPED


def experiment(folder: Path, text: str, name: str = "experiment/case.yaml") -> Path:
    path = folder / "mine" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder / "mine"


def composed(config_dir: Path, *words: str):
    return Loader(config_dir).load_configuration("train", list(words), RunMode.RUN)


def fault(config_dir: Path, *words: str) -> str:
    with pytest.raises(ComposeError) as err:
        composed(config_dir, *words)
    return str(err.value.cause)


GLOBAL = "# @package _global_\n"


def test_an_own_experiment_is_found(tmp_path):
    folder = experiment(tmp_path, f"{GLOBAL}seed: 7\n")
    assert composed(folder, "+experiment=case").seed == 7


def test_a_folder_that_is_none():
    with pytest.raises(ConfigError, match="--config-dir nowhere: no such folder"):
        Loader(Path("nowhere"))


@pytest.mark.parametrize("group", ["experiment", "search", "cluster"])
def test_a_first_line_that_is_missing_is_told_as_that(tmp_path, group):
    folder = experiment(tmp_path, "name: x\nseed: 7\n", f"{group}/case.yaml")
    text = fault(folder, f"+{group}=case")
    assert text.startswith(f"{folder}/{group}/case.yaml: its first line is missing: # @package _gl")


def test_the_first_line_of_a_data_set_too(tmp_path):
    folder = experiment(tmp_path, "train: {gt: x}\n", "dataset/case.yaml")
    assert "its first line is missing: # @package data" in fault(folder, "dataset=[case]")


def test_a_comment_before_the_first_line_is_no_first_line(tmp_path):
    folder = experiment(tmp_path, f"# mine\n{GLOBAL}seed: 7\n")
    assert "its first line is missing" in fault(folder, "+experiment=case")


@pytest.mark.parametrize(
    "defaults", ["null", "arch", "{a: b}", "[1]", "[[a]]", "[{a: 1}]", "[{a: [1]}]", "[{}]", "???"]
)
def test_defaults_that_are_none(tmp_path, defaults):
    folder = experiment(tmp_path, f"{GLOBAL}defaults: {defaults}\n")
    text = fault(folder, "+experiment=case")
    assert "case.yaml: defaults" in text
    assert "expected a list, such as [override /arch: compact]" in text


@pytest.mark.parametrize(
    "defaults",
    [
        "[case]",
        "[/experiment/case]",
        "[override /arch: nope]",
        "[override /nope: x]",
        "[/arch: no]",
    ],
)
def test_defaults_that_lead_nowhere_are_a_users(tmp_path, defaults):
    folder = experiment(tmp_path, f"{GLOBAL}defaults: {defaults}\n")
    assert fault(folder, "+experiment=case")


@pytest.mark.parametrize("place", ["../outside", "/outside", "../../mine/../outside"])
def test_a_config_outside_of_the_folders_is_not_read(tmp_path, place):
    (tmp_path / "outside.yaml").write_text(f"{GLOBAL}seed: 7\n")
    absolute = place.replace("/outside", str(tmp_path / "outside")) if place[0] == "/" else place
    folder = experiment(tmp_path, f"{GLOBAL}defaults: [{absolute}]\n")
    assert "Could not load" in fault(folder, "+experiment=case")


def test_a_file_that_a_shipped_one_hides_is_told(tmp_path):
    folder = experiment(tmp_path, f"{GLOBAL}seed: 7\n", "experiment/quickstart.yaml")
    text = fault(folder, "+experiment=quickstart")
    assert text.startswith(f"{folder}/experiment/quickstart.yaml: the shipped config of that name")
    same = (SHIPPED / "experiment/quickstart.yaml").read_text()
    experiment(tmp_path, same, "experiment/quickstart.yaml")
    assert composed(folder, "+experiment=quickstart").name == "quickstart"


def test_a_file_cannot_take_the_place_of_the_schema(tmp_path):
    folder = experiment(tmp_path, "nonsense: 1\n", "schema_train.yaml")
    assert "Error merging 'schema_train' with schema" in fault(folder)
