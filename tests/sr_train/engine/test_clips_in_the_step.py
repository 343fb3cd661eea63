"""Clips go through the step that images go through."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from losses.gan import GeneratorLoss
from losses.pixel import L1Loss
from losses.ssim import SSIMLoss
from losses.temporal import TemporalDifferenceLoss
from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from sr_train.engine.context import AdversaryContext, StepContext
from sr_train.engine.objective import Term
from sr_train.factory.models import placed
from tests.closeness import assert_rounded_alike

from .conftest import TinyNet, pieces
from .gans import PRECISIONS, generator_term, gradients, make_gan, run
from .test_gan_step import WAITS
from .test_model import DeviceSGD, take_fifty_steps_without_synchronising


class ClipNet(nn.Module):
    """Mixes each frame with its neighbours, then two convolutions and a pixel shuffle, x2."""

    def __init__(self, spikes: int = 0) -> None:
        super().__init__()
        extra = {"spikes": spikes} if spikes else {}
        self.spec = NetSpec(scale=2, takes_clips=True, time_field=1, extra_inputs=extra)
        self.mix = nn.Conv3d(3 + spikes, 8, (3, 1, 1), padding=(1, 0, 0))
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 12, 3, padding=1)
        self.seen: list[torch.Size] = []

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        self.seen.append(lq.shape)
        mixed = self.mix(lq.transpose(1, 2)).transpose(1, 2)
        maps = self.last(torch.relu(self.first(mixed.flatten(0, 1))))
        return nn.functional.pixel_shuffle(maps, 2).unflatten(0, lq.shape[:2])


class EachFrame(nn.Module):
    """A network of images, frame by frame."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TinyNet()
        self.spec = NetSpec(scale=2, takes_clips=True)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return self.net(lq.flatten(0, 1)).unflatten(0, lq.shape[:2])


def clips(count=2, frames=3, size=8, seed=0, spikes=0):
    generator = torch.Generator().manual_seed(seed)

    def pixels(side):
        shape = (count, frames, 3, side, side)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    batch = {"lq": pixels(size), "gt": pixels(2 * size)}
    if spikes:
        shape = (count, frames, spikes, size, size)
        batch["spikes"] = torch.randint(-9, 10, shape, generator=generator).to(torch.float16)
    return batch


def loss_of(model, batch):
    model.optimize_parameters(batch, last_micro_batch=True)
    return model.meter.read().means["loss/total"]


