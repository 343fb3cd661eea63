"""Targets, signatures and plain types of component nodes."""

from typing import Any, Literal

import pytest
from torch import nn

from losses.pixel import CharbonnierLoss
from sr_train.api.errors import ConfigError, DataError
from sr_train.config.build import build, node_problems

HERE = ["tests"]
PLACE = "tests.sr_train.config.test_build"


class Typed:
    def __init__(
        self,
        count: int,
        rate: float = 0.5,
        mode: Literal["fast", "slow"] = "fast",
        sizes: list[int] | None = None,
        anything: Any = None,
        flag: bool = False,
        inner: object = None,
    ) -> None:
        if count == 13:
            raise ValueError("count must not be 13")
        if count == 14:
            raise DataError("count 14 is no data")
        self.count, self.rate, self.mode, self.sizes = count, rate, mode, sizes
        self.anything, self.flag, self.inner = anything, flag, inner


def node(**arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{PLACE}.Typed", **arguments}


def test_it_builds_with_plain_arguments():
    made = build(node(count=3, sizes=[1, 2], rate=1), "x", HERE, anything="run")
    assert (made.count, made.rate, made.sizes, made.anything) == (3, 1, [1, 2], "run")
    assert type(made.sizes) is list


def test_a_partial_waits_for_the_rest():
    make = build({**node(rate=0.1), "_partial_": True}, "x", HERE)
    assert make(count=2).rate == 0.1


def test_components_nest():
    made = build(node(count=1, inner=node(count=2)), "x", HERE)
    assert made.inner.count == 2
    assert node_problems(node(count=1, inner=node(cuont=2)), "x", HERE) == [
        "x.inner.cuont: Typed has no such argument; did you mean 'count'?",
        "x.inner.count: Typed needs this argument, found none",
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"count": 1, "rat": 1}, "x.rat: Typed has no such argument; did you mean 'rate'?"),
        ({}, "x.count: Typed needs this argument, found none"),
        ({"count": "3"}, "x.count=3: expected a whole number, found text"),
        ({"count": 3.0}, "x.count=3.0: expected a whole number, found a number"),
        ({"count": True}, "x.count=true: expected a whole number, found true or false"),
        ({"count": None}, "x.count=null: expected a whole number, found null"),
        ({"count": 3, "rate": "1e-3"}, "x.rate=1e-3: expected a number, found text"),
        ({"count": 3, "flag": 1}, "x.flag=1: expected true or false, found a whole number"),
        ({"count": 3, "mode": "fats"}, "x.mode=fats: expected one of fast, slow"),
        (
            {"count": 3, "sizes": 1},
            "x.sizes=1: expected a list of whole numbers or null, found a whole number",
        ),
        (
            {"count": 3, "sizes": [1, "2"]},
            "x.sizes=[1, 2]: expected a list of whole numbers or null, found a list with text",
        ),
    ],
)
def test_what_does_not_fit_is_told(arguments, problem):
    assert node_problems(node(**arguments), "x", HERE) == [problem]
    with pytest.raises(ConfigError, match="x"):
        build(node(**arguments), "x", HERE)


@pytest.mark.parametrize(
    "arguments",
    [{"count": 3, "rate": 1}, {"count": 3, "sizes": None}, {"count": 3, "anything": {"a": [1]}}],
)
def test_what_fits_passes(arguments):
    assert node_problems(node(**arguments), "x", HERE) == []


def test_a_run_time_argument_is_not_asked_for():
    assert node_problems(node(), "x", HERE, {"count": None}) == []


def test_errors_of_constructors_keep_their_meaning():
    with pytest.raises(ConfigError, match=r"x: .*Typed: count must not be 13"):
        build(node(count=13), "x", HERE)
    with pytest.raises(DataError, match="count 14 is no data"):
        build(node(count=14), "x", HERE)


@pytest.mark.parametrize("wrong", [None, 3, {"scale": 2}, "archs.imdn.IMDN"])
def test_a_node_without_target(wrong):
    (problem,) = node_problems(wrong, "arch")
    assert problem.startswith("arch: expected a network with a _target_, found ")


def test_shipped_and_torch_targets():
    loss = build({"_target_": "losses.pixel.CharbonnierLoss", "eps": 0.1}, "x")
    assert isinstance(loss, CharbonnierLoss)
    assert isinstance(build({"_target_": "torch.nn.Conv2d", **CONV}, "x"), nn.Conv2d)


CONV = {"in_channels": 3, "out_channels": 3, "kernel_size": 3}
