"""The discriminator's side of the step: what it sees, learns and leaves alone, and how often."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from archs.patchgan import PatchGANDiscriminator
from losses.gan import (
    DiscriminatorLoss,
    GeneratorLoss,
    R1Penalty,
)
from losses.pixel import L1Loss
from sr_train.api.errors import PluginError
from sr_train.config.settings import PaceConfig
from sr_train.engine.adversary import Pace, discriminator_stats, frozen
from tests.toys import differing

from .conftest import pieces
from .gans import PRECISIONS, discriminator_term, generator_term, gradients, make_gan, run, state_of

NEVER = Pace(PaceConfig(start=10**6))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_learner_unscales_once_per_step(make_batch, monkeypatch, precision):
    model = make_gan(precision, accum=2)
    calls = {"g": 0, "d": 0}
    for name, learner in model.learners.items():

        def spy(grads, name=name, original=learner.scaler.unscale_):
            calls[name] += 1
            return original(grads)

        monkeypatch.setattr(learner.scaler, "unscale_", spy)
    run(model, [make_batch(i) for i in range(6)], last=[False, True] * 3)
    assert calls == {"g": 3, "d": 3}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradients_of_both_have_the_size_of_fp32(make_batch, precision):
    reference, model = make_gan("fp32"), make_gan(precision)
    for each in (reference, model):
        run(each, [make_batch()])
    expected, found = reference.meter.read().means, model.meter.read().means
    for name in ("grad_norm/g", "grad_norm/d"):
        assert found[name] == pytest.approx(expected[name], rel=0.05), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_logged_norm_of_the_discriminator_is_the_clipped_norm(make_batch, precision):
    free, bound = make_gan(precision), make_gan(precision, max_norm=1e-4)
    for each in (free, bound):
        run(each, [make_batch()])
    window = bound.meter.read()
    norm = window.means["grad_norm/d"]
    assert norm == free.meter.read().means["grad_norm/d"]
    measured = torch.stack([g.norm() for g in gradients(free.discriminator)]).norm()
    assert norm == pytest.approx(float(measured), rel=1e-5)
    assert window.means["clip_fraction/d"] == 1.0
    assert window.means["clip_fraction/g"] == 0.0
    pairs = zip(gradients(free.discriminator), gradients(bound.discriminator), strict=True)
    for whole, clipped in pairs:
        torch.testing.assert_close(clipped, whole * (1e-4 / norm), rtol=1e-4, atol=1e-12)


def test_the_generators_phase_leaves_no_gradient_on_the_discriminator(make_batch):
    model = make_gan(pace=NEVER)
    without = make_gan(pace=NEVER, terms={"l1": generator_term("l1", L1Loss())})
    for each in (model, without):
        run(each, [make_batch()])
        assert all(p.grad is None for p in each.discriminator.parameters)
        assert all(p.requires_grad for p in each.discriminator.parameters)
    pairs = zip(gradients(model.generator), gradients(without.generator), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs), "the GAN term reaches the generator"


def test_the_discriminators_phase_leaves_no_gradient_on_the_generator(make_batch):
    both, alone = make_gan(), make_gan(pace=NEVER)
    for each in (both, alone):
        run(each, [make_batch()])
    assert differing(gradients(both.generator), gradients(alone.generator)) == []
    assert len(gradients(both.discriminator)) == len(both.discriminator.parameters)


def test_what_was_frozen_learns_again_even_after_an_error_and_what_was_not_stays(make_batch):
    class Fails(nn.Module):
        def forward(self, fake_logits):
            raise KeyError("midway")

    model = make_gan(terms={"fails": generator_term("fails", Fails())})
    kept = model.discriminator.net.conv0.weight.requires_grad_(False)
    with pytest.raises(PluginError):
        run(model, [make_batch()])
    assert {n for n, p in model.discriminator.net.named_parameters() if not p.requires_grad} == {
        "conv0.weight"
    }
    with frozen(model.discriminator.net):
        assert not any(p.requires_grad for p in model.discriminator.net.parameters())
    assert not kept.requires_grad


class Spy(nn.Module):
    """The usual loss, which notes what it is given."""

    def __init__(self):
        super().__init__()
        self.loss = DiscriminatorLoss()
        self.seen = []

    def forward(self, fake_logits, real_logits, fake, real):
        self.seen.append((fake_logits, real_logits, fake, real, torch.is_autocast_enabled("cpu")))
        return self.loss(fake_logits, real_logits)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_discriminator_has_its_own_autocast_region_and_sees_detached_floats(
    make_batch, precision
):
    spy = Spy()
    model = make_gan(precision, terms_d={"gan": discriminator_term("gan", spy)})
    net = model.discriminator.net
    entered, dtypes, backward = [], [], []
    net.register_forward_pre_hook(lambda m, args: entered.append(args[0]))
    net.conv1.register_forward_hook(lambda m, args, out: dtypes.append(out.dtype))
    net.conv1.weight_orig.register_hook(
        lambda grad: backward.append((grad.dtype, torch.is_autocast_enabled("cpu")))
    )
    run(model, [make_batch()])
    assert dtypes == [model.precision.dtype] * 3  # the generator's phase, real, fake
    assert [(x.dtype, x.requires_grad) for x in entered] == [
        (torch.float32, True),
        (torch.float32, False),
        (torch.float32, False),
    ]
    ((*tensors, enabled),) = spy.seen
    assert {x.dtype for x in tensors} == {torch.float32}
    assert [x.requires_grad for x in tensors] == [True, True, False, False]
    assert not enabled
    assert backward
    assert set(backward) == {(torch.float32, False)}


class At(nn.Module):
    """Multiply a mean by `value` at one step, by zero at others."""

    def __init__(self, step, value=float("inf")):
        super().__init__()
        self.at, self.value = step, value


class GeneratorAt(At):
    def forward(self, pred, step):
        return pred.mean() * (self.value if step == self.at else 0.0)


class DiscriminatorAt(At):
    def forward(self, fake_logits, step):
        return fake_logits.mean() * (self.value if step == self.at else 0.0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("broken", ["g", "d"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_non_finite_gradient_stops_its_own_learner_alone(make_batch, precision, broken, value):
    terms = {
        "l1": generator_term("l1", L1Loss()),
        "gan": generator_term("gan", GeneratorLoss(), 0.1),
    }
    terms_d = {"gan": discriminator_term("gan", DiscriminatorLoss())}
    if broken == "g":
        terms["at"] = generator_term("at", GeneratorAt(3, value))
    else:
        terms_d["at"] = discriminator_term("at", DiscriminatorAt(3, value))
    model = make_gan(precision, terms=terms, terms_d=terms_d)
    run(model, [make_batch(i) for i in range(2)])
    before = {name: state_of(model, name) for name in "gd"}
    model.meter.read()
    run(model, [make_batch(2)])
    window = model.meter.read()
    sound = "d" if broken == "g" else "g"
    assert differing(before[broken], state_of(model, broken)) == []
    assert differing(before[sound]["weights"], state_of(model, sound)["weights"])
    assert {n: each.num_skipped for n, each in model.learners.items()} == {broken: 1, sound: 0}
    assert window.non_finite[f"grad_norm/{broken}"] == 1
    assert f"grad_norm/{sound}" not in window.non_finite
    run(model, [make_batch(3)])
    assert differing(before[broken]["weights"], state_of(model, broken)["weights"])


def test_a_prediction_that_is_not_finite_stops_both(make_batch):
    model = make_gan()
    run(model, [make_batch()])
    before = {name: state_of(model, name) for name in "gd"}
    buffers = copy.deepcopy(dict(model.discriminator.net.named_buffers()))
    poison = {name: image.float() / 255 for name, image in make_batch(1).items()}
    poison["lq"][0, 0, 0, 0] = float("nan")
    run(model, [poison])
    for name in "gd":
        assert differing(before[name], state_of(model, name)) == []
    assert all(torch.isfinite(b).all() for b in model.discriminator.net.buffers())
    assert set(buffers) == set(dict(model.discriminator.net.named_buffers()))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("accum", [2, 4])
def test_micro_batches_give_both_the_gradient_of_the_whole(make_batch, precision, accum):
    whole, parts = make_gan(precision), make_gan(precision, accum=accum)
    batch = make_batch(count=4)
    run(whole, [batch])
    run(parts, pieces(batch, accum), last=[False] * (accum - 1) + [True])
    tolerance = {"fp32": 1e-5, "bf16": 5e-2, "fp16": 5e-3}[precision]
    for name in "gd":
        a, b = (
            torch.cat([g.flatten() for g in gradients(model.learners[name])])
            for model in (whole, parts)
        )
        assert float((a - b).norm()) <= tolerance * float(a.norm()), name
    assert [m.discriminator.steps for m in (whole, parts)] == [1, 1]


@pytest.mark.parametrize(
    ("pace", "expected"),
    [
        (Pace(), [1, 2, 3, 4, 5, 6, 7]),
        (Pace(PaceConfig(every=3)), [1, 4, 7]),
        (Pace(PaceConfig(start=2)), [3, 4, 5, 6, 7]),
        (Pace(PaceConfig(every=2, start=3)), [4, 6]),
    ],
)
def test_the_discriminator_learns_at_its_pace(make_batch, pace, expected):
    model = make_gan(pace=pace, accum=2)
    learnt = []
    for step in range(1, 8):
        before = state_of(model, "d")["weights"]
        run(model, [make_batch(step), make_batch(step + 50)], last=[False, True])
        if differing(before, state_of(model, "d")["weights"]):
            learnt.append(step)
        assert ("gan/d_accuracy" in model.meter.read().means) == (step in expected)
    assert learnt == expected
    assert model.discriminator.steps == len(expected)
    assert model.generator.steps == 7


def test_an_adaptive_pace_follows_the_accuracy_and_never_starves():
    pace = Pace(PaceConfig(adaptive=True, slowest=8))
    told = [pace.adapt(accuracy) for accuracy in (0.9, 0.99, 0.99, 0.9, 0.5, 0.5, 0.5)]
    assert [text is not None for text in told] == [False, True, True, False, True, True, False]
    assert "0.990: it learns every 2 steps now (before: 1)" in str(told[1])
    assert pace.interval == 1
    steps = []
    for step in range(1, 201):
        if pace.due(step):
            steps.append(step)
        if step % 10 == 0:
            pace.adapt(1.0)
    gaps = [after - before for before, after in pairwise(steps)]
    assert max(gaps) <= 2 * pace.settings.slowest
    assert gaps[-10:] == [8] * 10


def test_a_pace_that_is_not_adaptive_stays():
    pace = Pace(PaceConfig(every=2))
    assert [pace.adapt(accuracy) for accuracy in (1.0, 0.5)] == [None, None]
    assert pace.interval == 2


def test_every_penalty_comes_at_the_discriminators_own_steps(make_batch):
    terms_d = {
        "gan": discriminator_term("gan", DiscriminatorLoss()),
        "r1": discriminator_term("r1", R1Penalty(every=2)),
        "late": discriminator_term("late", DiscriminatorLoss(), start=2),
    }
    model = make_gan(terms_d=terms_d, pace=Pace(PaceConfig(every=2)))
    penalties, late = [], []
    for step in range(1, 10):
        run(model, [make_batch(step)])
        means = model.meter.read().means
        if means.get("loss_d/r1"):
            penalties.append(step)
        if "loss_d/late" in means:
            late.append(step)
    assert penalties == [3, 7]  # its 2nd and 4th step
    assert late == [5, 7, 9]  # from its 3rd on


def test_separation_is_a_half_where_nothing_is_told_apart_and_one_where_all_is():
    apart = discriminator_stats(
        torch.tensor([2.0, 3.0]), [torch.tensor([-1.0]), torch.tensor([0.0])]
    )
    assert {name: float(value) for name, value in apart.items()} == {
        "gan/real_logits": 2.5,
        "gan/fake_logits": -0.5,
        "gan/d_accuracy": 1.0,
    }
    same = torch.tensor([-1.0, 1.0])
    assert float(discriminator_stats(same, same)["gan/d_accuracy"]) == 0.5


@pytest.mark.parametrize("chain", [("bf16", "fp16", "fp32"), ("fp32", "bf16", "fp16")])
def test_both_learners_go_on_through_a_chain_of_precisions(make_batch, chain):
    settings = {"init_scale": 1024.0, "growth_interval": 2}
    model = make_gan(chain[0], **settings)
    run(model, [make_batch(i) for i in range(3)])
    for link, precision in enumerate(chain[1:], start=1):
        stored = copy.deepcopy(model.state_dict())
        before = {name: state_of(model, name) for name in "gd"}
        model = make_gan(precision, **settings)
        notes = model.load_state_dict(stored)
        assert sum("optimizer state kept" in note for note in notes) == 2
        said = {"fp16": "no loss scale stored", "bf16": "no loss scale needed"}
        said["fp32"] = "stored loss scale dropped"
        assert sum(said[precision] in note for note in notes) == 2
        for name in "gd":
            assert differing(before[name], state_of(model, name)) == []
            assert model.learners[name].steps == 3 * link
        run(model, [make_batch(10 * link + i) for i in range(3)])
        window = model.meter.read()
        assert window.non_finite == {}
        assert {window.counts[f"grad_norm/{name}"] for name in "gd"} == {3}
        scale = 2048.0 if precision == "fp16" else 1.0
        assert {float(each.scaler.scale) for each in model.learners.values()} == {scale}


def test_the_scale_of_each_learner_is_stored(make_batch):
    terms_d = {
        "gan": discriminator_term("gan", DiscriminatorLoss()),
        "at": discriminator_term("at", DiscriminatorAt(2)),
    }
    old = make_gan("fp16", terms_d=terms_d)
    run(old, [make_batch(i) for i in range(3)])
    new = make_gan("fp16", terms_d=terms_d)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert {n: float(each.scaler.scale) for n, each in new.learners.items()} == {
        "g": 65536.0,
        "d": 32768.0,
    }
    assert new.discriminator.num_skipped == 1


@pytest.mark.parametrize(("adaptive", "interval"), [(True, 4), (False, 1)])
def test_an_adaptive_pace_is_resumed(make_batch, adaptive, interval):
    old = make_gan(pace=Pace(PaceConfig(adaptive=True), interval=4))
    run(old, [make_batch()])
    new = make_gan(pace=Pace(PaceConfig(adaptive=adaptive)))
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert new.adversary.pace.interval == interval


def test_a_discriminator_that_has_not_learnt_yet_is_not_called_silent(make_batch):
    model = make_gan(pace=Pace(PaceConfig(start=1)))
    run(model, [make_batch()])
    assert model.discriminator.parameters_without_grad() == []
    run(model, [make_batch()])
    model.discriminator.net.conv3.weight_orig.grad.zero_()
    assert model.discriminator.parameters_without_grad() == ["conv3.weight_orig"]


def test_spectral_norm_of_a_patchgan_is_stored(make_batch):
    old, new = (make_gan(critic=PatchGANDiscriminator(num_feat=4)) for _ in range(2))
    run(old, [make_batch(i, size=16) for i in range(3)])
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert differing(old.discriminator.net.state_dict(), new.discriminator.net.state_dict()) == []
    for each in (old, new):
        run(each, [make_batch(9, size=16)])
    assert differing(old.discriminator.net.state_dict(), new.discriminator.net.state_dict()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_there_is_no_accuracy_where_a_logit_is_not_finite(bad, which):
    logits = [torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0])]
    logits[which][1] = bad
    assert torch.isnan(discriminator_stats(*logits)["gan/d_accuracy"])
