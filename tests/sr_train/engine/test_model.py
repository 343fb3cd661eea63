"""The step: what it computes, in which order, in every precision, and what it never touches."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from losses.pixel import CharbonnierLoss, L1Loss, MSELoss
from sr_train.api.network import NetSpec
from sr_train.config.settings import ObjectiveTermConfig
from sr_train.engine.objective import Term
from tests.closeness import assert_rounded_alike

from .conftest import pieces

PRECISIONS = ("fp32", "bf16", "fp16")


def run(model, batches, last=None):
    for number, batch in enumerate(batches):
        is_last = last[number] if last else True
        model.optimize_parameters(batch, last_micro_batch=is_last)


def take_fifty_steps_without_synchronising(model, batch):
    pinned = {name: value.pin_memory() for name, value in batch.items()}
    run(model, [pinned] * 3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(model, [pinned] * 50)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert model.meter.read().counts["loss/total"] == 53


def assert_gradients_of_sums(a, b):
    """Assert equal gradients, each a sum over 4 * 8 * 8 pixels, added up in other parts.

    In half precision sums are fp32, but what goes into them is rounded in every layer.
    """
    dtype = a.precision.dtype
    for one, other in zip(a.generator.parameters, b.generator.parameters, strict=True):
        roundings = 256 if dtype is torch.float32 else 16
        assert_rounded_alike(other.grad, one.grad, roundings, dtype=dtype)


class DeviceSGD(torch.optim.Optimizer):
    """Keeps the protocol of fused optimizers as their CUDA kernels do.

    The CPU kernels of torch's own read learning rate and step counter, which are there anyway.
    """

    _step_supports_amp_scaling = True

    def __init__(self, params, lr, fused):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                moved = weight - group["lr"] * weight.grad
                weight.copy_(torch.where(self.found_inf > 0, weight, moved))


def weights_of(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_learns(make_model, make_batch, precision):
    model = make_model(precision)
    batch = make_batch()
    losses = []
    for _ in range(60):
        run(model, [batch])
        losses.append(model.meter.read().means["loss/total"])
    assert losses[-1] < 0.9 * losses[2]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradient_is_unscaled_once(make_model, make_batch, precision):
    """The same gradient in every precision: it would be 65536 times off if scaled or twice so."""
    reference = make_model("fp32")
    model = make_model(precision)
    run(reference, [make_batch()])
    run(model, [make_batch()])
    expected = reference.meter.read().means["grad_norm/g"]
    assert model.meter.read().means["grad_norm/g"] == pytest.approx(expected, rel=0.02)


def test_unscale_is_called_once_per_step(make_model, make_batch, monkeypatch):
    model = make_model("fp16", accum=2)
    calls = []
    original = model.generator.scaler.unscale_
    monkeypatch.setattr(
        model.generator.scaler, "unscale_", lambda g: (calls.append(1), original(g))[1]
    )
    run(model, [make_batch(1), make_batch(2)] * 3, last=[False, True] * 3)
    assert len(calls) == 3


def test_logged_norm_is_the_clipped_norm(make_model, make_batch):
    """Clipping scales the gradient by limit / logged norm, exactly that."""
    free, bound = make_model(max_norm=None), make_model(max_norm=1e-3)
    run(free, [make_batch()])
    run(bound, [make_batch()])
    window = bound.meter.read()
    norm = window.means["grad_norm/g"]
    assert norm == free.meter.read().means["grad_norm/g"]
    assert window.means["clip_fraction/g"] == 1.0
    pairs = zip(free.generator.parameters, bound.generator.parameters, strict=True)
    for whole, clipped in pairs:
        torch.testing.assert_close(clipped.grad, whole.grad * (1e-3 / norm), rtol=1e-4, atol=1e-12)


def test_backward_and_step_run_outside_autocast(make_model, make_batch):
    model = make_model("bf16")
    seen = []
    model.generator.net.first.weight.register_hook(
        lambda grad: seen.append((torch.is_autocast_enabled("cpu"), grad.dtype))
    )
    before = model.generator.optimizer.step
    model.generator.optimizer.step = lambda: (
        seen.append((torch.is_autocast_enabled("cpu"), None)),
        before(),
    )
    run(model, [make_batch()])
    assert [enabled for enabled, _ in seen] == [False, False]
    assert seen[0][1] == torch.float32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_forward_runs_in_half_and_losses_in_fp32(make_model, make_batch, precision):
    seen = {}

    class Spy(nn.Module):
        def forward(self, pred, target):
            seen["loss"] = (pred.dtype, target.dtype, torch.is_autocast_enabled("cpu"))
            return (pred - target).abs().mean()

    model = make_model(precision, terms={"spy": Term("spy", Spy())})
    model.generator.net.first.register_forward_hook(
        lambda module, inputs, output: seen.update(net=output.dtype)
    )
    run(model, [make_batch()])
    assert seen["loss"] == (torch.float32, torch.float32, False)
    assert seen["net"] == model.precision.dtype


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("accum", [2, 4])
def test_micro_batches_give_the_gradient_of_the_whole(make_model, make_batch, precision, accum):
    whole, parts = make_model(precision), make_model(precision, accum=accum)
    batch = make_batch(count=4)
    run(whole, [batch])
    run(parts, pieces(batch, accum), last=[False] * (accum - 1) + [True])
    assert_gradients_of_sums(whole, parts)


def test_ema_and_schedule_move_once_per_step(make_model, make_batch):
    model = make_model(accum=3, lr=1.0, schedule=lambda step: 1 / (1 + step))
    used = []
    for number in range(6):
        used.append(float(model.generator.optimizer.param_groups[0]["lr"]))
        run(model, [make_batch(number)], last=[number % 3 == 2])
    assert used == [1.0] * 3 + [0.5] * 3
    assert float(model.averages["ema"].num_updates) == 2
    assert model.generator.steps == 2


def poison(batch):
    return {"lq": batch["lq"].float() / 255, "gt": torch.full(batch["gt"].shape, float("nan"))}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("fused", [True, False])
def test_non_finite_gradient_changes_nothing(make_model, make_batch, precision, fused):
    model = make_model(precision, fused=fused)
    run(model, [make_batch(i) for i in range(3)])
    live = weights_of(model.generator.net)
    average = weights_of(model.averages["ema"].net)
    moments = copy.deepcopy(model.generator.optimizer.state_dict()["state"])
    updates = float(model.averages["ema"].num_updates)
    skipped = float(model.generator.num_skipped)
    model.meter.read()
    run(model, [poison(make_batch(9))])
    assert equal(live, weights_of(model.generator.net))
    assert equal(average, weights_of(model.averages["ema"].net))
    after = model.generator.optimizer.state_dict()["state"]
    for index, values in moments.items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(after[index][name])), name
    assert float(model.averages["ema"].num_updates) == updates
    assert float(model.generator.num_skipped) == skipped + 1
    assert model.meter.read().non_finite["loss/total"] == 1
    run(model, [make_batch(4)])
    assert not equal(live, weights_of(model.generator.net))
    assert float(model.generator.skipped_in_row) == 0


def test_gradients_are_never_sanitised(make_model, make_batch):
    model = make_model(max_norm=1.0, terms={"mse": Term("mse", MSELoss())})
    run(model, [poison(make_batch())])
    assert set(model.generator.non_finite_parameters()) == {
        name for name, _ in model.generator.net.named_parameters()
    }


def test_fp16_scale_backs_off_and_grows(make_model, make_batch):
    model = make_model("fp16", growth_interval=3)
    scaler = model.generator.scaler
    run(model, [poison(make_batch())])
    assert float(scaler.scale) == 32768.0
    run(model, [make_batch(i) for i in range(3)])
    assert float(scaler.scale) == 65536.0
    assert (float(scaler.num_backoffs), float(scaler.num_growths)) == (1, 1)


def test_tiny_weight_survives_fp16(make_model, make_batch):
    """1e-7 times a gradient of about 1e-3 is below the smallest fp16 number."""
    weighted = {"l1": Term("l1", L1Loss(), ObjectiveTermConfig(weight=1e-7))}
    model = make_model("fp16", terms=weighted, optimizer=torch.optim.SGD, lr=1.0)
    reference = make_model("fp32", terms=weighted, optimizer=torch.optim.SGD, lr=1.0)
    run(model, [make_batch()])
    run(reference, [make_batch()])
    for a, b in zip(model.generator.parameters, reference.generator.parameters, strict=True):
        assert float(a.grad.abs().max()) > 0
        torch.testing.assert_close(a.grad, b.grad, rtol=0.1, atol=1e-10)


def test_sign_of_a_weight_is_kept(make_model, make_batch):
    plus = make_model(terms={"l1": Term("l1", L1Loss(), ObjectiveTermConfig(weight=0.5))})
    minus = make_model(terms={"l1": Term("l1", L1Loss(), ObjectiveTermConfig(weight=-0.5))})
    run(plus, [make_batch()])
    run(minus, [make_batch()])
    for a, b in zip(plus.generator.parameters, minus.generator.parameters, strict=True):
        assert torch.equal(a.grad, -b.grad)


def test_two_terms_of_one_class_both_count(make_model, make_batch):
    terms = {
        "to_gt": Term("to_gt", CharbonnierLoss(), ObjectiveTermConfig(target="gt")),
        "to_lq": Term("to_lq", CharbonnierLoss(), ObjectiveTermConfig(target="lq")),
    }
    model = make_model(terms=terms)
    run(model, [make_batch()])
    means = model.meter.read().means
    assert means["loss/to_gt"] != means["loss/to_lq"]
    assert means["loss/total"] == pytest.approx(means["loss/to_gt"] + means["loss/to_lq"])


class Doubled(torch.autograd.Function):
    """Writes its own backward, as some networks' fast kernels do."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x + x.square()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (1 + 2 * x)


