"""fp16 with an overflow at every seventh step: what stays, what moves, what is counted."""

import pytest
import torch
from torch import nn

from losses.gan import DiscriminatorLoss, GeneratorLoss
from losses.pixel import L1Loss
from sr_train.engine.schedule import Cosine
from tests.toys import differing

from .gans import discriminator_term, generator_term, make_gan, run, state_of

STEPS = 30
EVERY = 7
GROWTH = 5
START = 256.0


class Overflowing(nn.Module):
    """A term that is inf at each seventh step and nothing at the others."""

    def value(self, tensor, step):
        return tensor.mean() * (float("inf") if step % EVERY == 0 else 0.0)


class OfGenerator(Overflowing):
    def forward(self, pred, step):
        return self.value(pred, step)


class OfDiscriminator(Overflowing):
    def forward(self, fake_logits, step):
        return self.value(fake_logits, step)


def make(broken):
    terms = {
        "l1": generator_term("l1", L1Loss()),
        "gan": generator_term("gan", GeneratorLoss(), 0.1),
    }
    terms_d = {"gan": discriminator_term("gan", DiscriminatorLoss())}
    if broken == "g":
        terms["overflow"] = generator_term("overflow", OfGenerator())
    else:
        terms_d["overflow"] = discriminator_term("overflow", OfDiscriminator())
    return make_gan(
        "fp16",
        terms=terms,
        terms_d=terms_d,
        schedule=Cosine(steps=STEPS),
        init_scale=START,
        growth_interval=GROWTH,
    )


def expected_scales(overflows):
    """Return the scale after each step: doubled after five good ones in a row, halved by a bad."""
    scale, good, scales = START, 0, []
    for step in range(1, STEPS + 1):
        if overflows and step % EVERY == 0:
            scale, good = scale / 2, 0
        else:
            good += 1
            if good == GROWTH:
                scale, good = scale * 2, 0
        scales.append(scale)
    return scales


@pytest.mark.parametrize("broken", ["g", "d"])
def test_a_step_that_overflows_leaves_everything_of_its_learner_bit_for_bit(make_batch, broken):
    model = make(broken)
    scales = {"g": [], "d": []}
    for step in range(1, STEPS + 1):
        before = {name: state_of(model, name) for name in "gd"}
        run(model, [make_batch(step)])
        for name, learner in model.learners.items():
            after = state_of(model, name)
            if name == broken and step % EVERY == 0:
                assert differing(before[name], after) == [], step
            else:
                unmoved = set(before[name]) - {
                    d.split()[0].split("/")[1] for d in differing(before[name], after)
                }
                assert unmoved == set(), step
            scales[name].append(float(learner.scaler.scale))
    sound = "d" if broken == "g" else "g"
    assert scales == {broken: expected_scales(True), sound: expected_scales(False)}
    assert START / 2 < min(scales[broken]) <= START < max(scales[broken])

    bad = STEPS // EVERY
    learners = model.learners
    assert {n: each.num_skipped for n, each in learners.items()} == {broken: bad, sound: 0}
    assert {n: float(each.scaler.num_backoffs) for n, each in learners.items()} == {
        broken: bad,
        sound: 0,
    }
    window = model.meter.read()
    assert window.non_finite[f"grad_norm/{broken}"] == bad
    assert window.counts[f"grad_norm/{broken}"] == STEPS - bad
    assert window.counts[f"grad_norm/{sound}"] == STEPS
    assert float(model.averages["ema"].num_updates) == STEPS - (bad if broken == "g" else 0)


@pytest.mark.parametrize("broken", ["g", "d"])
def test_the_schedule_counts_what_was_applied(make_batch, broken):
    model = make(broken)
    run(model, [make_batch(step) for step in range(1, STEPS + 1)])
    bad = STEPS // EVERY
    for name, learner in model.learners.items():
        applied = STEPS - bad if name == broken else STEPS
        assert learner.lrs == pytest.approx([1e-2 * Cosine(steps=STEPS)(applied - 1)])


def test_a_scale_that_is_far_too_high_comes_down_and_training_goes_on(make_batch):
    terms = {
        "l1": generator_term("l1", L1Loss(), 10.0),
        "gan": generator_term("gan", GeneratorLoss()),
    }
    model = make_gan("fp16", terms=terms, init_scale=2.0**40)
    run(model, [make_batch(step) for step in range(40)])
    for learner in model.learners.values():
        scale, lost = float(learner.scaler.scale), learner.num_skipped
        assert 0 < lost < 35
        assert scale == 2.0 ** (40 - lost)
        assert all(torch.isfinite(p).all() for p in learner.parameters)
