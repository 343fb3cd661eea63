"""Numbers of a config that make no sense are told by their path."""

import pytest

from sr_train.config.paths import name_problems
from sr_train.config.preflight import run_problems, use_problems
from sr_train.config.schema import InferConfig, RunConfig, TilingConfig


def problems(**tiling):
    return use_problems(InferConfig(tiling=TilingConfig(**tiling)))


@pytest.mark.parametrize(
    "tiling",
    [
        {},
        {"tile": None, "frames": None},
        {"tile": 64, "overlap": 0, "frames": 12, "frame_overlap": 0},
    ],
)
def test_tiling_that_makes_sense(tiling):
    assert problems(**tiling) == []


@pytest.mark.parametrize(
    ("tiling", "start"),
    [
        ({"tile": 0}, "tiling.tile=0: expected auto, null, or a number of LQ pixels"),
        ({"overlap": -1}, "tiling.overlap=-1: expected null"),
        ({"frames": "whole"}, "tiling.frames=whole: expected auto, null, or a number of frames"),
        ({"frames": 0}, "tiling.frames=0"),
        ({"frames": True}, "tiling.frames=True"),
        ({"frame_overlap": -2}, "tiling.frame_overlap=-2: expected null or a number of frames"),
        ({"tile_batch": 0}, "tiling.tile_batch=0"),
    ],
)
def test_tiling_that_makes_none(tiling, start):
    (problem,) = problems(**tiling)
    assert problem.startswith(start)


def run(**more) -> RunConfig:
    parts = {"name": "x", "scale": 2, "arch": {}, "optimizer": {}, "scheduler": {}}
    config = RunConfig(**parts)
    config.train.steps = 3
    config.data.train = {"_target_": "data.images.ImageDataset", "gt": "a", "scale": 2}
    for key, value in more.items():
        setattr(config, key, value)
    return config


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda config: config.data.train.update(gt=""), "data.train.gt"),
        (lambda config: config.data.train.update(gt=["a", ""]), "data.train.gt"),
        (lambda config: config.data.train.update(lq=""), "data.train.lq"),
        (lambda config: config.data.val.update(a={"_target_": "x", "gt": ""}), "data.val.a.gt"),
        (lambda config: setattr(config.data, "root", ""), "data.root"),
        (lambda config: setattr(config, "out_dir", ""), "out_dir"),
        (lambda config: setattr(config, "resume", ""), "resume"),
        (lambda config: setattr(config.net_g, "pretrained", ""), "net_g.pretrained"),
    ],
)
def test_an_empty_path_is_never_the_working_directory(change, key):
    config = run()
    change(config)
    assert f"{key}: is empty; expected a path" in run_problems(config)


@pytest.mark.parametrize("key", ["checkpoint", "input", "output"])
def test_an_empty_path_of_a_command_that_uses_a_network(key):
    config = InferConfig(**{"checkpoint": "a", "input": "b", "output": "c", key: ""})
    assert f"{key}: is empty; expected a path" in use_problems(config)
    config = InferConfig(checkpoint="a", input="b", output="c", extra={"spikes": ""})
    assert "extra.spikes: is empty; expected a path" in use_problems(config)


@pytest.mark.parametrize(
    ("batch_size", "lq_size", "frames"), [(10**9, 48, 1), (16, 10**6, 1), (16, 48, 10**7)]
)
def test_a_batch_that_memory_cannot_hold_is_told(batch_size, lq_size, frames):
    config = run()
    config.data.batch_size, config.data.lq_size, config.data.frames = batch_size, lq_size, frames
    start = (
        f"data.batch_size={batch_size}, data.lq_size={lq_size}: the crops of a micro-batch alone"
    )
    assert any(problem.startswith(start) for problem in run_problems(config))
    assert not any("alone take" in problem for problem in run_problems(run()))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a\x1b", "a${b}", "x" * 300])
def test_what_is_no_name_of_a_folder(name):
    assert len(name_problems(name)) == 1


@pytest.mark.parametrize("name", ["a", "my run (1)", "2024_01_15", "\u65e5\u672c", "a$b", " a "])
def test_what_is_a_name_of_a_folder(name):
    assert name_problems(name) == []