@pytest.mark.parametrize("loss", [L1Loss(), SSIMLoss(window=3)])
def test_a_loss_of_images_takes_every_frame_as_an_image(make_model, loss):
    terms = {"only": Term("only", loss)}
    batch = clips()
    images = {name: value.flatten(0, 1) for name, value in batch.items()}
    whole = make_model(terms=terms, net=EachFrame())
    alone = make_model(terms=terms)
    whole.generator.net.net.load_state_dict(alone.generator.net.state_dict())
    assert loss_of(whole, batch) == pytest.approx(loss_of(alone, images), rel=1e-6)
    for found, expected in zip(gradients(whole.generator), gradients(alone.generator), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_micro_batches_of_clips_add_up(make_model, precision):
    batch = clips(count=4)
    net = ClipNet()
    whole = make_model(precision, net=copy.deepcopy(net))
    split = make_model(precision, net=net, accum=2)
    run(whole, [batch])
    run(split, pieces(batch, 2), last=[False, True])
    dtype = whole.precision.dtype
    # Sums over 4 * 3 * 8 * 8 pixels, in other parts; in half precision what goes in is rounded.
    roundings = 768 if precision == "fp32" else 16
    for a, b in zip(gradients(whole.generator), gradients(split.generator), strict=True):
        assert_rounded_alike(a, b, roundings, dtype=dtype)
    assert whole.generator.net.seen[0] == (4, 3, 3, 8, 8)


def test_extra_inputs_follow_the_colours_with_their_values(make_model):
    net = ClipNet(spikes=5)
    model = make_model(net=net)
    batch = clips(spikes=5)
    ctx = StepContext(model, batch)
    assert ctx.net_input.shape == (2, 3, 8, 8, 8)
    torch.testing.assert_close(ctx.net_input[:, :, 3:], batch["spikes"].float())
    torch.testing.assert_close(ctx.net_input[:, :, :3], batch["lq"] / 255.0)
    torch.testing.assert_close(ctx.lq, (batch["lq"] / 255.0).flatten(0, 1))
    assert ctx.pred.shape == ctx.gt.shape == ctx.lq_up.shape == (6, 3, 16, 16)
    run(model, [batch])
    assert net.mix.weight.grad[:, 3:].abs().sum() > 0


def test_a_temporal_loss_learns_how_many_frames_a_clip_has(make_model):
    terms = {"jump": Term("jump", TemporalDifferenceLoss())}
    batch = clips()
    model = make_model(terms=terms, net=EachFrame())
    ctx = StepContext(model, batch)
    changes = [x.unflatten(0, (2, 3)).diff(dim=1) for x in (ctx.pred, ctx.gt)]
    expected = (changes[0] - changes[1]).abs().mean().item()
    assert loss_of(model, batch) == pytest.approx(expected, rel=1e-6)


def test_a_temporal_loss_refuses_images(make_model, make_batch):
    model = make_model(terms={"jump": Term("jump", TemporalDifferenceLoss())})
    with pytest.raises(ConfigError, match=r"objective\.jump.*clips of at least 2"):
        run(model, [make_batch()])


@pytest.mark.parametrize("frames", [1, 2])
def test_the_discriminator_sees_the_same_frames_of_both_kinds(frames):
    model = make_gan(net=EachFrame(), frames=frames)
    batch = clips(count=3, frames=4)
    seen = []
    model.discriminator.net.register_forward_pre_hook(lambda net, args: seen.append(args[0]))
    torch.manual_seed(1)
    ctx = StepContext(model, batch)
    view = AdversaryContext(ctx, model.discriminator, model)
    assert ctx.fake_logits.shape[0] == ctx.real_logits.shape[0] == 3 * frames
    assert view.fake.shape[0] == view.real.shape[0] == 3 * frames
    truth = ctx.gt.unflatten(0, (3, 4))
    places = [
        [int((truth[c] - x).abs().sum((1, 2, 3)).argmin()) for x in each]
        for c, each in enumerate(view.real.unflatten(0, (3, frames)))
    ]
    for c, own in enumerate(places):
        assert own == sorted(set(own)), "frames in their order, none twice"
        for k, t in enumerate(own):
            at = c * frames + k
            assert torch.equal(view.real[at], truth[c, t])
            assert torch.equal(view.fake[at], ctx.pred.unflatten(0, (3, 4))[c, t])
    assert torch.equal(seen[0], view.fake)
    assert torch.equal(seen[1], view.real)


def test_other_frames_are_drawn_each_time_and_all_of_them_where_nothing_is_said():
    model = make_gan(net=EachFrame(), frames=1)
    batch = clips(count=1, frames=6)
    torch.manual_seed(0)
    drawn = {
        float(StepContext(model, batch).seen_by_discriminator(torch.arange(6.0))[0])
        for _ in range(40)
    }
    assert drawn == set(map(float, range(6)))
    everything = StepContext(make_gan(net=EachFrame()), batch)
    assert len(everything.seen_by_discriminator(everything.gt)) == 6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gan_on_clips_trains(precision):
    model = make_gan(precision, net=ClipNet(), frames=2)
    run(model, [clips(seed=seed) for seed in range(3)])
    read = model.meter.read()
    assert not read.non_finite
    assert {"loss/gan", "loss_d/gan", "gan/d_accuracy"} <= set(read.means)


def test_channels_last_is_for_convolutions_of_images_alone():
    net = placed(ClipNet(), torch.device("cpu"), channels_last=True)
    assert net.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert net.mix.weight.is_contiguous()
    assert net(torch.rand(1, 2, 3, 6, 6)).shape == (1, 2, 3, 12, 12)


def test_clips_are_handed_on_as_they_are(make_model):
    model = make_model(net=ClipNet())
    model._channels_last = True
    clip = torch.rand(1, 2, 3, 4, 4)
    assert model.layout(clip) is clip


def gan_of_clips(precision, **settings):
    terms = {
        "l1": generator_term("l1", L1Loss()),
        "gan": generator_term("gan", GeneratorLoss(), 0.1),
        "jump": generator_term("jump", TemporalDifferenceLoss()),
    }
    return make_gan(precision, net=ClipNet(spikes=2), terms=terms, frames=2, **settings)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_on_clips_never_waits_for_the_device(precision):
    model = gan_of_clips(precision, accum=2, max_norm=1.0, optimizer=DeviceSGD)
    batches = [clips(spikes=2), clips(spikes=2, seed=1)]
    run(model, batches, last=[False, True])
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        run(model, batches, last=[False, True])
    seen = {event.key for event in trace.key_averages()}
    assert {"aten::conv3d", "aten::argsort", "ConvolutionBackward0"} <= seen
    assert not WAITS & seen


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_on_clips_never_synchronises_on_cuda(precision):
    model = gan_of_clips(precision, max_norm=1.0, device=torch.device("cuda"))
    take_fifty_steps_without_synchronising(model, clips(spikes=2))
