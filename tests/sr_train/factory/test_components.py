"""Devices, parameter groups and networks that say little about themselves."""

import pytest
import torch
from torch import nn

from sr_train.api.errors import ConfigError, DataError, Problems
from sr_train.api.network import NetSpec
from sr_train.config.schema import ParamGroupConfig
from sr_train.factory.components import choose_device, make_sets
from sr_train.factory.networks import card_of, make_net, spec_of
from sr_train.factory.optimizers import split_parameters


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(ConfigError, match="device=cdua: no such device; did you mean 'cuda'"):
        choose_device("cdua")
    for name, meant in {"gpu": "cuda", "GPU:1": "cuda:1", "0": "cuda:0", "cuda1": "cuda:1"}.items():
        with pytest.raises(ConfigError, match=f"no such device; write device={meant}$"):
            choose_device(name)
    with pytest.raises(ConfigError, match=r"device=cuda:99: this machine has \d of that kind"):
        choose_device("cuda:99")
    with pytest.raises(ConfigError, match="device=cpu:1: this machine has 1"):
        choose_device("cpu:1")


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 3), nn.PReLU(), nn.Conv2d(3, 3, 3))


def test_parameters_without_patterns_make_one_group():
    made = net()
    made[1].requires_grad_(False)
    groups = split_parameters(made, [], 0.1)
    assert [len(group["params"]) for group in groups] == [4]
    assert "lr" not in groups[0]


def test_the_first_pattern_that_matches_wins():
    made = net()
    patterns = [ParamGroupConfig("0.*", 0.5), ParamGroupConfig("*.bias", 0.0)]
    rest, first, bias = split_parameters(made, patterns, 0.1)
    assert [p is q for p, q in zip(first["params"], made[0].parameters(), strict=True)] == [
        True
    ] * 2
    assert (first["lr"], bias["lr"]) == (0.05, 0.0)
    assert bias["params"][0] is made[2].bias
    assert len(rest["params"]) == 2


def test_patterns_that_match_nothing_or_lack_a_rate():
    with pytest.raises(ConfigError, match=r"param_groups\[1\].match=0.weight: matches no"):
        split_parameters(net(), [ParamGroupConfig("0.*"), ParamGroupConfig("0.weight")], 0.1)
    with pytest.raises(ConfigError, match=r"optimizer\.lr is needed"):
        split_parameters(net(), [ParamGroupConfig("0.*")], None)


def test_a_network_without_spec_is_taken_as_rgb():
    assert spec_of(net(), 3) == NetSpec(scale=3)


def test_a_network_of_another_scale_is_refused():
    arch = {"_target_": "archs.compact.SRVGGNetCompact", "scale": 4, "num_feat": 4, "num_conv": 0}
    assert make_net(arch, [], 4)[1].scale == 4
    with pytest.raises(
        ConfigError, match=r"^arch\.scale=4: SRVGGNetCompact upscales by 4; expected scale=2"
    ):
        make_net(arch, [], 2)
    with pytest.raises(ConfigError, match=r"outside the allowed packages"):
        make_net({"_target_": "sr_train.api.network.NetSpec", "scale": 2}, [], 2)


class Failing:
    def __init__(self, what: str) -> None:
        if what == "many":
            raise Problems(["one", "two"])
        raise DataError("three")

    def __len__(self) -> int:
        return 0

    def sample(self, epoch: int, index: int) -> dict[str, torch.Tensor]:
        return {}


def test_the_problems_of_all_sets_are_told_together():
    target = "tests.sr_train.factory.test_components.Failing"
    nodes = {
        "data.train": {"_target_": target, "what": "many"},
        "data.val.a": {"_target_": target, "what": "one"},
    }
    with pytest.raises(Problems) as err:
        make_sets(nodes, ["tests"])
    assert err.value.problems == ["data.train: one", "data.train: two", "data.val.a: three"]


def test_a_card_leaves_out_weights_to_start_from():
    """Trained weights hold what became of them, and may be used where that file is not."""
    arch = {"_target_": "nets.Net", "width": 8, "spynet": "/somewhere/flow.pth"}
    assert card_of(arch, NetSpec(scale=2)).arguments == {"width": 8, "spynet": arch["spynet"]}
    assert card_of(arch, NetSpec(scale=2, weight_files=("spynet",))).arguments == {"width": 8}
