"""What a step of both networks computes: with every discriminator, and never more than asked."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from archs.patchgan import PatchGANDiscriminator
from losses.gan import (
    DiscriminatorLoss,
    FeatureMatchingLoss,
    GeneratorLoss,
    GradientPenalty,
    R1Penalty,
    RelativisticDiscriminatorLoss,
    RelativisticGeneratorLoss,
)
from losses.pixel import L1Loss
from tests.archs.discriminators import SMALL, build

from .gans import PRECISIONS, discriminator_term, generator_term, make_gan, run
from .test_model import DeviceSGD, take_fifty_steps_without_synchronising


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("penalty", [R1Penalty(every=1), GradientPenalty()])
@pytest.mark.parametrize("name", ["unet", "patchgan_instance", "multiscale"])
def test_a_gradient_penalty_is_that_of_fp32_in_every_precision(
    make_batch, precision, penalty, name
):
    given = {}

    class Noting(nn.Module):
        def forward(self, real, fake, net_d, step):
            given.update(real=real, fake=fake, twin=copy.deepcopy(net_d))
            names = {"real": real, "fake": fake, "net_d": net_d, "step": step}
            asked = penalty.forward.__code__.co_varnames[1 : penalty.forward.__code__.co_argcount]
            torch.manual_seed(7)
            return penalty(**{key: names[key] for key in asked})

    terms = {"l1": generator_term("l1", L1Loss())}
    terms_d = {"penalty": discriminator_term("penalty", Noting(), 5.0)}
    model = make_gan(precision, critic=build(SMALL[name]), terms=terms, terms_d=terms_d)
    run(model, [make_batch(size=16)])

    twin, real, fake = given["twin"], given["real"], given["fake"]
    torch.manual_seed(7)
    if isinstance(penalty, GradientPenalty):
        share = torch.rand(len(real), 1, 1, 1)
        points = (real * share + fake * (1 - share)).requires_grad_()
    else:
        points = real.clone().requires_grad_()
    logits = twin(points)
    costs = []
    for scale in [logits] if isinstance(logits, torch.Tensor) else logits:
        score = (scale.flatten(1).sum(1) / scale[0].numel() ** 0.5).sum()
        (slope,) = torch.autograd.grad(score, points, create_graph=True)
        squares = slope.flatten(1).square().sum(1)
        gp = isinstance(penalty, GradientPenalty)
        costs.append(((squares.sqrt() - 1).square() if gp else squares / 2).mean())
    (5.0 * torch.stack(costs).mean()).backward()
    expected = {n: p.grad for n, p in twin.named_parameters() if p.grad is not None}
    assert expected
    found = dict(model.discriminator.net.named_parameters())
    a, b = (
        torch.cat([grad.flatten() for grad in grads])
        for grads in (expected.values(), [found[key].grad for key in expected])
    )
    assert float((a - b).norm()) <= 1e-3 * float(a.norm()) > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", SMALL)
def test_features_match_with_every_discriminator(make_batch, precision, name):
    terms = {"features": generator_term("features", FeatureMatchingLoss(), 10.0)}
    terms_d = {"gan": discriminator_term("gan", DiscriminatorLoss())}
    critic = build(SMALL[name])
    model = make_gan(precision, critic=critic, terms=terms, terms_d=terms_d, init_scale=256.0)
    run(model, [make_batch(size=16)])
    window = model.meter.read()
    assert window.non_finite == {}
    assert window.means["loss/features"] > 0
    assert window.means["grad_norm/g"] > 0
    assert window.means["grad_norm/d"] > 0


@pytest.mark.parametrize("name", SMALL)
def test_relativistic_losses_work_with_every_discriminator(make_batch, name):
    model = make_gan(
        critic=build(SMALL[name]),
        terms={"gan": generator_term("gan", RelativisticGeneratorLoss())},
        terms_d={"gan": discriminator_term("gan", RelativisticDiscriminatorLoss())},
    )
    run(model, [make_batch(i, size=16) for i in range(2)])
    window = model.meter.read()
    assert window.non_finite == {}
    assert min(window.means["grad_norm/g"], window.means["grad_norm/d"]) > 0


WAITS = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_of_both_never_waits_for_the_device(make_batch, precision):
    terms_d = {
        "gan": discriminator_term("gan", DiscriminatorLoss()),
        "r1": discriminator_term("r1", R1Penalty(every=1)),
        "gp": discriminator_term("gp", GradientPenalty()),
    }
    terms = {
        "l1": generator_term("l1", L1Loss()),
        "gan": generator_term("gan", GeneratorLoss(), 0.1),
        "features": generator_term("features", FeatureMatchingLoss()),
    }
    critic = PatchGANDiscriminator(num_feat=4, num_layers=1)
    model = make_gan(
        precision,
        critic=critic,
        terms=terms,
        terms_d=terms_d,
        accum=2,
        max_norm=1.0,
        optimizer=DeviceSGD,
    )
    run(model, [make_batch(), make_batch()], last=[False, True])
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        run(model, [make_batch(), make_batch()], last=[False, True])
    seen = {event.key for event in trace.key_averages()}
    assert {"aten::conv2d", "ConvolutionBackwardBackward0"} <= seen
    assert not WAITS & seen


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_of_both_never_synchronises_on_cuda(make_batch, precision):
    model = make_gan(precision, max_norm=1.0, device=torch.device("cuda"))
    take_fifty_steps_without_synchronising(model, make_batch())


class Counting(TorchDispatchMode):
    """Count the operations on tensors of more than one element, in both directions."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if any(x.numel() > 1 for x in tensors):
            self.counts[str(function)] += 1
        return result


def test_a_step_without_a_gan_computes_what_a_hand_written_one_does(make_model, make_batch):
    model = make_model(optimizer=DeviceSGD)
    run(model, [make_batch()])
    with Counting() as step:
        run(model, [make_batch()])

    net, average = model.generator.net, model.averages["ema"].net
    optimizer, batch, seed = model.generator.optimizer, make_batch(), torch.ones(())
    with Counting() as by_hand:
        lq, gt = (batch[name].float().div_(255) for name in ("lq", "gt"))
        loss = (net(lq) - gt).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward(seed)
        nn.utils.get_total_norm([p.grad for p in net.parameters()])
        optimizer.step()
        with torch.no_grad():
            for kept, live in zip(average.parameters(), net.parameters(), strict=True):
                kept.lerp_(live, seed)
    by_hand.counts["aten.index_select.default"] = 1  # the learning rate, kept on the device
    assert step.counts == by_hand.counts
    assert step.counts["aten.convolution.default"] == 2
