"""Numbers of a config that make no sense are told by their path."""

import pytest

from sr_train.config.preflight import use_problems
from sr_train.config.schema import InferConfig, TilingConfig


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
