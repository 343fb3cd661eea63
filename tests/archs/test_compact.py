import math

import pytest
import torch
from torch.nn import functional

from archs.compact import SRVGGNetCompact
from sr_train.api.errors import ConfigError
from sr_train.engine.fitting import fit_of


def test_names_shapes_and_count_are_the_published_ones():
    state = {n: tuple(v.shape) for n, v in SRVGGNetCompact(4).state_dict().items()}
    assert len(state) == 53
    assert state["body.0.weight"] == (64, 3, 3, 3)
    assert state["body.1.weight"] == (64,)
    assert state["body.32.weight"] == (64, 64, 3, 3)
    assert state["body.33.weight"] == (64,)
    assert state["body.34.weight"] == (48, 64, 3, 3)
    assert sum(math.prod(shape) for shape in state.values()) == 621_424


def test_learns_the_difference_from_the_nearest_neighbour():
    net = SRVGGNetCompact(3, num_feat=4, num_conv=1)
    torch.nn.init.zeros_(net.body[-1].weight)
    torch.nn.init.zeros_(net.body[-1].bias)
    lq = torch.rand(1, 3, 4, 5)
    assert torch.equal(net(lq), functional.interpolate(lq, scale_factor=3))


def test_one_channel_may_become_three():
    assert SRVGGNetCompact(2, 1, 3, num_feat=4)(torch.rand(1, 1, 4, 4)).shape == (1, 3, 8, 8)


def test_of_many_channels_the_first_are_upscaled():
    net = SRVGGNetCompact(2, in_channels=9, num_feat=4, num_conv=1)
    torch.nn.init.zeros_(net.body[-1].weight)
    torch.nn.init.zeros_(net.body[-1].bias)
    lq = torch.rand(1, 9, 4, 5)
    assert torch.equal(net(lq), functional.interpolate(lq[:, :3], scale_factor=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0}, "scale must be one of"),
        ({"scale": 9}, "scale must be one of"),
        ({"activation": "gelu"}, "activation must be one of 'prelu', 'relu', 'leakyrelu'"),
        ({"num_feat": 0}, "num_feat must be"),
        ({"num_conv": -1}, "num_conv must be"),
        ({"in_channels": 2}, r"in_channels must be 1 or at least out_channels \(3\).*got 2"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"SRVGGNetCompact: {message}"):
        SRVGGNetCompact(**{"scale": 2, **arguments})


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ({}, {"num_conv": 4}, "num_conv 4 (here 1); for that: arch.num_conv=4"),
        ({}, {"num_feat": 6}, "num_feat 6 (here 4); for that: arch.num_feat=6"),
        ({}, {"scale": 4}, "scale 4 (here 2); for that: scale=4"),
        ({"out_channels": 1, "in_channels": 1}, {}, "in_channels 3 (here 1), out_channels 3"),
    ],
)
def test_other_sizes_are_told_with_the_values_of_the_file(here, there, told):
    small = {"scale": 2, "num_feat": 4, "num_conv": 1}
    weights = SRVGGNetCompact(**{**small, **there}).state_dict()
    hint = fit_of(SRVGGNetCompact(**{**small, **here}), weights).hint
    assert hint is not None
    assert f"the file is of another SRVGGNetCompact: {told}" in hint


@pytest.mark.parametrize(
    "names",
    [{}, {"a.weight": 4}, {"body.0.weight": 4}, {"body.x.weight": 4, "body.0.weight": 4}],
)
def test_of_weights_of_something_else_nothing_is_told(names):
    net = SRVGGNetCompact(2, num_feat=4)
    assert fit_of(net, {name: torch.zeros([0] * ndim) for name, ndim in names.items()}).hint is None
