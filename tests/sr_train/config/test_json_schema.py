"""The JSON Schema for editors, held against a validator and every shipped file."""

import re
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf, SCMode

from sr_train import compose
from sr_train.api.errors import ConfigError
from sr_train.config.compose import plain
from sr_train.config.json_schema import json_schema
from sr_train.config.schema import SCHEMAS, RunConfig
from sr_train.config.sources import SHIPPED
from sr_train.config.yaml_files import read_yaml

GLOBAL = [
    path for group in ("experiment", "search", "cluster") for path in SHIPPED.glob(f"{group}/*")
]
EXPERIMENTS = sorted(path.stem for path in SHIPPED.glob("experiment/*.yaml"))


@cache
def validator(command: str = "train") -> Draft202012Validator:
    return Draft202012Validator(json_schema(command))


def faults(values: object, command: str = "train") -> list[str]:
    """Return the paths and messages of what a validator finds wrong."""
    found = validator(command).iter_errors(values)
    return [f"{'.'.join(map(str, err.absolute_path))}: {err.message}" for err in found]


def as_written(text: str, folder: Path) -> object:
    path = folder / "case.yaml"
    path.write_text(text)
    return OmegaConf.to_container(read_yaml(path), resolve=False)


@pytest.mark.parametrize("command", SCHEMAS)
def test_it_is_a_schema(command):
    Draft202012Validator.check_schema(json_schema(command))


@pytest.mark.parametrize("path", GLOBAL, ids=lambda path: path.stem)
def test_every_shipped_file_of_a_whole_config_fits_as_it_is_written(path):
    assert faults(OmegaConf.to_container(read_yaml(path), resolve=False)) == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_fits_when_it_is_composed(name):
    cfg = compose(f"experiment={name}")
    values = OmegaConf.to_container(
        cfg, resolve=False, enum_to_str=True, structured_config_mode=SCMode.DICT
    )
    assert faults(values) == []
    if not OmegaConf.missing_keys(cfg):
        assert faults(plain(cfg)) == []


@pytest.mark.parametrize("command", SCHEMAS)
def test_the_config_of_every_command_fits(command):
    more = ["experiment=quickstart"] if issubclass(SCHEMAS[command], RunConfig) else []
    cfg = compose(*more, command=command)
    values = OmegaConf.to_container(
        cfg, resolve=False, enum_to_str=True, structured_config_mode=SCMode.DICT
    )
    assert faults(values, command) == []


HEAD = "# @package _global_\ndefaults:\n  - override /arch: compact\n"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("trian: {steps: 3}", "'trian' was unexpected"),
        ("train: {stesp: 3}", "train: .*'stesp' was unexpected"),
        ("train: {steps: many}", "train.steps: 'many' does not match"),
        ("train: {steps: 1.5}", r"train.steps: 1.5 is not of type"),
        ("train: {deterministic: 3}", "train.deterministic: 3 is not of type"),
        ("train: 3", "train: 3 is not of type 'object'"),
        ("precision: {name: fp61}", "precision.name: 'fp61' is not valid"),
        ("net_g: {freeze: conv_first}", "net_g.freeze: 'conv_first' is not of type 'array'"),
        ("net_g: {freeze: [1]}", "net_g.freeze.0: 1 is not of type 'string'"),
        ("objective: {l1: {wieght: 1.0}}", "objective.l1: .*'wieght' was unexpected"),
        ("objective: {l1: {weight: big}}", "objective.l1.weight: 'big' does not match"),
        ("param_groups: [{match: a, lr: 3}]", "param_groups.0: .*'lr' was unexpected"),
        ("arch: compact", "arch: 'compact' does not match"),
        ("arch: {_target_: 3}", "arch._target_: 3 is not of type 'string'"),
        ("optimizer: [adam]", "optimizer: .* is not of type"),
        ("data: {val: {a: 3}}", "data.val.a: 3 is not of type"),
        ("plugins: mine", "plugins: 'mine' is not of type 'array'"),
    ],
)
def test_what_is_mistyped_is_found(text, place, tmp_path):
    found = faults(as_written(f"{HEAD}{text}\n", tmp_path))
    assert len(found) == 1, found
    assert re.search(place, found[0]), found


def test_defaults_are_a_list_of_choices(tmp_path):
    assert faults(as_written("defaults: {arch: compact}\n", tmp_path)) != []
    assert faults(as_written("defaults: [3]\n", tmp_path)) != []
    assert faults(as_written("defaults: [override /arch: [compact]]\n", tmp_path)) != []
    assert faults(as_written("defaults: [override /arch: mine, faces, _self_]\n", tmp_path)) == []


@pytest.mark.parametrize(
    "text", ["train: {steps: '${scale}'}", "train:\n  steps: ???", "seed: '${oc.env:SEED}'"]
)
def test_references_and_missing_values_stand_anywhere(text, tmp_path):
    assert faults(as_written(f"{text}\n", tmp_path)) == []


def test_it_says_what_each_key_is_and_what_it_is_without_a_word():
    train = json_schema()["properties"]["train"]["properties"]
    assert train["accum"]["description"].startswith("Micro-batches per step")
    assert train["accum"]["default"] == 1
    assert "default" not in train["steps"]
    objective = json_schema()["properties"]["objective"]["additionalProperties"]["properties"]
    assert "sign counts" in objective["weight"]["description"]  # of the class that it derives from


def test_choices_of_the_users_own_folder_are_offered(tmp_path):
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch/tiny.yaml").write_text("# Mine.\n")
    items = json_schema("train", tmp_path)["properties"]["defaults"]["items"]["anyOf"][1]
    (offered, _) = items["properties"]["override /arch"]["anyOf"]
    assert {"tiny", "compact"} <= set(offered["enum"])


def test_a_command_that_has_no_config():
    with pytest.raises(ConfigError, match="config schema trian: no such command; did you mean"):
        json_schema("trian")
