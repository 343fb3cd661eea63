"""Components where none is expected, and all that a config may not name."""

import pytest

from sr_train.config.allowed import forbidden, misplaced
from sr_train.config.preflight import run_problems, use_problems
from sr_train.config.schema import InferConfig, RunConfig, ValidateConfig

HIDDEN = {"_target_": "os.system", "command": "true"}


def run(**more) -> RunConfig:
    parts = {"name": "x", "scale": 2, "arch": {}, "optimizer": {}, "scheduler": {}, **more}
    config = RunConfig(**parts)
    config.train.steps = 3
    return config


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (run(arch=HIDDEN), "arch"),
        (run(arch={"_target_": "archs.temporal.TemporalWindow", "net": HIDDEN}), "arch.net"),
        (run(metrics={"a": {"_target_": "sr_train.metrics.PSNR", "x": [[HIDDEN]]}}), "metrics.a.x"),
        (run(logger={"a": HIDDEN}), "logger.a"),
        (run(logger={"a": [HIDDEN]}), "logger.a[0]"),
        (run(metrics={"a": {"b": {"c": HIDDEN}}}), "metrics.a.b.c"),
        (ValidateConfig(checkpoint="x", metrics={"a": HIDDEN}), "metrics.a"),
        (InferConfig(checkpoint="x", fps=HIDDEN), "fps"),
        (InferConfig(checkpoint="x", fps=[{"a": HIDDEN}]), "fps[0].a"),
    ],
)
def test_every_node_is_held_against_the_list(config, path):
    problems = forbidden(config)
    assert len(problems) == 1
    assert problems[0].startswith(path)


@pytest.mark.parametrize("key", ["tiling", "fps"])
def test_a_component_where_none_belongs_is_told_before_work(key):
    config = InferConfig(checkpoint="x", input="a", output="b")
    if key == "tiling":
        config.tiling.tile = HIDDEN
    else:
        config.fps = HIDDEN
    place = "tiling.tile" if key == "tiling" else "fps"
    assert f"{place}: no component is expected there, found _target_=os.system" in (
        use_problems(config)
    )


def test_plug_ins_that_cannot_be_are_told_once():
    config = run(plugins=["torch", "os"], arch=HIDDEN, optimizer=HIDDEN, scheduler=HIDDEN)
    assert len(misplaced(config)) == 2
    told = [problem for problem in run_problems(config) if problem.startswith("plugins")]
    assert len(told) == 2
    assert any("'torch' cannot be opened to configs" in problem for problem in told)


def test_validate_looks_at_all_its_components_before_it_makes_one():
    config = ValidateConfig(checkpoint="x", metrics={"a": HIDDEN}, scale=2)
    config.data.val = {"main": HIDDEN}
    problems = use_problems(config)
    assert [problem.split("._target_")[0] for problem in problems] == ["data.val.main", "metrics.a"]
