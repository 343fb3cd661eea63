import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from sr_train.engine.weights import Weights, load_into, read_weights
from sr_train.ops.errors import CheckpointError


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net_g.module."],
)
def test_wrappers_leave_no_prefix_in_whatever_order(tmp_path, prefix):
    path = tmp_path / "other.pth"
    torch.save({"params": {f"{prefix}{name}": torch.ones(1) for name in ("a.w", "b.w")}}, path)
    assert list(read_weights(path).tensors) == ["a.w", "b.w"]


def test_a_prefix_that_only_some_names_have_is_part_of_them(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"module.w": torch.ones(1), "w": torch.ones(1)}, path)
    assert list(read_weights(path).tensors) == ["module.w", "w"]


@pytest.mark.parametrize("better", ["generator.", "generator_ema."])
def test_of_another_trainer_s_file_the_generator_is_taken(tmp_path, caplog, better):
    """mmagic keeps a counter, critics and perceptual networks beside it."""
    path = tmp_path / "other.pth"
    state = {
        "step_counter": torch.zeros(1),
        "generator.a.w": torch.zeros(1),
        "generator.b.w": torch.zeros(1),
        "discriminator.c.w": torch.zeros(1),
        **{f"{better}{name}": torch.ones(1) for name in ("a.w", "b.w")},
    }
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, path)
    with caplog.at_level(logging.INFO):
        tensors = read_weights(path).tensors
    assert tensors == {"a.w": torch.ones(1), "b.w": torch.ones(1)}
    left_out = len(state) - 2
    assert f"other.pth: taking {better}*, leaving out {left_out} others: step_" in caplog.text


def test_a_file_with_nothing_but_a_generator_is_taken_silently(tmp_path, caplog):
    path = tmp_path / "other.pth"
    torch.save({"generator.w": torch.ones(1)}, path)
    with caplog.at_level(logging.INFO):
        assert list(read_weights(path).tensors) == ["w"]
    assert caplog.text == ""


class Renamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(1))

    def own_name(self, name):
        return {"weight": "kernel"}.get(name, name)


def test_names_that_a_part_of_the_network_knows_load_strictly():
    net = nn.Sequential(Renamed())
    load_into(net, Weights({"0.weight": torch.ones(1)}, None, Path("other.pth")))
    assert net[0].kernel.item() == 1.0
    with pytest.raises(CheckpointError, match=r"1 missing in the file: 0\.kernel"):
        load_into(net, Weights({"0.bias": torch.ones(1)}, None, Path("other.pth")))
