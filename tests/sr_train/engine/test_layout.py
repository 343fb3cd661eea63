"""Memory format and compilation change speed alone: neither names nor results."""

import pytest
import torch

from sr_train.factory.models import make_model
from tests.configs import composed


def model_of(*overrides):
    fixed = ["name=x", "scale=2", "train.steps=5", "data.train.gt=.", "~data.val.main"]
    net = ["arch=compact", "arch.num_feat=8", "arch.num_conv=2", "precision=fp32"]
    torch.manual_seed(0)
    return make_model(composed(*fixed, *net, *overrides), torch.device("cpu"))


def losses_of(model, make_batch, steps=3):
    found = []
    for seed in range(steps):
        model.optimize_parameters(make_batch(seed), last_micro_batch=True)
        found.append(model.meter.read().means["loss/total"])
    return found


def test_channels_last_gives_the_same_losses(make_batch):
    plain, other = model_of(), model_of("net_g.channels_last=always")
    for p in other.generator.net.parameters():
        if p.ndim == 4:
            assert p.is_contiguous(memory_format=torch.channels_last)
    seen = []
    other.generator.net.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    expected = losses_of(plain, make_batch)
    assert losses_of(other, make_batch) == pytest.approx(expected, rel=1e-5)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def test_five_dimensional_input_keeps_its_format():
    clip = torch.zeros(1, 2, 3, 4, 4)
    assert model_of("net_g.channels_last=always").layout(clip) is clip


@pytest.mark.slow
def test_compiled_in_place_keeps_names_and_losses(make_batch):
    plain, compiled = model_of(), model_of("net_g.compile=true")
    assert list(compiled.generator.net.state_dict()) == list(plain.generator.net.state_dict())
    expected = losses_of(plain, make_batch)
    assert losses_of(compiled, make_batch) == pytest.approx(expected, rel=1e-4)
    assert list(compiled.state_dict()["net_g"]) == list(plain.generator.net.state_dict())
    compiled.load_state_dict(plain.state_dict())
