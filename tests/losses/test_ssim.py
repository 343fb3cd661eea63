"""SSIM against scikit-image, MS-SSIM against its definition."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.signal import correlate2d
from skimage.metrics import structural_similarity

from losses.ssim import MSSSIML1Loss, MSSSIMLoss, SSIMLoss, ms_ssim

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
C1, C2 = 0.01**2, 0.03**2


def images(*shape, off=0.3, number=0):
    """Return an image and a spoilt copy, float64 in [0, 1]."""
    random = np.random.default_rng(number)
    target = random.random(shape)
    return np.clip(target + off * random.standard_normal(shape), 0, 1), target


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def gaussian(size, sigma):
    position = np.arange(size) - (size - 1) / 2
    taps = np.exp(-(position**2) / (2 * sigma**2))
    window = np.outer(taps, taps)
    return window / window.sum()


def one_scale(x, y, window):
    """Return the mean of l * cs and that of cs of a plane, as the papers write them."""

    def mean(plane):
        return correlate2d(plane, window, mode="valid")

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
    cov = mean(x * y) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    structure = (2 * cov + C2) / (var_x + var_y + C2)
    return (luminance * structure).mean(), structure.mean()


def halved(plane):
    height, width = (side // 2 * 2 for side in plane.shape)
    plane = plane[:height, :width]
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4


def many_scales(x, y, levels):
    weights = WEIGHTS[:levels] / WEIGHTS[:levels].sum()
    result = 1.0
    for level in range(levels):
        whole, structure = one_scale(x, y, gaussian(11, 1.5))
        factor = whole if level == levels - 1 else structure
        result *= max(factor, 1e-4) ** weights[level]
        x, y = halved(x), halved(y)
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels):
    pred, target = images(2, channels, 24, 31)
    expected = np.mean(
        [
            structural_similarity(
                x,
                y,
                channel_axis=0,
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for x, y in zip(pred, target, strict=True)
        ]
    )
    assert float(SSIMLoss()(*tensors(pred, target))) == pytest.approx(1 - expected, rel=1e-9)


def test_ssim_of_another_window():
    pred, target = images(1, 1, 9, 8)
    expected, _ = one_scale(pred[0, 0], target[0, 0], gaussian(4, 0.9))
    loss = SSIMLoss(window=4, sigma=0.9)
    assert float(loss(*tensors(pred, target))) == pytest.approx(1 - expected, rel=1e-9)


def test_ssim_of_flat_images_is_their_luminance():
    dark, light = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + C1) / (0.2**2 + 0.6**2 + C1)
    assert float(SSIMLoss()(dark, light)) == pytest.approx(1 - expected, rel=1e-5)


def test_ssim_of_opposites_is_above_one():
    _, target = images(1, 1, 24, 24)
    (image,) = tensors(target)
    assert float(SSIMLoss()(1 - image, image)) > 1


def test_small_differences_survive_fp32():
    """1 - SSIM of images that agree to 10 bits is that of float64 to four roundings of 1.

    Below 1, the structure, the luminance, their product and the mean are rounded once each. (The
    papers' own formula, from squares, is off by hundreds.)
    """
    pred, target = images(1, 3, 40, 40, off=2**-10)
    wide = float(SSIMLoss()(*tensors(pred, target)))
    single = float(SSIMLoss()(*(x.float() for x in tensors(pred, target))))
    bound = 4 * 2**-24
    assert 20 * bound < wide < 1e-5
    assert single == pytest.approx(wide, abs=bound)


@pytest.mark.parametrize(
    ("height", "width", "levels"), [(181, 177, 5), (175, 200, 4), (44, 50, 3), (21, 40, 1)]
)
def test_ms_ssim_uses_the_scales_that_fit(height, width, levels):
    pred, target = images(1, 2, height, width)
    expected = [many_scales(x, y, levels) for x, y in zip(pred[0], target[0], strict=True)]
    found = ms_ssim(*tensors(pred, target))
    assert found.shape == (1, 2)
    assert found[0].tolist() == pytest.approx(expected, rel=1e-9)
    loss = float(MSSSIMLoss()(*tensors(pred, target)))
    assert loss == pytest.approx(1 - np.mean(expected), rel=1e-9)


def test_ms_ssim_of_opposites_is_finite():
    _, target = images(1, 1, 48, 48)
    pred = torch.from_numpy(1 - target).requires_grad_()
    value = MSSSIMLoss()(pred, torch.from_numpy(target))
    value.backward()
    assert float(value.detach()) == pytest.approx(1 - 1e-4, rel=1e-9)
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("alpha", [0.0, 0.84, 1.0])
def test_ms_ssim_l1_by_hand(alpha):
    pred, target = images(1, 1, 50, 45)
    taps = np.exp(-(np.arange(-16, 17) ** 2) / (2 * 8.0**2))

    def blurred(plane):
        for axis in (0, 1):
            plane = correlate1d(plane, taps, axis=axis, mode="constant")
        return plane

    distance = blurred(abs(pred - target)[0, 0]) / blurred(np.ones((50, 45)))
    similarity = many_scales(pred[0, 0], target[0, 0], 3)
    expected = alpha * (1 - similarity) + (1 - alpha) * distance.mean()
    loss = MSSSIML1Loss(alpha=alpha)
    assert float(loss(*tensors(pred, target))) == pytest.approx(expected, rel=1e-9)


def test_arguments_are_checked():
    for loss in (SSIMLoss, MSSSIMLoss, MSSSIML1Loss):
        for wrong in ({"window": 0}, {"sigma": 0.0}):
            with pytest.raises(ValueError, match="above zero"):
                loss(**wrong)
        with pytest.raises(ValueError, match="one shape"):
            loss()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        MSSSIML1Loss(alpha=1.5)
    with pytest.raises(ValueError, match="above zero"):
        MSSSIML1Loss(sigma_l1=0.0)
