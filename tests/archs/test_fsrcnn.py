import math

import pytest
import torch

from archs.fsrcnn import FSRCNN
from sr_train.api.errors import ConfigError


def test_names_shapes_and_count_are_the_published_ones():
    state = {name: tuple(value.shape) for name, value in FSRCNN(3).state_dict().items()}
    assert len(state) == 23
    assert state["first_part.0.weight"] == (56, 1, 5, 5)
    assert state["first_part.1.weight"] == (56,)
    assert state["mid_part.0.weight"] == (12, 56, 1, 1)
    assert state["mid_part.8.weight"] == (12, 12, 3, 3)
    assert state["mid_part.10.weight"] == (56, 12, 1, 1)
    assert state["mid_part.11.weight"] == (56,)
    assert state["last_part.weight"] == (56, 1, 9, 9)
    assert sum(math.prod(shape) for shape in state.values()) == 12_809


def test_sees_luma_alone():
    spec = FSRCNN(2).spec
    assert (spec.colour, spec.in_channels, spec.out_channels) == ("y", 1, 1)


@pytest.mark.parametrize(("scale", "radius"), [(2, 8), (3, 8), (4, 7)])
def test_receptive_field_of_the_published_sizes(scale, radius):
    assert FSRCNN(scale).spec.receptive_field == radius


def test_starts_from_the_published_distributions():
    torch.manual_seed(0)
    net = FSRCNN(2)
    assert net.first_part[0].weight.std().item() == pytest.approx(math.sqrt(2 / 1400), rel=0.1)
    assert net.mid_part[2].weight.std().item() == pytest.approx(math.sqrt(2 / 108), rel=0.1)
    assert net.last_part.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert net.last_part.bias.item() == 0


@pytest.mark.parametrize("arguments", [{"scale": 1}, {"scale": 5}, {"scale": -2}])
def test_an_impossible_scale_is_refused(arguments):
    with pytest.raises(ConfigError, match=r"FSRCNN: scale must be one of 2, 3, 4"):
        FSRCNN(**arguments)


@pytest.mark.parametrize("arguments", [{"d": 0}, {"s": -1}, {"m": -1}])
def test_an_impossible_count_is_refused(arguments):
    with pytest.raises(ConfigError, match=f"FSRCNN: {next(iter(arguments))} must be"):
        FSRCNN(2, **arguments)