class WithItsOwnBackward(nn.Module):
    def __init__(self):
        super().__init__()
        self.spec = NetSpec(scale=2)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, lq):
        return nn.functional.pixel_shuffle(self.last(Doubled.apply(self.first(lq))), 2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_custom_autograd_functions_get_and_give_right_gradients(make_model, make_batch, precision):
    def gradients(wanted, accum):
        torch.manual_seed(3)
        model = make_model(wanted, accum=accum, net=WithItsOwnBackward())
        run(model, pieces(make_batch(count=4), accum), last=[False] * (accum - 1) + [True])
        return torch.cat([p.grad.flatten() for p in model.generator.parameters])

    exact, found = gradients("fp32", 1), gradients(precision, 2)
    assert float((found - exact).norm() / exact.norm()) < 0.05


def test_colour_y_compares_luma_alone(make_model, make_batch):
    model = make_model(terms={"y": Term("y", MSELoss(), ObjectiveTermConfig(colour="y"))})
    batch = make_batch()
    run(model, [batch])
    torch.manual_seed(0)
    net = type(model.generator.net)()
    lq, gt = (batch[name].float() / 255 for name in ("lq", "gt"))
    weights = torch.tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1) / 255
    with torch.no_grad():
        expected = (((net(lq) - gt) * weights).sum(1) ** 2).mean()
    assert model.meter.read().means["loss/y"] == pytest.approx(expected.item(), rel=1e-4)


