import pytest
import torch
from torch import nn

from losses.pixel import L1Loss
from sr_train.api.errors import ConfigError
from sr_train.api.loss_inputs import GENERATOR, check_planes, resolve_inputs
from sr_train.config.settings import ObjectiveTermConfig
from sr_train.engine.objective import Objective, Term


class Wants(nn.Module):
    def forward(self, pred, targett):
        return (pred - targett).mean()


class Optional(nn.Module):
    def forward(self, pred, target, strength=2.0):
        return (pred - target).mean() * strength


def test_an_unknown_wish_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"objective.x.loss: Wants.*did you mean 'target'"):
        resolve_inputs(Wants().forward, "objective.x", GENERATOR)


def test_parameters_with_a_default_are_left_alone():
    assert resolve_inputs(Optional().forward, "objective.x", GENERATOR) == ["pred", "target"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": 0.0}, "weight=0: expected"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"target": "lr"}, "target=lr"),
        ({"colour": "rgbb"}, "colour=rgbb"),
    ],
)
def test_impossible_terms_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Term("x", L1Loss(), ObjectiveTermConfig(**settings))


def test_no_term_is_an_error():
    with pytest.raises(ConfigError, match="at least one"):
        Objective({})


def test_what_is_asked_for_arrives(make_model, make_batch):
    seen = {}

    class Everything(nn.Module):
        def forward(self, pred, target, gt, lq, lq_up, ema_pred, step):
            seen.update(locals())
            return pred.mean()

    model = make_model(terms={"all": Term("all", Everything(), ObjectiveTermConfig(target="lq"))})
    batch = make_batch(size=8, count=2)
    model.optimize_parameters(batch, last_micro_batch=True)
    assert seen["step"] == 1
    assert seen["lq"].shape == (2, 3, 8, 8)
    for name in ("pred", "target", "gt", "lq_up", "ema_pred"):
        assert seen[name].shape == (2, 3, 16, 16), name
        assert seen[name].dtype == torch.float32
    assert torch.equal(seen["target"], seen["lq_up"])
    assert torch.equal(seen["gt"], batch["gt"].float() / 255)


def test_total_is_the_weighted_sum_in_fp32(make_model, make_batch):
    terms = {
        "a": Term("a", L1Loss(), ObjectiveTermConfig(weight=0.25)),
        "b": Term("b", L1Loss(), ObjectiveTermConfig(weight=2.0, target="lq")),
    }
    model = make_model("bf16", terms=terms)
    model.optimize_parameters(make_batch(), last_micro_batch=True)
    means = model.meter.read().means
    expected = 0.25 * means["loss/a"] + 2.0 * means["loss/b"]
    assert means["loss/total"] == pytest.approx(expected, rel=1e-6)


def test_a_loss_that_cannot_use_its_images_is_named(make_model, make_batch):
    class Picky(nn.Module):
        def forward(self, pred, target):
            raise ValueError("pred must be striped")

    model = make_model(terms={"picky": Term("picky", Picky())})
    with pytest.raises(ConfigError, match=r"^objective\.picky: pred must be striped$"):
        model.optimize_parameters(make_batch(size=8, count=2), last_micro_batch=True)


def test_planes_a_loss_does_not_take_are_an_error_before_training():
    class Tinted(nn.Module):
        planes = (1, 3)

    check_planes(Tinted(), 3, "objective.x")
    check_planes(L1Loss(), 2, "objective.x")
    with pytest.raises(ConfigError, match=r"objective.x: Tinted .* 1 or 3 planes .* have 2"):
        check_planes(Tinted(), 2, "objective.x")
