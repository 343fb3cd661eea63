"""Half precision on a CPU: how much slower it is, is measured and told."""

import logging

import pytest
import torch

from sr_train.api.errors import ConfigError
from sr_train.commands.checks import half
from sr_train.commands.checks.half import tell_half_on_cpu
from sr_train.factory.models import make_model
from tests.sr_train.commands.checks.test_dry_step import COMPACT, config_of


@pytest.fixture
def ready():
    def make(*overrides):
        cfg = config_of(*COMPACT, "data.lq_size=32", *overrides)
        return cfg, make_model(cfg, torch.device("cpu"))

    return make


def seconds(half_time, plain_time):
    """Return a stand-in for the clock: seconds by precision, per value of the input."""

    def taken(model, fed, precision):
        return fed.numel() * (plain_time if precision.name == "fp32" else half_time)

    return taken


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_slowdown_is_told_with_the_way_out(ready, monkeypatch, caplog, precision):
    cfg, model = ready(f"precision={precision}")
    monkeypatch.setattr(half, "_seconds", seconds(5e-9, 1e-9))
    assert tell_half_on_cpu(cfg, model) == pytest.approx(5.0)
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    text = record.getMessage()
    assert text.startswith(f"warning: precision={precision}: on this CPU the network takes 5.0 ")
    assert "8x3x32x32" in text
    assert "precision=fp32" in text


def test_what_pays_is_no_warning(ready, monkeypatch, caplog):
    cfg, model = ready("precision=bf16")
    monkeypatch.setattr(half, "_seconds", seconds(1e-9, 2e-9))
    assert tell_half_on_cpu(cfg, model) == pytest.approx(0.5)
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]


def test_what_would_take_too_long_is_measured_on_less(ready, monkeypatch, caplog):
    cfg, model = ready("precision=fp16")
    monkeypatch.setattr(half, "_seconds", seconds(1e-3, 1e-4))  # 0.8 s for 16 x 16 pixels
    assert tell_half_on_cpu(cfg, model) == pytest.approx(10.0)
    assert "1x3x16x16" in caplog.text


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_nobody_who_did_not_ask_for_it_waits(ready, monkeypatch, precision):
    cfg, model = ready(f"precision={precision}")
    monkeypatch.setattr(half, "_seconds", lambda *_: pytest.fail("was measured"))
    assert tell_half_on_cpu(cfg, model) is None


def test_measuring_changes_nothing(ready):
    cfg, model = ready("precision=fp16")
    before = {name: value.clone() for name, value in model.generator.net.state_dict().items()}
    random = torch.random.get_rng_state()
    assert tell_half_on_cpu(cfg, model) > 0
    after = model.generator.net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in model.generator.net.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_what_a_cpu_cannot_do_in_half_precision_is_told(ready, monkeypatch):
    cfg, model = ready("precision=fp16")

    def forward(lq):
        raise RuntimeError("\"grid_sampler_2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr(model.generator.net, "forward", forward)
    with pytest.raises(ConfigError, match=r"^precision\.name=fp16: arch needs .*precision=fp32"):
        tell_half_on_cpu(cfg, model)
