"""LDL against plain loops over pixels and windows."""

import numpy as np
import pytest
import torch

from losses.ldl import LDLLoss, artefact_map
from sr_train.ops.filters import local_variance


def images(*shape):
    random = np.random.default_rng(0)
    target = random.random(shape)
    pred = np.clip(target + 0.3 * random.standard_normal(shape), 0, 1)
    ema_pred = np.clip(target + 0.3 * random.standard_normal(shape), 0, 1)
    return pred, target, ema_pred


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def map_by_loops(pred, target, ema_pred, window):
    result = np.zeros((len(pred), 1, *pred.shape[-2:]))
    reach = window // 2
    for b in range(len(pred)):
        residual = abs(target[b] - pred[b]).sum(0)
        residual_ema = abs(target[b] - ema_pred[b]).sum(0)
        whole = residual.var(ddof=1) ** (1 / 5)
        padded = np.pad(residual, reach, mode="reflect")
        for y in range(residual.shape[0]):
            for x in range(residual.shape[1]):
                if residual[y, x] >= residual_ema[y, x]:
                    around = padded[y : y + window, x : x + window]
                    result[b, 0, y, x] = whole * around.var(ddof=1)
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", [3, 7])
def test_value_by_loops(channels, window):
    pred, target, ema_pred = images(2, channels, 9, 11)
    weight = map_by_loops(pred, target, ema_pred, window)
    assert 0.2 < (weight == 0).mean() < 0.8, "a case where the mask decides"
    found = artefact_map(*tensors(pred, target, ema_pred), window)
    torch.testing.assert_close(found, torch.from_numpy(weight), rtol=1e-9, atol=1e-12)
    expected = (weight * abs(pred - target)).mean()
    value = LDLLoss(ksize=window)(*tensors(pred, target, ema_pred))
    assert float(value) == pytest.approx(expected, rel=1e-9)


def test_the_map_is_a_constant():
    pred, target, ema_pred = images(1, 3, 9, 9)
    live = torch.from_numpy(pred).requires_grad_()
    LDLLoss()(live, *tensors(target, ema_pred)).backward()
    expected = map_by_loops(pred, target, ema_pred, 7) * np.sign(pred - target) / pred.size
    torch.testing.assert_close(live.grad, torch.from_numpy(expected), rtol=1e-9, atol=1e-15)


def test_no_gradient_reaches_the_average_or_the_target():
    """Not even into the weights of an averaged network that forgot to be frozen."""
    average = torch.nn.Conv2d(3, 3, 3, padding=1)
    pred = torch.rand(1, 3, 12, 12, requires_grad=True)
    target = torch.rand(1, 3, 12, 12, requires_grad=True)
    LDLLoss()(pred, target, average(pred)).backward()
    assert all(weights.grad is None for weights in average.parameters())
    assert target.grad is None
    assert float(pred.grad.abs().sum()) > 0


def test_better_than_the_average_everywhere_costs_nothing():
    _, target, _ = tensors(*images(1, 3, 12, 12))
    worse = target + 0.5
    pred = (target + 0.1 * torch.rand_like(target)).requires_grad_()
    value = LDLLoss()(pred, target, worse)
    value.backward()
    assert float(value.detach()) == 0.0
    assert float(pred.grad.abs().max()) == 0.0
    assert float(LDLLoss()(worse * target, target, pred)) > 0


@pytest.mark.parametrize("off", [0.0, 0.25])
def test_a_flat_residual_has_no_gradient_rather_than_nan(off):
    """The root of its variance has an infinite slope there."""
    target = torch.full((1, 3, 16, 16), 0.5)
    pred = (target + off).requires_grad_()
    value = LDLLoss()(pred, target, target + 1)
    value.backward()
    assert float(value.detach()) == 0.0
    assert float(pred.grad.abs().max()) == 0.0


def test_a_small_image_cuts_the_window():
    residual = torch.rand(1, 1, 2, 3, dtype=torch.float64)
    padded = np.pad(residual[0, 0].numpy(), 1, mode="reflect")
    expected = [[padded[y : y + 3, x : x + 3].var(ddof=1) for x in range(3)] for y in range(2)]
    torch.testing.assert_close(local_variance(residual, 7)[0, 0], torch.tensor(expected))


def test_arguments_are_checked():
    for ksize in (0, 4):
        with pytest.raises(ValueError, match="odd"):
            LDLLoss(ksize)
    image = torch.zeros(1, 3, 4, 4)
    for shapes in ((image, image, image[..., 1:]), (image, image[..., 1:], image)):
        with pytest.raises(ValueError, match="one shape"):
            LDLLoss()(*shapes)
