"""The state of random generators: put back exactly, and CUDA left alone where it is not used."""

import random

import numpy as np
import pytest
import torch

from sr_train.engine.randomness import random_state, seed_everything, set_random_state
from tests.toys import differing

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def draw():
    return random.random(), float(np.random.rand()), torch.rand(2).tolist()  # noqa: NPY002


def test_every_generator_goes_on_where_it_was(tmp_path):
    seed_everything(5)
    draw()
    torch.save(random_state(CPU), tmp_path / "state")
    first = draw()
    seed_everything(6)
    set_random_state(torch.load(tmp_path / "state", weights_only=True), CPU)
    assert draw() == first


def test_a_gpu_that_is_not_used_is_not_started(monkeypatch):
    def start(*_):
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("get_rng_state_all", "set_rng_state_all"):  # they start it, where there is one
        monkeypatch.setattr(torch.cuda, name, start)
    seed_everything(5)
    state = random_state(CPU)
    assert state["cuda"] == []
    set_random_state({**state, "cuda": [torch.zeros(16, dtype=torch.uint8)]}, CPU)
    assert differing(random_state(CPU), state) == []


@pytest.mark.gpu
def test_the_generator_of_a_gpu_goes_on_where_it_was():
    torch.rand(1, device=CUDA)
    state = random_state(CUDA)
    assert len(state["cuda"]) == torch.cuda.device_count()
    first = torch.rand(4, device=CUDA)
    seed_everything(6)
    set_random_state(state, CUDA)
    assert torch.equal(torch.rand(4, device=CUDA), first)
