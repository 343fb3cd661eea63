import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_train.io.images import read_image
from sr_train.ops.resize import imresize, resize_tensor

# Keys' kernel at 1/4, 3/4, 5/4, 7/4, in 256ths of the sum, for halving.
HALVING = np.array([-3, -9, 29, 111, 111, 29, -9, -3])


def noise(height, width, channels=3, dtype=np.uint8):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(3).integers(0, top, (height, width, channels), dtype)


def halved_rows(image, top):
    """Integer arithmetic only: mirrored borders, half up, clipped."""
    height = len(image)
    mirrored = np.concatenate([np.arange(height), np.arange(height)[::-1]])
    rows = []
    for out in range(height // 2):
        taps = image[mirrored[np.arange(2 * out - 3, 2 * out + 5) % (2 * height)]]
        total = np.tensordot(HALVING, taps.astype(np.int64), axes=1)
        rows.append(np.clip((total + 128) // 256, 0, top))
    return np.stack(rows).astype(image.dtype)


def test_hand_worked_row():
    # (111 - 9) / 256 * 255 = 101.6; (29 - 3 - 9) / 256 * 255 = 16.9; ...
    row = np.array([[0, 255, 0, 0, 0, 255]], np.uint8)
    assert imresize(row, out_size=(1, 3)).tolist() == [[102, 17, 136]]
    # Doubling: -9, 111, 29, -3 in 128ths, clipped at both ends of the range.
    row = np.array([[0, 100, 255]], np.uint8)
    assert imresize(row, out_size=(1, 6)).tolist() == [[0, 17, 69, 139, 226, 255]]
    exact = imresize(row.astype(np.float64), out_size=(1, 6))
    assert exact.tolist() == [[-9.375, 16.6796875, 68.7890625, 138.515625, 225.859375, 269.53125]]


def test_halves_round_up():
    # (111 - 9) / 256 * 192 = 76.5, which rounding half to even would make 76.
    row = np.array([[0, 192, 0, 0, 0, 0, 0, 0]], np.uint8)
    assert imresize(row, out_size=(1, 4))[0, 0] == 77


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_height_first_and_rounded_after_each_pass(dtype):
    image = noise(22, 18, 3, dtype)
    top = np.iinfo(dtype).max
    expected = halved_rows(halved_rows(image, top).swapaxes(0, 1), top).swapaxes(0, 1)
    np.testing.assert_array_equal(imresize(image, 1 / 2), expected)
    other = halved_rows(halved_rows(image.swapaxes(0, 1), top).swapaxes(0, 1), top)
    assert (other != expected).any()


def test_width_first_where_it_shrinks_more():
    image = noise(22, 18)
    expected = imresize(image.swapaxes(0, 1), out_size=(6, 11)).swapaxes(0, 1)
    np.testing.assert_array_equal(imresize(image, out_size=(11, 6)), expected)


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, Fraction(1, 3), 0.7, 2, 3])
def test_window_equals_the_whole(scale):
    image = noise(61, 83)
    whole = imresize(image, scale)
    height, width = whole.shape[:2]
    for top, left, rows, columns in [(0, 0, 5, 6), (3, 7, 9, 4), (height - 4, width - 3, 4, 3)]:
        part = imresize(image, scale, window=(top, left, rows, columns))
        np.testing.assert_array_equal(part, whole[top : top + rows, left : left + columns])


def test_blocks_do_not_show():
    image = noise(40, 9)
    narrow = imresize(image, out_size=(20, 9))
    wide = imresize(np.tile(image, (1, 1000, 1)), out_size=(20, 9000))
    np.testing.assert_array_equal(wide, np.tile(narrow, (1, 1000, 1)))


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_constant_stays(scale, dtype):
    image = np.full((24, 36), 200, dtype)
    out = imresize(image, scale)
    assert out.shape == (24 * scale, 36 * scale)
    assert out.dtype == dtype
    assert out.flags.c_contiguous
    np.testing.assert_allclose(out, 200, rtol=1e-6)


def test_scale_gives_ceil_of_the_length():
    assert imresize(noise(10, 7), 1 / 3).shape == (4, 3, 3)
    assert imresize(noise(3, 30), 0.1).shape == (1, 3, 3)
    assert imresize(noise(1, 1), 1 / 4).shape == (1, 1, 3)


def test_antialias_off_takes_four_pixels():
    # Halving without widening: the samples lie between two pixels, (-1, 9, 9, -1) / 16;
    # the mirrored border repeats the first.
    row = np.array([[16, 0, 0, 16, 0, 0, 0, 0]], np.float64)
    out = imresize(row, out_size=(1, 4), antialias=False)
    np.testing.assert_allclose(out, [[8, 9, -1, 0]])


def test_raises():
    image = noise(8, 8)
    with pytest.raises(ValueError, match="exactly one"):
        imresize(image)
    with pytest.raises(ValueError, match="exactly one"):
        imresize(image, 1 / 2, (4, 4))
    with pytest.raises(ValueError, match="outside"):
        imresize(image, 1 / 2, window=(2, 2, 3, 2))
    with pytest.raises(ValueError, match="int64"):
        imresize(image.astype(np.int64), 1 / 2)
    with pytest.raises(ValueError, match="above 0"):
        imresize(image, -1.0)
    with pytest.raises(ValueError, match="out_size"):
        imresize(image, out_size=(0, 4))


@pytest.mark.parametrize("out_size", [(10, 12), (40, 48), (7, 31), (20, 24)])
def test_tensor_equals_array(out_size):
    image = noise(20, 24).astype(np.float64)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = torch.from_numpy(imresize(image, out_size=out_size)).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(resize_tensor(x, out_size), expected, rtol=1e-5, atol=1e-3)


def test_tensor_gradient_is_the_transpose():
    x = torch.rand(2, 3, 8, 10, requires_grad=True)
    y = torch.rand(2, 3, 4, 20)
    with torch.inference_mode():
        resize_tensor(x, (4, 20))
    (resize_tensor(x, (4, 20)) * y).sum().backward()
    probe = torch.rand_like(x)
    left = (probe * x.grad).sum()
    right = (resize_tensor(probe, (4, 20)) * y).sum()
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_tensor_is_fp32_inside_autocast():
    x = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = resize_tensor(x, (32, 32))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, resize_tensor(x, (32, 32)), rtol=0, atol=0)
    assert resize_tensor(x.bfloat16(), (8, 8)).dtype == torch.bfloat16


@pytest.mark.skipif("SR_TRAIN_TEST_DATA" not in os.environ, reason="needs Set5")
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
def test_set5_bit_for_bit(scale, name):
    root = Path(os.environ["SR_TRAIN_TEST_DATA"]) / "Set5"
    gt = read_image(root / "HR" / f"{name}.png").pixels
    gt = gt[: len(gt) // scale * scale, : gt.shape[1] // scale * scale]
    lq = read_image(root / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png").pixels
    np.testing.assert_array_equal(imresize(gt, 1 / scale), lq)
