import cv2
import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.metrics import TemporalDifference, WarpingError
from tests.toys import stripes


def moving(count=2, step=2, size=(48, 64)):
    """Return frames of smooth blobs that move `step` pixels to the right each time."""
    noise = np.random.default_rng(0).normal(size=(size[0], size[1] + count * step))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    wide = (128 + 300 * smooth).clip(0, 255).astype(np.uint8)
    wide = np.repeat(wide[..., None], 3, axis=2)
    return [
        np.ascontiguousarray(wide[:, (count - t) * step : (count - t) * step + size[1]])
        for t in range(count)
    ]


def test_a_still_error_does_not_count_and_flicker_does():
    gt = [stripes(40, 40, 0), stripes(40, 40, 1)]
    brighter = [frame + np.uint8(9) for frame in gt]
    flicker = [gt[0], brighter[1]]
    metric = TemporalDifference("rgb")
    assert metric(gt, gt, 1) == 0
    assert metric(brighter, gt, 1) == 0
    assert metric(flicker, gt, 1) == pytest.approx(9)


def test_temporal_difference_of_luma_is_in_its_units():
    gt = [np.zeros((8, 8, 3), np.uint8)] * 2
    pred = [gt[0], np.full((8, 8, 3), 255, np.uint8)]
    assert TemporalDifference("y")(pred, gt, 1) == pytest.approx(219, abs=0.01)


def test_the_border_is_left_out():
    gt = [np.zeros((12, 12, 3), np.uint8)] * 2
    framed = gt[1].copy()
    framed[:2] = framed[-2:] = framed[:, :2] = framed[:, -2:] = 200
    assert TemporalDifference("rgb", border="scale")([gt[0], framed], gt, 2) == 0
    assert TemporalDifference("rgb", border=0)([gt[0], framed], gt, 2) > 0


def test_what_moves_with_the_truth_has_next_to_no_warping_error():
    gt = moving()
    still = [gt[0], gt[0]]
    metric = WarpingError()
    assert metric(gt, gt, 1) < 0.2
    assert metric(still, gt, 1) > 20 * metric(gt, gt, 1)


def test_warping_error_of_flicker_is_the_square_of_its_size():
    gt = moving()
    darker = [gt[0], gt[1] - np.minimum(gt[1], 20)]
    expected = 1000 * (20 / 255) ** 2
    assert WarpingError()(darker, gt, 1) == pytest.approx(expected, rel=0.15)


def test_what_comes_from_outside_is_left_out():
    """Ten columns come into view; what a prediction has there is nobody's fault."""
    gt = moving(step=10, size=(64, 96))
    spoilt = [gt[0], gt[1].copy()]
    spoilt[1][:, :6] = 255 - spoilt[1][:, :6]
    metric = WarpingError()
    assert metric(spoilt, gt, 1) < 1.5 * metric(gt, gt, 1)


def test_small_frames_are_refused():
    gt = [np.zeros((16, 64, 3), np.uint8)] * 2
    with pytest.raises(DataError, match="too small"):
        WarpingError()(gt, gt, 1)
