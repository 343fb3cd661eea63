"""The network that a file describes is data until it has been found to fit the file."""

import pytest
import torch
from torch import nn
from torch.nn.modules import module

from archs.compact import SRVGGNetCompact
from sr_train.api.errors import CheckpointError, ConfigError
from sr_train.api.network import NetSpec
from sr_train.config.schema import ExportConfig
from sr_train.engine.model_card import ModelCard
from sr_train.engine.weights import save_weights
from sr_train.factory.networks import load_for_use

COMPACT = "archs.compact.SRVGGNetCompact"
SMALL = {"scale": 2, "num_feat": 4, "num_conv": 1}


def config(path, **more) -> ExportConfig:
    return ExportConfig(checkpoint=str(path), output="o.safetensors", **more)


def file_of(tmp_path, arguments, net=None, architecture=COMPACT, scale=2):
    path = tmp_path / "a.safetensors"
    net = SRVGGNetCompact(**SMALL) if net is None else net
    save_weights(path, net, ModelCard(architecture, arguments, scale))
    return path


def refused(tmp_path, arguments, **more):
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        load_for_use(config(file_of(tmp_path, arguments, **more)))
    assert "a.safetensors" in str(caught.value)
    return str(caught.value)


def windows(depth):
    node = {"_target_": COMPACT, **SMALL}
    for _ in range(depth):
        node = {"_target_": "archs.temporal.TemporalWindow", "frames": 1, "net": node}
    return node


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_feat": 10**9}, "its metadata says 1000000000"),
        ({"activation": [{"a": [-(10**7)]}]}, "its metadata says -10000000"),
        ({"num_feat": 40_000}, "num_feat 4 (here 40000)"),
        ({"num_feat": 10**30}, "its metadata says 10000000000000000000... (31 characters)"),
        ({"num_feat": 10**6}, "num_feat 4 (here 1000000)"),
        ({"num_feat": -1}, "num_feat must be an integer of at least 1; got -1"),
        ({"num_feat": "x" * 10**5}, "arguments.num_feat=xxx"),
        ({"num_feat": 1.5}, "arguments.num_feat=1.5: expected a whole number"),
        ({"num_feat": None}, "arguments.num_feat=null: expected a whole number"),
        ({"num_conv": 10**7}, "its metadata says 10000000, more than any size of a network"),
        ({"num_conv": 10**6}, "far more weights than it holds; it is damaged"),
        ({"num_conv": 5000}, "far more weights than it holds; it is damaged"),
        ({"scale": 0}, "scale must be one of"),
        ({"activation": "meta"}, "activation must be one of"),
        ({"activation": "x" * 10**5}, "activation must be one of"),
        ({"self": 1}, "arguments.self: SRVGGNetCompact has no such argument"),
        ({"": 1}, "has no such argument"),
        ({"more": 1}, "arguments.more: SRVGGNetCompact has no such argument"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arguments_that_make_another_network_or_none(tmp_path, change, told):
    text = refused(tmp_path, {**SMALL, **change})
    assert told in text
    assert len(text) < len(str(tmp_path)) + 1000


def test_missing_arguments_are_named(tmp_path):
    assert "arguments.scale: SRVGGNetCompact needs this argument" in refused(tmp_path, {})


@pytest.mark.parametrize(
    ("depth", "told"),
    [(12, "networks inside networks, more than 8 deep"), (400, "nests its arguments deeper")],
)
def test_networks_inside_networks_end(tmp_path, depth, told):
    node = windows(depth)
    del node["_target_"]
    assert told in refused(tmp_path, node, architecture="archs.temporal.TemporalWindow")


def test_arguments_inside_arguments_end(tmp_path):
    deep: list = []
    for _ in range(500):
        deep = [deep]
    assert "nests its arguments deeper than 32" in refused(tmp_path, {**SMALL, "activation": deep})


def test_numbers_that_would_be_counted_up_to_are_not(tmp_path):
    """IMDN lists the names of its blocks before it makes one."""
    arguments = {"scale": 2, "num_block": 10**9}
    text = refused(tmp_path, arguments, architecture="archs.imdn.IMDN")
    assert "more than any size of a network" in text


def test_nothing_large_is_made_even_where_names_need_not_fit(tmp_path):
    path = file_of(tmp_path, {**SMALL, "num_feat": 20_000})
    with pytest.raises(CheckpointError, match="describes a network of"):
        load_for_use(config(path, strict=False))


def test_of_a_network_that_has_grown_what_fits_is_taken_on_request(tmp_path, caplog):
    path = file_of(tmp_path, {**SMALL, "num_conv": 2})
    with pytest.raises(CheckpointError, match="3 missing in the file"):
        load_for_use(config(path))
    net, _, weights = load_for_use(config(path, strict=False))
    assert torch.equal(net.body[0].weight, weights.tensors["body.0.weight"])
    assert "left out, " in caplog.text


@pytest.mark.parametrize(
    ("scale", "asked", "told"),
    [
        (4, None, "says scale 4, but its network upscales by 2"),
        (2, 4, "scale=4: the checkpoint's is 2; leave it out"),
        (None, 4, "scale=4, but its network upscales by 2"),
    ],
)
def test_scales_that_contradict_each_other(tmp_path, scale, asked, told):
    path = file_of(tmp_path, SMALL, scale=scale)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        load_for_use(config(path, scale=asked))
    assert told in str(caught.value)


def test_a_scale_that_the_file_does_not_tell_is_that_of_its_network(tmp_path):
    assert load_for_use(config(file_of(tmp_path, SMALL, scale=None)))[1].scale == 2


class Reads(nn.Module):
    """A network whose constructor looks at a number, which the meta device does not have."""

    def __init__(self, scale: int, fails: bool = False) -> None:
        super().__init__()
        if fails:
            raise KeyError("a\x1b[2Jb")
        self.spec = NetSpec(scale=scale)
        self.weight = nn.Parameter(torch.full((2,), float(torch.ones(3).sum())))


class Bare(nn.Module):
    """A network that says nothing about itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


PLUGINS = [__name__.partition(".")[0]]


def test_a_constructor_that_needs_numbers_is_called_all_the_same(tmp_path):
    path = file_of(tmp_path, {"scale": 3}, Reads(3), f"{__name__}.Reads", scale=3)
    net, spec, _ = load_for_use(config(path, plugins=PLUGINS))
    assert spec.scale == 3
    assert net.weight.tolist() == [3.0, 3.0]


def test_whatever_a_constructor_raises_names_the_file(tmp_path):
    arguments = {"scale": 3, "fails": True}
    path = file_of(tmp_path, arguments, Reads(3), f"{__name__}.Reads", scale=3)
    with pytest.raises(CheckpointError) as caught:
        load_for_use(config(path, plugins=PLUGINS))
    assert f"a.safetensors: its metadata does not make a network: {__name__}.Reads" in str(
        caught.value
    )
    assert "\x1b" not in str(caught.value)


def test_a_network_that_tells_no_scale_needs_one(tmp_path):
    path = file_of(tmp_path, {}, Bare(), f"{__name__}.Bare", scale=None)
    with pytest.raises(ConfigError, match="names no scale, nor does its network; add scale="):
        load_for_use(config(path, plugins=PLUGINS))
    assert load_for_use(config(path, plugins=PLUGINS, scale=4))[1].scale == 4


def test_the_limit_leaves_no_hook_behind(tmp_path):
    load_for_use(config(file_of(tmp_path, SMALL)))
    refused(tmp_path, {**SMALL, "num_conv": 5000})
    assert not module._global_parameter_registration_hooks
    assert not module._global_module_registration_hooks


@pytest.mark.parametrize("missing", ["architecture", "arguments"])
def test_a_card_that_makes_no_network_asks_for_one(tmp_path, missing):
    path = file_of(tmp_path, SMALL, architecture="" if missing == "architecture" else COMPACT)
    if missing == "arguments":
        save_weights(path, SRVGGNetCompact(**SMALL), ModelCard(COMPACT, None, 2))
    with pytest.raises(ConfigError) as caught:
        load_for_use(config(path))
    for part in ("names no architecture", "arch=imdn scale=2", "8 tensors: body.0.bias"):
        assert part in str(caught.value)
    given = config(path, arch={"_target_": COMPACT, **SMALL, "scale": None})
    assert load_for_use(given)[1].scale == 2
