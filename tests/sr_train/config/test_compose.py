"""References, types and missing values of a composed config, told in plain words."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from sr_train.api.errors import Problems
from sr_train.config.compose import lenient, typed
from sr_train.config.schema import RunConfig
from tests import configs

BASE = ["+experiment=quickstart"]

INTERNALS = re.compile(
    r"[A-Z]\w+(?:Config|Error|Exception)\b|NoneType|Hydra[A-Z]|object_type|<class"
)


def raw(*words: str):
    return configs.raw(*BASE, *words)


def problems_of(cfg) -> list[str]:
    with pytest.raises(Problems) as err:
        typed(cfg, RunConfig)
    assert not INTERNALS.search(str(err.value)), str(err.value)
    return err.value.problems


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["seed=${nope}"], "seed=${nope}: refers to a key that does not exist"),
        (["seed=${nope.deeper}"], "seed=${nope.deeper}: refers to a key that does not exist"),
        (["name=${name}"], "name=${name}: refers to itself"),
        (["seed=${scale}", "scale=${seed}"], "scale=${seed}: refers to itself"),
        (["train.steps=${name}"], "train.steps=${name}: expected a whole number"),
        (["discriminator.strong=${arch}"], "discriminator.strong=${arch}: expected a number"),
        (
            ["precision.name=${name}"],
            "precision.name=${name}: expected one of auto, fp32, bf16, fp",
        ),
        (["seed=${hydra:nope}"], "seed=${hydra:nope}: "),
        (["seed=${nope:1}"], "seed=${nope:1}: cannot be resolved: Unsupported interpolation type"),
        (
            ["seed=${oc.env:NO_SUCH_VARIABLE}"],
            "seed=${oc.env:NO_SUCH_VARIABLE}: cannot be resolved",
        ),
        (["data.batch_size=${train.accum}", "train.accum=${data.batch_size}"], "refers to itself"),
        (["+train.speed=1"], "train.speed: no such key; valid: accum, "),
    ],
)
def test_what_does_not_resolve_is_told(words, problem):
    assert any(problem in each for each in problems_of(raw(*words)))


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (
            "objective.charbonnier",
            "${name}",
            "objective.charbonnier=quickstart: expected a mapping",
        ),
        ("tiling", "${ema}", "tiling={enabled: true, decay: 0.999}: expected a mapping"),
        ("net_g.freeze", "${arch}", "net_g.freeze={"),
    ],
)
def test_a_reference_that_makes_another_kind_of_a_value_is_told(key, value, problem):
    cfg = raw()
    OmegaConf.update(cfg, key, value, force_add=True)
    assert any(problem in each for each in problems_of(cfg))


@pytest.mark.parametrize("word", ["+arch.x=${arch}", "+data.train.x=${data}", "+arch.x=[${arch}]"])
def test_a_config_that_holds_itself_ends(word):
    assert any("refers to itself" in each for each in problems_of(raw(word)))


def test_references_cannot_make_a_config_grow_without_end():
    cfg = raw()
    with open_dict(cfg.arch):
        cfg.arch.a0 = [1] * 9
        for number in range(1, 9):
            cfg.arch[f"a{number}"] = [f"${{arch.a{number - 1}}}"] * 9
    assert any("holds too much" in each for each in problems_of(cfg))


def test_all_of_them_are_told_together():
    cfg = raw("seed=${nope}", "train.steps=${name}", "+x=1", "data.train.gt=???")
    assert len(problems_of(cfg)) >= 4


def test_what_was_taken_out_is_missing():
    cfg = raw("~scale", "~name")
    _, problems = lenient(cfg, RunConfig)
    assert "scale: no value; set scale=... on the command line" in problems
    assert "name: no value; set name=... on the command line" in problems


def test_a_tilde_that_means_no_home_is_a_letter():
    config = typed(raw("data.train.gt='~no such user/x'", "data.root='~/sets'"), RunConfig)
    assert config.data.train["gt"] == str(Path.cwd() / "~no such user/x")
    assert config.data.root == "~/sets"
