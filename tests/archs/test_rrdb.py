import math

import pytest
import torch

from archs.rrdb import RRDBNet
from sr_train.api.errors import CheckpointError, ConfigError
from sr_train.engine.fitting import fit_of
from sr_train.engine.weights import load_into, read_weights
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


def test_an_image_of_odd_size_equals_its_mirrored_extension():
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


def numbered_names(num_block: int, stages: int = 2) -> list[tuple[str, str]]:
    """Return (name in ESRGAN's first code, name here) of every convolution; "" where there is none.

    There the network is one sequence: a convolution, the trunk, for each stage an upsampler with a
    convolution and an activation, then convolution, activation, convolution.
    """
    names = [("model.0", "conv_first")]
    for block in range(num_block):
        for dense in (1, 2, 3):
            for conv in (1, 2, 3, 4, 5):
                old = f"model.1.sub.{block}.RDB{dense}.conv{conv}.0"
                names.append((old, f"body.{block}.rdb{dense}.conv{conv}"))
    names.append((f"model.1.sub.{num_block}", "conv_body"))
    at = 2
    for stage in range(stages):
        names.append((f"model.{at + 1}", f"conv_up{stage + 1}" if stages == 2 else ""))
        at += 3
    ends = ("conv_hr", "conv_last") if stages == 2 else ("", "")
    return [*names, (f"model.{at}", ends[0]), (f"model.{at + 2}", ends[1])]


def trunk_names(num_block: int) -> list[tuple[str, str]]:
    """Return (name in ESRGAN's second code, name here) of every convolution."""
    outside = {
        "conv_first": "conv_first",
        "trunk_conv": "conv_body",
        "upconv1": "conv_up1",
        "upconv2": "conv_up2",
        "HRconv": "conv_hr",
        "conv_last": "conv_last",
    }
    inside = [
        (f"RRDB_trunk.{i}.RDB{j}.conv{k}", f"body.{i}.rdb{j}.conv{k}")
        for i in range(num_block)
        for j in (1, 2, 3)
        for k in (1, 2, 3, 4, 5)
    ]
    return [*outside.items(), *inside]


def under(names: list[tuple[str, str]], state: dict, prefix: str = "") -> dict:
    """Return a state dict under the old names."""
    return {
        f"{prefix}{old}.{kind}": state[f"{own}.{kind}"]
        for old, own in names
        for kind in ("weight", "bias")
    }


SCHEMES = {"numbered": numbered_names, "trunk": trunk_names}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("prefix", ["", "module.", "netG.module.", "my_wrapper."])
def test_every_older_name_of_the_published_depth_is_known(scheme, prefix):
    with torch.device("meta"):
        net = RRDBNet(4)
    state = net.state_dict()
    old = under(SCHEMES[scheme](23), state, prefix)
    assert len(old) == len(state) == 702
    fit = fit_of(net, old, values=())
    assert fit.misfits == []
    assert all(fit.fitting[name] is value for name, value in state.items())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("layout", ["bare", "params_ema", "state_dict"])
@pytest.mark.parametrize(("scale", "num_block", "num_feat"), [(4, 1, 4), (4, 3, 6), (2, 2, 4)])
def test_files_under_older_names_load_strictly(
    tmp_path, scheme, layout, scale, num_block, num_feat
):
    source = RRDBNet(scale, num_feat=num_feat, num_block=num_block, num_grow=4)
    old = under(SCHEMES[scheme](num_block), source.state_dict())
    torch.save(old if layout == "bare" else {layout: old}, tmp_path / "old.pth")
    net = RRDBNet(scale, num_feat=num_feat, num_block=num_block, num_grow=4)
    load_into(net, read_weights(tmp_path / "old.pth"))
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


def refusal(tmp_path, net, state) -> str:
    torch.save(state, tmp_path / "old.pth")
    with pytest.raises(CheckpointError) as caught:
        load_into(net, read_weights(tmp_path / "old.pth"))
    return str(caught.value)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_sizes_are_told_with_the_values_of_the_file(tmp_path, scheme):
    source = RRDBNet(4, num_feat=6, num_block=2, num_grow=4)
    old = under(SCHEMES[scheme](2), source.state_dict())
    told = refusal(tmp_path, RRDBNet(4, num_feat=4, num_block=3, num_grow=4), old)
    assert "num_feat 6 (here 4), num_block 2 (here 3); for that: arch.num_feat=6" in told
    assert "arch.num_block=2" in told
    assert "num_grow" not in told
    told = refusal(tmp_path, RRDBNet(2, num_feat=6, num_block=2, num_grow=4), old)
    assert "scale 4 (here 2); for that: scale=4" in told


@pytest.mark.parametrize(
    ("stages", "words"), [(0, "0 stages (x1)"), (1, "1 stage (x2 or x3)"), (3, "3 stages (x8)")]
)
def test_an_esrgan_of_other_stages_is_told(tmp_path, stages, words):
    net = rrdb(4)
    state = net.state_dict() | {".weight": torch.zeros(1), ".bias": torch.zeros(1)}
    told = refusal(tmp_path, net, under(numbered_names(1, stages), state))
    assert f"which this one cannot be: upsampler {words} (here 2 stages)" in told


def test_weights_of_something_else_get_no_such_words(tmp_path):
    assert "another RRDBNet" not in refusal(tmp_path, rrdb(4), {"a.weight": torch.zeros(2)})
