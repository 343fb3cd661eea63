import math

import pytest
import torch

from archs.rrdb import RRDBNet
from sr_train.ops.errors import ConfigError
from tests.archs.networks import rrdb


def shapes(net):
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    ("scale", "in_channels", "count"), [(4, 3, 16_697_987), (2, 12, 16_703_171), (1, 48, None)]
)
def test_names_shapes_and_count_are_the_published_ones(scale, in_channels, count):
    with torch.device("meta"):
        state = shapes(RRDBNet(scale))
    assert len(state) == 702
    assert state["conv_first.weight"] == (64, in_channels, 3, 3)
    assert state["body.0.rdb1.conv1.weight"] == (32, 64, 3, 3)
    assert state["body.22.rdb3.conv5.weight"] == (64, 192, 3, 3)
    assert state["conv_body.weight"] == (64, 64, 3, 3)
    assert state["conv_up1.bias"] == state["conv_up2.bias"] == state["conv_hr.bias"] == (64,)
    assert state["conv_last.weight"] == (3, 64, 3, 3)
    if count is not None:
        assert sum(math.prod(shape) for shape in state.values()) == count


@pytest.mark.parametrize(("scale", "multiple", "radius"), [(4, 1, 349), (2, 2, 698), (1, 4, 1396)])
def test_spec_of_the_published_depth(scale, multiple, radius):
    with torch.device("meta"):
        spec = RRDBNet(scale, num_feat=4, num_grow=4).spec
    assert (spec.size_multiple, spec.min_size, spec.receptive_field) == (multiple, multiple, radius)


def test_a_picture_of_odd_size_equals_its_mirrored_extension():
    net = rrdb(2).eval()
    lq = torch.rand(1, 3, 6, 5)
    wider = torch.cat((lq, lq[..., 3:4]), -1)
    with torch.no_grad():
        assert torch.equal(net(lq), net(wider)[..., :10])


@pytest.mark.parametrize("scale", [3, 8, 0, -4])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(ConfigError, match=f"RRDBNet: scale must be one of 1, 2, 4; got {scale}"):
        RRDBNet(scale)


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "num_feat", "num_block"])
def test_an_impossible_count_is_refused(name):
    with pytest.raises(ConfigError, match=f"RRDBNet: {name} must be"):
        RRDBNet(4, **{name: 0})
