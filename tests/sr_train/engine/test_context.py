"""What a loss may ask for: made once, only if asked, and in the right precision."""

import pytest
import torch
from torch import nn

from archs.patchgan import MultiScalePatchGANDiscriminator
from losses.gan import DiscriminatorLoss, FeatureMatchingLoss, GeneratorLoss
from losses.pixel import L1Loss
from sr_train.engine.context import AdversaryContext, StepContext, to_unit_range

from .gans import PRECISIONS, discriminator_term, generator_term, make_gan, run


class Asks(nn.Module):
    """A term that asks for everything of a discriminator."""

    def forward(self, pred, fake_logits, real_logits, fake_features, real_features):
        return pred.mean() + fake_logits.mean() + fake_features[0].mean()


def forwards_of(net):
    """Return the list of images that a network is going to see."""
    seen = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    return seen


def test_the_discriminator_judges_once_however_many_terms_ask(make_batch):
    terms = {
        "gan": generator_term("gan", GeneratorLoss()),
        "again": generator_term("again", GeneratorLoss("hinge")),
        "features": generator_term("features", FeatureMatchingLoss()),
    }
    terms_d = {
        "gan": discriminator_term("gan", DiscriminatorLoss()),
        "hinge": discriminator_term("hinge", DiscriminatorLoss("hinge")),
    }
    model = make_gan(terms=terms, terms_d=terms_d)
    seen = forwards_of(model.discriminator.net)
    run(model, [make_batch()])
    assert len(seen) == 4  # fake and real, in the phase of each


def test_real_images_are_judged_for_the_generator_only_where_a_term_asks(make_batch):
    model = make_gan()
    seen = forwards_of(model.discriminator.net)
    run(model, [make_batch()])
    assert len(seen) == 3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_generators_term_gets_of_the_discriminator(make_batch, precision):
    model = make_gan(precision, terms={"asks": generator_term("asks", Asks())})
    ctx = StepContext(model, make_batch())
    fake, real = ctx.fake_features, ctx.real_features
    for tensor in (ctx.fake_logits, ctx.real_logits, *fake, *real):
        assert tensor.dtype == torch.float32
    assert ctx.fake_logits.requires_grad
    assert all(each.requires_grad for each in fake)
    assert not ctx.real_logits.requires_grad
    assert not any(each.requires_grad for each in real)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_discriminators_term_gets(make_batch, precision):
    critic = MultiScalePatchGANDiscriminator(num_feat=4, num_layers=1, num_scales=2)
    model = make_gan(precision, critic=critic)
    ctx = StepContext(model, make_batch())
    view = AdversaryContext(ctx, model.discriminator, model)
    assert ctx.pred.requires_grad
    assert torch.equal(view.fake, ctx.pred)
    assert torch.equal(view.real, ctx.gt)
    assert not view.fake.requires_grad
    assert (view.fake.dtype, view.real.dtype) == (torch.float32, torch.float32)
    assert view.net_d is critic
    for logits in (view.fake_logits, view.real_logits):
        assert [(x.dtype, x.requires_grad) for x in logits] == [(torch.float32, True)] * 2


def test_each_context_tells_the_step_of_its_own_learner(make_batch):
    model = make_gan()
    run(model, [make_batch()])
    model.generator.steps = 9
    ctx = StepContext(model, make_batch())
    assert (ctx.step, AdversaryContext(ctx, model.discriminator, model).step) == (10, 2)


def test_a_prediction_is_made_once_and_on_demand(make_batch):
    model = make_gan(terms={"l1": generator_term("l1", L1Loss())})
    seen = forwards_of(model.generator.net)
    ctx = StepContext(model, make_batch())
    assert seen == []
    assert ctx.pred is ctx.pred
    assert ctx.image("pred", "rgb") is ctx.pred
    assert ctx.image("pred", "y") is ctx.image("pred", "y")
    assert ctx.image("pred", "cbcr").shape[1] == 2
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (torch.tensor([255], dtype=torch.uint8), 1.0),
        (torch.tensor([65535], dtype=torch.int32).to(torch.uint16), 1.0),
        (torch.tensor([0.25], dtype=torch.float64), 0.25),
        (torch.tensor([0.5], dtype=torch.float16), 0.5),
    ],
)
def test_pixels_become_float32_in_the_unit_range(stored, value):
    pixels = to_unit_range(stored)
    assert pixels.dtype == torch.float32
    assert float(pixels) == value


def test_float32_pixels_are_not_copied():
    pixels = torch.rand(2)
    assert to_unit_range(pixels).data_ptr() == pixels.data_ptr()
