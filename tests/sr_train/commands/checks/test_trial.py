"""Each network and loss by itself: what is wrong with which, with those that start late too."""

import pytest
import torch
from torch import nn

from sr_train.commands.checks.dry_step import toy_batches
from sr_train.commands.checks.trial import try_parts
from sr_train.engine.untouched import untouched
from sr_train.factory.models import make_model
from tests.sr_train.commands.checks.test_dry_step import COMPACT, config_of, sample_of

HERE = __name__
GAN = ("discriminator=patchgan", "+objective=gan", "objective_d=[gan]", "data.lq_size=32")


class Fails(nn.Module):
    def forward(self, pred, target):
        raise KeyError("late")


class Infinite(nn.Module):
    def forward(self, pred, target):
        return (pred - target).abs().mean() / 0.0


class NotDeterministic(nn.Module):
    """Uses what torch has no deterministic way for on any device."""

    def forward(self, pred, target):
        places = torch.zeros(2, dtype=torch.long, device=pred.device)
        torch.zeros(4, device=pred.device).put_(places, pred.detach().flatten()[:2])
        return (pred - target).abs().mean()


class LateBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred):
        return pred.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(
            "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you "
            "set 'torch.use_deterministic_algorithms(True)'."
        )


class BackwardNotDeterministic(nn.Module):
    def forward(self, pred, target):
        return LateBackward.apply(pred).mean()


class NeedsLarge(nn.Module):
    def forward(self, pred, target):
        if pred.shape[-1] < 64:
            raise ValueError("needs 64 pixels")
        return (pred - target).abs().mean()


@pytest.fixture
def tried():
    before = torch.are_deterministic_algorithms_enabled()

    def make(*overrides):
        cfg = config_of(*COMPACT, "plugins=[tests]", "data.lq_size=32", *overrides)
        model = make_model(cfg, torch.device("cpu"))
        batches = toy_batches(cfg, sample_of(cfg))
        torch.use_deterministic_algorithms(cfg.train.deterministic)
        problems, batch = try_parts(cfg, model, batches)
        return problems, batch["lq"].shape[-1], model

    yield make
    torch.use_deterministic_algorithms(before)


def loss(kind, name="l1"):
    return f"objective.{name}.loss={{_target_: {HERE}.{kind.__name__}}}"


def test_shipped_parts_pass_on_a_small_crop(tried):
    assert tried()[:2] == ([], 16)


def test_a_gan_passes_on_a_whole_crop(tried):
    assert tried(*GAN)[:2] == ([], 32)


def test_every_part_at_fault_is_told_those_that_start_late_too(tried):
    problems, _, _ = tried(
        "+objective=[mse,tv]", loss(Fails, "mse"), "objective.mse.start=3", loss(Infinite)
    )
    assert len(problems) == 2
    assert problems[0] == "objective.l1: gives inf on a training crop"
    assert problems[1].startswith("objective.mse.loss: Fails failed on pred: a tensor (2, 3, 64")
    assert "KeyError: 'late'" in problems[1]


def test_what_needs_a_larger_crop_gets_that_of_the_run(tried):
    assert tried(loss(NeedsLarge))[:2] == ([], 32)


@pytest.mark.parametrize(
    ("kind", "operation"),
    [(NotDeterministic, "put_"), (BackwardNotDeterministic, "grid_sampler_2d_backward_cuda")],
)
def test_what_is_not_deterministic_is_told_before_the_run(tried, kind, operation):
    problems, _, _ = tried("train.deterministic=true", loss(kind))
    assert problems == [
        f"train.deterministic=true: objective.l1 needs {operation}, which torch cannot do "
        "deterministically on cpu; set train.deterministic=false, or choose another loss"
    ]


def test_without_deterministic_mode_it_is_nobodys_business(tried):
    assert tried(loss(NotDeterministic))[0] == []


def test_nothing_is_changed(tried):
    _, _, model = tried(*GAN)
    cfg = config_of(*COMPACT, *GAN)
    batches = toy_batches(cfg, sample_of(cfg))
    torch.manual_seed(3)
    random = torch.random.get_rng_state()
    nets = [learner.net for learner in model.learners.values()]
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in nets]
    try_parts(cfg, model, batches)
    for net, kept in zip(nets, before, strict=True):
        assert all(torch.equal(kept[name], value) for name, value in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())
        assert all(p.requires_grad for p in net.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_untouched_leaves_buffers_gradients_and_random_numbers():
    net = nn.BatchNorm2d(3)
    torch.manual_seed(1)
    random = torch.random.get_rng_state()
    with untouched(net):
        net(torch.rand(2, 3, 4, 4)).sum().backward()
    assert float(net.num_batches_tracked) == 0
    assert net.weight.grad is None
    assert torch.equal(random, torch.random.get_rng_state())
