"""What other programs wrap around a state dict comes off; what holds none says what it holds."""

import logging
from pathlib import Path

import pytest
import torch

from sr_train.api.errors import CheckpointError
from sr_train.engine.foreign import state_dict_in

PATH = Path("other.pth")
WANTED = {"a.w": torch.ones(2), "b.w": torch.ones(1)}
OTHERS = {"a.w": torch.zeros(2), "b.w": torch.zeros(1)}

WRAPPED = {
    "bare": WANTED,
    "params": {"params": WANTED},
    "params_ema": {"params": OTHERS, "params_ema": WANTED},
    "params-ema": {"params": OTHERS, "params-ema": WANTED},
    "state_dict": {"epoch": 3, "state_dict": WANTED, "optimizer": {"state": {}}},
    "model": {"model": WANTED, "iteration": 5},
    "model_state_dict": {"model_state_dict": WANTED},
    "netG": {"netG": WANTED, "netD": OTHERS},
    "generator": {"generator": WANTED, "discriminator": OTHERS},
    "G": {"G": WANTED, "D": OTHERS},
    "g_ema": {"g": OTHERS, "g_ema": WANTED, "d": OTHERS},
    "three deep": {"state_dict": {"model": {"params": WANTED}}},
    "beside settings": {"params": {"lr": 0.1, "steps": [1, 2]}, "state_dict": WANTED},
    "beside nothing": {"params": None, "state_dict": WANTED},
    "module": {f"module.{name}": value for name, value in WANTED.items()},
    "netG.module": {"model": {f"netG.module.{name}": value for name, value in WANTED.items()}},
}


@pytest.mark.parametrize("layout", WRAPPED)
def test_wrappers_come_off(layout):
    assert state_dict_in(WRAPPED[layout], PATH) == WANTED


def test_live_weights_are_taken_where_they_are_asked_for():
    content = {"params": WANTED, "params_ema": OTHERS}
    assert state_dict_in(content, PATH, "live") == WANTED
    assert state_dict_in(content, PATH, "ema") == OTHERS
    assert state_dict_in({"params_ema": WANTED}, PATH, "live") == WANTED


@pytest.mark.parametrize("key", ["netD", "discriminator", "D", "d", "net_d"])
def test_the_discriminator_is_taken_where_it_is_asked_for(key):
    content = {"netG": OTHERS, "params": OTHERS, key: WANTED}
    assert state_dict_in(content, PATH, "net_d") == WANTED
    mixed = {f"netG.{name}": value for name, value in OTHERS.items()}
    mixed |= {f"netD.{name}": value for name, value in WANTED.items()}
    assert state_dict_in(mixed, PATH, "net_d") == WANTED


def test_what_is_left_out_is_told(caplog):
    with caplog.at_level(logging.INFO):
        assert state_dict_in({**WANTED, "epoch": 3, 5: "x"}, PATH) == WANTED
    assert "other.pth: no tensors, left out: epoch, 5" in caplog.text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "found nothing, expected tensors by their names"),
        (5, "found int, expected"),
        ([1, 2], "found list, expected"),
        (torch.zeros(3), "found Tensor, expected"),
        ({}, "it is empty"),
        ({"params": {}}, "found the keys params; expected tensors, or one of params_ema"),
        ({"params": [1]}, "found the keys params"),
        ({1: torch.zeros(2), None: torch.zeros(2)}, "found the keys 1, None"),
        ({"\x1b[2J": 1, "x" * 10**5: 2}, r"found the keys \x1b[2J, xxx"),
        ({f"k{i}": i for i in range(100)}, "found the keys k0, k1, k2, k3, k4, k5, ...;"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_no_state_dict_is_told_with_what_is_there(content, told):
    with pytest.raises(CheckpointError) as caught:
        state_dict_in(content, PATH)
    assert f"other.pth: holds no state dict; {told}" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_prefixes_alone_end():
    assert list(state_dict_in({"module." * 500: torch.zeros(1)}, PATH)) == [""]
