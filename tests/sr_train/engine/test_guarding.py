"""No network, whoever wrote it, changes what others still use."""

import pytest
import torch
from torch import nn

from losses.gan import DiscriminatorLoss, GeneratorLoss
from losses.pixel import L1Loss
from sr_train.api.errors import PluginError
from sr_train.engine import guarding
from sr_train.engine.context import StepContext
from sr_train.engine.guarding import called
from sr_train.engine.model import to_layout
from sr_train.engine.objective import Term

from .conftest import TinyNet
from .gans import discriminator_term, generator_term, make_gan


class InPlace(TinyNet):
    """Like a published RCAN: works in 0 to 255, on its own input."""

    def forward(self, lq):
        return super().forward(lq.mul_(255)) / 255


class OnlyInEval(TinyNet):
    def forward(self, lq):
        return super().forward(lq if self.training else lq.mul_(255))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 1, 3)

    def forward(self, images, with_features=False):
        logits = self.head(images.mul_(2).sub_(1))
        return (logits, [logits]) if with_features else logits


class Reads(nn.Module):
    """A term that takes `lq` before `pred`, and notes what it got."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, lq, pred, gt, ema_pred):
        self.seen.append([each.detach().clone() for each in (lq, gt)])
        return pred.mean()


@pytest.fixture(autouse=True)
def said_again():
    guarding._say_copied.cache_clear()


def float_batch(batch):
    return {name: value.float() / 255 for name, value in batch.items()}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("is_float", [False, True])
def test_lq_stays_what_it_was(make_batch, make_model, caplog, channels_last, is_float):
    caplog.set_level("INFO", "sr_train")
    term = Reads()
    model = make_model(
        terms={"reads": Term("reads", term), "l1": Term("l1", L1Loss())}, net=InPlace()
    )
    model._channels_last = channels_last
    batch = float_batch(make_batch()) if is_float else make_batch()
    kept = {name: value.clone() for name, value in batch.items()}
    wanted = kept["lq"] if is_float else kept["lq"].float() / 255
    for _ in range(3):
        model.optimize_parameters(batch, last_micro_batch=True)
    assert len(term.seen) == 3
    for lq, _ in term.seen:
        torch.testing.assert_close(lq, wanted)
    assert all(torch.equal(kept[name], batch[name]) for name in batch)
    assert caplog.text.count("arch: InPlace changes its input in place; it is given a copy") == 1


def test_a_network_that_leaves_its_input_is_given_no_copy_after_its_first_call(make_batch):
    net, fed = TinyNet(), torch.rand(1, 3, 8, 8)
    seen = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for _ in range(3):
        called(net, fed, "arch")
    assert [each is fed for each in seen] == [False, True, True]


def test_what_a_network_does_in_eval_mode_is_looked_at_anew():
    net, fed = OnlyInEval(), torch.rand(1, 3, 8, 8)
    kept = fed.clone()
    for mode in (True, False, True, False):
        called(net.train(mode), fed, "arch")
        assert torch.equal(fed, kept)


def test_a_network_that_changes_its_input_later_is_named():
    class Late(TinyNet):
        calls = 0

        def forward(self, lq):
            self.calls += 1
            return super().forward(lq if self.calls < 3 else lq.mul_(255))

    net, fed = Late(), torch.rand(1, 3, 8, 8)
    called(net, fed, "arch")
    called(net, fed, "arch")
    with pytest.raises(PluginError, match=r"arch: Late changed its input \(1, 3, 8, 8\) float32"):
        called(net, fed, "arch")


@pytest.mark.parametrize("with_features", [False, True])
def test_the_discriminator_changes_neither_pred_nor_gt(make_batch, with_features):
    term = Reads()
    terms = {"gan": generator_term("gan", GeneratorLoss()), "reads": generator_term("reads", term)}
    terms_d = {"gan": discriminator_term("gan", DiscriminatorLoss("hinge"))}
    model = make_gan(critic=Critic(), terms=terms, terms_d=terms_d)
    model.wants_features = with_features
    batch = make_batch()
    for _ in range(2):
        ctx = StepContext(model, batch)
        before = ctx.pred.detach().clone(), ctx.gt.clone()
        assert ctx.fake_logits.requires_grad
        assert ctx.real_logits is not None
        assert torch.equal(before[0], ctx.pred)
        assert torch.equal(before[1], ctx.gt)
        model.optimize_parameters(batch, last_micro_batch=True)
    for _, gt in term.seen:
        torch.testing.assert_close(gt, batch["gt"].float() / 255)


def test_a_copy_keeps_gradient_and_layout():
    fed = to_layout(torch.rand(2, 3, 8, 8, requires_grad=True).clone(), channels_last=True)
    called(Critic(), fed, "discriminator.arch").mean().backward()
    seen = []
    net = nn.Conv2d(3, 1, 1)
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    called(net, fed, "discriminator.arch")
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert seen[0].requires_grad


def test_a_loss_that_changes_what_it_gets_is_named(make_batch, make_model):
    class Halves(nn.Module):
        def forward(self, pred, target):
            return (pred.mul_(0.5) - target).abs().mean()

    model = make_model(terms={"half": Term("half", Halves())})
    with pytest.raises(PluginError, match=r"objective\.half\.loss: Halves changed 'pred' in place"):
        model.optimize_parameters(make_batch(), last_micro_batch=True)


@pytest.mark.slow
def test_a_compiled_network_is_seen_to_change_its_input():
    net, fed = InPlace(), torch.rand(1, 3, 8, 8)
    kept = fed.clone()
    net.compile()
    for _ in range(2):
        called(net, fed, "arch")
        assert torch.equal(fed, kept)
