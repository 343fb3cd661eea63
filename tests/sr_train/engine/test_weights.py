import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from sr_train.api.errors import CheckpointError
from sr_train.engine.checkpoint import save_state
from sr_train.engine.weights import Weights, load_into, read_weights
from tests.states import toy_state


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


def weights_of(net, **change) -> Weights:
    return Weights({**net.state_dict(), **change}, None, Path("other.pth"))


KINDS = {
    "float16": (torch.float16, None),
    "bfloat16": (torch.bfloat16, None),
    "float64": (torch.float64, None),
    "float8": (torch.float8_e4m3fn, None),
    "bool": (torch.bool, "bool instead of float32"),
    "int64": (torch.int64, "int64 instead of float32"),
    "complex": (torch.complex64, "complex64 instead of float32"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_numbers(kind):
    dtype, told = KINDS[kind]
    net = nn.Linear(2, 3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = {name: value.round().to(dtype) for name, value in before.items()}
    if told is None:
        load_into(net, weights_of(net, **given))
        assert torch.equal(net.weight, given["weight"].float())
        return
    with pytest.raises(CheckpointError, match=f"other.pth: .*\n  - 2 {told}: weight, bias"):
        load_into(net, weights_of(net, **given), strict=False)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_weights_that_are_no_finite_numbers_are_named(value):
    net = nn.Linear(2, 3)
    bad = torch.zeros(3, dtype=torch.float64).index_fill(0, torch.tensor(1), value)
    with pytest.raises(CheckpointError, match="1 NaN or infinite: bias"):
        load_into(net, weights_of(net, bias=bad))


ODD = {
    "sparse": lambda value: value.to_sparse(),
    "without numbers \\(meta\\)": lambda value: value.to("meta"),
    "of another shape": lambda value: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_hold_no_plain_numbers(kind):
    net = nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match=f"1 {kind}: weight"):
        load_into(net, weights_of(net, weight=ODD[kind](net.weight.detach())))


def test_counters_of_whole_numbers_may_have_become_floats():
    """A program that makes all of a file half precision does it to counters, too."""
    net = nn.BatchNorm1d(2)
    load_into(net, weights_of(net, num_batches_tracked=torch.tensor(7.0)))
    assert net.num_batches_tracked.item() == 7
    with pytest.raises(CheckpointError, match="float32 instead of int64: num_batches_tracked"):
        load_into(net, weights_of(net, num_batches_tracked=torch.tensor(7.5)))


@pytest.mark.parametrize("prefix", ["model.", "netG.", "a.b.c.", "network.module."])
def test_a_prefix_that_all_names_share_comes_off_where_it_helps(prefix):
    net = nn.Sequential(nn.Linear(2, 3))
    given = {f"{prefix}{name}": value + 1 for name, value in net.state_dict().items()}
    load_into(net, Weights(given, None, Path("other.pth")))
    assert torch.equal(net[0].weight, given[f"{prefix}0.weight"])


def test_a_prefix_of_the_network_s_own_names_stays():
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 3)))
    load_into(net, weights_of(net))
    with pytest.raises(CheckpointError, match=r"2 missing in .*\n.* unknown .*: 9\.0\.0\.w$"):
        load_into(net, Weights({"9.0.0.w": torch.zeros(1)}, None, Path("other.pth")))


def test_names_out_of_a_file_are_few_and_steer_nothing():
    net = nn.Linear(2, 3)
    odd = {f"{'x' * 10**5}{number}": torch.zeros(1) for number in range(1000)}
    odd = {"\x1b[2J\nforged": torch.zeros(1), **odd}
    with pytest.raises(CheckpointError) as caught:
        load_into(net, weights_of(net, **odd))
    told = str(caught.value)
    assert "1001 unknown to the network: \\x1b[2J\\nforged, xxx" in told
    assert "\x1b" not in told
    assert len(told) < 1000


def test_a_name_that_both_schemes_have_is_not_lost():
    net = nn.Sequential(Renamed())
    given = {"0.weight": torch.ones(1), "0.kernel": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 unknown to the network: 0\.weight"):
        load_into(net, Weights(given, None, Path("other.pth")))


def test_a_checkpoint_of_an_impossible_name_is_told(tmp_path):
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(CheckpointError, match=r"no such file or folder|cannot be read"):
            read_weights(tmp_path / name)


def test_a_gan_of_another_program_is_no_training_state_of_ours(tmp_path):
    content = {"format": "pt", "generator": {"w": torch.ones(1)}, "config": {"lr": 1}}
    torch.save(content, tmp_path / "other.pth")
    assert read_weights(tmp_path / "other.pth").tensors == {"w": torch.ones(1)}


def test_damaged_weights_of_a_run_name_the_state_beside_them(tmp_path):
    folder = tmp_path / "checkpoints"
    save_state(folder, 5, toy_state(5), 1)
    (folder / "last.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path)
    state = folder / "step_00000005.pt"
    assert str(caught.value).endswith(f"; take checkpoint={state}")
    assert read_weights(state).card.step == 5


class Noted(nn.Linear):
    """A module that keeps more in its state dict than tensors."""

    def get_extra_state(self):
        return {"note": 1}

    def set_extra_state(self, state):
        pass


def test_what_a_module_keeps_beside_tensors_is_left_alone(tmp_path):
    net = Noted(2, 3)
    state = toy_state(5, net_g=net.state_dict())
    found = read_weights(save_state(tmp_path, 5, state, 1), "live")
    other = Noted(2, 3)
    load_into(other, found)
    assert torch.equal(other.weight, net.weight)