def test_targets_are_detached_and_ema_gets_no_gradient(make_model, make_batch):
    seen = {}

    class Asks(nn.Module):
        def forward(self, pred, target, ema_pred, lq_up, gt):
            seen.update(pred=pred, target=target, ema_pred=ema_pred, lq_up=lq_up, gt=gt)
            return (pred - ema_pred).abs().mean()

    model = make_model(terms={"asks": Term("asks", Asks())})
    run(model, [make_batch()])
    assert seen.pop("pred").requires_grad
    assert not any(value.requires_grad for value in seen.values())
    assert all(p.grad is None for p in model.averages["ema"].net.parameters())


def count_ops(model, batch):
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        run(model, [batch])
    return [event.key for event in trace.key_averages() for _ in range(event.count)]


def test_what_nobody_asks_for_is_never_computed(make_model, make_batch):
    model = make_model()
    forwards = []
    model.averages["ema"].net.register_forward_hook(lambda *args: forwards.append(1))
    run(model, [make_batch()])
    assert not forwards
    names = count_ops(model, make_batch())
    assert names.count("aten::conv2d") == 2
    assert "aten::clone" not in names


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_never_waits_for_the_device(make_model, make_batch, precision):
    model = make_model(precision, max_norm=1.0, accum=2, optimizer=DeviceSGD)
    run(model, [make_batch(), make_batch()], last=[False, True])
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        run(model, [make_batch(), make_batch()] * 2, last=[False, True] * 2)
    waits = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}
    assert not waits & {event.key for event in trace.key_averages()}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_synchronisation_on_cuda(make_model, make_batch, precision):
    model = make_model(precision, max_norm=1.0, device=torch.device("cuda"))
    take_fifty_steps_without_synchronising(model, make_batch())


class LumaNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.spec = NetSpec(scale=2, in_channels=1, out_channels=1, colour="y")
        self.body = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, lq):
        assert lq.shape[1] == 1
        return nn.functional.pixel_shuffle(self.body(lq), 2)


def test_luma_network_sees_luma(make_model, make_batch):
    terms = {"l1": Term("l1", L1Loss(), ObjectiveTermConfig(colour="y"))}
    model = make_model(net=LumaNet(), terms=terms)
    run(model, [make_batch()])
    assert model.meter.read().means["loss/l1"] > 0


def test_uint16_and_uint8_give_the_same_floats(make_model, make_batch):
    narrow, wide = make_model(), make_model()
    batch = make_batch()
    run(narrow, [batch])
    run(wide, [{k: (v.int() * 257).to(torch.uint16) for k, v in batch.items()}])
    losses = [m.meter.read().means["loss/total"] for m in (narrow, wide)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("stored", PRECISIONS)
@pytest.mark.parametrize("wanted", PRECISIONS)
def test_any_precision_takes_up_any_state(make_model, make_batch, stored, wanted):
    old = make_model(stored)
    run(old, [make_batch(i) for i in range(3)])
    new = make_model(wanted)
    notes = new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert equal(weights_of(old.generator.net), weights_of(new.generator.net))
    assert equal(weights_of(old.averages["ema"].net), weights_of(new.averages["ema"].net))
    scales = {("fp16", "fp16"): "kept", ("fp16", "fp32"): "dropped", ("fp32", "fp16"): "no loss"}
    if (stored, wanted) in scales:
        assert any(scales[stored, wanted] in note for note in notes)
    run(new, [make_batch(5)])
    assert torch.isfinite(torch.tensor(new.meter.read().means["loss/total"]))
