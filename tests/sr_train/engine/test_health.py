"""What a logged step measures beside the step: shares in the gradient, drift of colours."""

import pytest
import torch
from torch import nn

from losses.gan import GeneratorLoss
from losses.pixel import L1Loss, MSELoss
from sr_train.engine.health import HealthProbe, colour_drift, gradient_ratios
from sr_train.engine.objective import LossOutput, Term
from sr_train.monitoring.meter import Meter
from sr_train.ops.colour import YCbCr
from tests.toys import differing

from .gans import PRECISIONS, generator_term, make_gan, run, state_of

ONE = torch.ones(())


def test_shares_are_the_parts_of_the_gradient_norms():
    pred = torch.tensor([1.0, 2.0], requires_grad=True)
    terms = {
        "sum": pred.sum(),  # gradient (1, 1)
        "first": 3 * pred[0],  # gradient (3, 0)
        "constant": torch.tensor(5.0),
    }
    weights = {"sum": 2.0, "first": -1.0, "constant": 1.0}
    ratios = gradient_ratios(LossOutput(ONE, terms, weights), pred, ONE)
    total = 2 * 2**0.5 + 3
    assert {name: float(ratio) for name, ratio in ratios.items()} == pytest.approx(
        {"sum": 2 * 2**0.5 / total, "first": 3 / total}
    )


def test_a_term_that_does_not_look_at_the_prediction_has_no_share():
    pred = torch.tensor([1.0], requires_grad=True)
    other = torch.tensor([1.0], requires_grad=True)
    terms = {"sum": pred.sum(), "other": other.sum()}
    ratios = gradient_ratios(LossOutput(ONE, terms, {"sum": 1.0, "other": 1.0}), pred, ONE)
    assert {name: float(ratio) for name, ratio in ratios.items()} == {"sum": 1.0}


def test_shares_of_a_flat_objective_are_zero_and_finite():
    pred = torch.zeros(2, requires_grad=True)
    ratios = gradient_ratios(LossOutput(ONE, {"flat": (0 * pred).sum()}, {"flat": 1.0}), pred, ONE)
    assert float(ratios["flat"]) == 0.0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_small_terms_keep_their_share_in_half_precision(make_batch, precision):
    def measured(name):
        terms = {
            "l1": generator_term("l1", L1Loss(), 1e-6),
            "gan": generator_term("gan", GeneratorLoss(), 1e-6),
        }
        model = make_gan(name, terms=terms)
        model.probe.arm()
        run(model, [make_batch()])
        return model.meter.read().means

    expected, found = measured("fp32"), measured(precision)
    for name in ("grad_ratio/l1", "grad_ratio/gan"):
        assert found[name] > 1e-4
        assert found[name] == pytest.approx(expected[name], rel=0.05)
    assert found["grad_ratio/l1"] + found["grad_ratio/gan"] == pytest.approx(1.0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_looking_changes_nothing_of_the_step(make_batch, precision):
    plain, watched = (make_gan(precision, accum=2) for _ in range(2))
    watched.probe.arm()
    for model in (plain, watched):
        run(model, [make_batch(0), make_batch(1)], last=[False, True])
    for name in "gd":
        assert differing(state_of(plain, name), state_of(watched, name)) == []
    means = watched.meter.read().means
    assert {"grad_ratio/l1", "grad_ratio/gan", "health/colour_drift"} <= means.keys()
    assert not any(name.startswith(("grad_ratio", "health")) for name in plain.meter.read().means)


def test_a_probe_that_is_disarmed_costs_no_backward(make_batch, monkeypatch):
    calls = []
    original = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *args, **kw: (calls.append(1), original(*args, **kw))[1]
    )
    model = make_gan()
    run(model, [make_batch()])
    model.probe.arm()
    run(model, [make_batch()])
    assert len(calls) == 2  # one for each term
    model.probe.disarm()
    run(model, [make_batch()])
    assert len(calls) == 2


def constant(colour, size=4, count=2):
    return torch.tensor(colour).view(1, 3, 1, 1).expand(count, 3, size, size).clone()


def test_colour_drift_is_the_distance_of_mean_chroma_in_eight_bit_steps():
    ycbcr = YCbCr()
    grey, red = constant([0.5, 0.5, 0.5]), constant([0.6, 0.5, 0.5])
    # BT.601, studio range: Cb and Cr of a red that is higher by 0.1.
    expected = 0.1 * (37.797**2 + 112.0**2) ** 0.5
    assert float(colour_drift(red, grey, ycbcr)) == pytest.approx(expected, rel=1e-4)
    brighter = constant([0.7, 0.7, 0.7], size=8)
    assert float(colour_drift(brighter, grey, ycbcr)) == pytest.approx(0.0, abs=1e-4)
    half = torch.cat([red[:1], grey[:1]])
    assert float(colour_drift(half, grey, ycbcr)) == pytest.approx(expected / 2, rel=1e-4)


def test_drift_over_micro_batches_is_a_mean_with_its_count(make_batch):
    model = make_gan(accum=2)
    model.probe.arm()
    run(model, [make_batch(0), make_batch(1)], last=[False, True])
    assert model.meter.read().counts["health/colour_drift"] == 2


def test_an_image_without_colour_has_no_drift():
    class Ctx:
        pred = torch.rand(1, 1, 4, 4, requires_grad=True)
        lq = torch.rand(1, 1, 2, 2)

    meter = Meter()
    probe = HealthProbe(meter, YCbCr())
    probe.arm()
    probe.look(Ctx(), LossOutput(ONE, {"l1": Ctx.pred.sum()}, {"l1": 1.0}), ONE)
    assert set(meter.read().means) == {"grad_ratio/l1"}


def test_a_term_that_is_not_finite_shows_in_the_shares(make_batch):
    class Broken(nn.Module):
        def forward(self, pred):
            return (pred * float("inf")).mean()

    terms = {"mse": Term("mse", MSELoss()), "broken": Term("broken", Broken())}
    model = make_gan(terms=terms)
    before = state_of(model, "g")["weights"]
    model.probe.arm()
    run(model, [make_batch()])
    assert model.meter.read().non_finite["grad_ratio/broken"] == 1
    assert differing(before, state_of(model, "g")["weights"]) == []
