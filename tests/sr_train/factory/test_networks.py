"""What a file says about its network is data: no more than networks is built from it."""

import pytest
import torch
from torch import nn

from archs.temporal import TemporalWindow
from sr_train.api.errors import CheckpointError, ConfigError
from sr_train.config.preflight import use_problems
from sr_train.config.schema import ExportConfig
from sr_train.engine.model_card import ModelCard
from sr_train.engine.weights import save_weights
from sr_train.factory.networks import card_of, load_for_use, make_net

INNER = {
    "_target_": "archs.compact.SRVGGNetCompact",
    "scale": 2,
    "in_channels": 9,
    "num_feat": 4,
    "num_conv": 0,
}
NESTED = {"_target_": "archs.temporal.TemporalWindow", "frames": 3, "net": INNER}


def config(path, **more) -> ExportConfig:
    return ExportConfig(checkpoint=str(path), output="o.safetensors", **more)


@pytest.fixture
def saved(tmp_path):
    """Return a file of a network inside a network, and that network."""
    net, spec = make_net(NESTED, [], 2)
    save_weights(tmp_path / "net.safetensors", net, card_of(NESTED, spec))
    return tmp_path / "net.safetensors", net


def test_a_network_inside_a_network_is_built_from_its_file(saved):
    path, net = saved
    again, spec, weights = load_for_use(config(path))
    assert isinstance(again, TemporalWindow)
    assert spec == net.spec
    assert weights.card.arguments["net"] == INNER
    for name, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_scale_of_the_file_goes_into_the_network_inside(saved):
    path, _ = saved
    asked = config(path, arch={**NESTED, "net": {**INNER, "scale": None}})
    assert use_problems(asked) == []
    assert load_for_use(asked)[1].scale == 2


class Tripwire(nn.Module):
    """A network outside the allowed packages."""

    def __init__(self) -> None:
        raise AssertionError("was built")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", "outside the allowed packages"),
        (f"{__name__}.Tripwire", "outside the allowed packages"),
        ("sr_train.engine.weights.json.loads", "outside the allowed packages"),
        ("archs.common.checkpoint", "expected a class, found a function"),
        ("sr_train.engine.weights.Path", "outside the allowed packages"),
        ("losses.pixel.L1Loss", "outside the allowed packages"),
        ("hydra.utils.instantiate", "outside the allowed packages"),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_what_is_no_network_of_ours_is_not_called(tmp_path, monkeypatch, target, message, deep):
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("was called"))
    bad = {"_target_": target, "command": "true"}
    if deep:
        bad = {"_target_": "archs.temporal.TemporalWindow", "frames": 3, "net": bad}
    path = tmp_path / "bad.safetensors"
    save_weights(path, nn.Conv2d(1, 1, 1), ModelCard(NESTED["_target_"], {"frames": 3, "net": bad}))
    with pytest.raises(ConfigError, match=f"checkpoint.*{message}"):
        load_for_use(config(path))


def test_targets_among_plain_data_stay_data(tmp_path):
    hidden = {"_target_": "archs.compact.SRVGGNetCompact", "scale": 2}
    arguments = {"frames": 3, "net": INNER, "extra_inputs": {"spikes": [hidden]}}
    path = tmp_path / "bad.safetensors"
    save_weights(path, nn.Conv2d(1, 1, 1), ModelCard(NESTED["_target_"], arguments))
    with pytest.raises(CheckpointError, match=r"extra_inputs\.spikes\[0\]: found a component"):
        load_for_use(config(path))
