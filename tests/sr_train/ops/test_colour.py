"""YCbCr: the convention pinned, fp32 whatever the precision around it, and its inverse."""

import copy

import numpy as np
import pytest
import torch

from sr_train.ops.colour import YCbCr, luma

# round(rgb2ycbcr(uint8(rgb))) of MATLAB for the corners of the cube and one colour inside.
MATLAB_VALUES = [
    ((0, 0, 0), (16, 128, 128)),
    ((255, 255, 255), (235, 128, 128)),
    ((255, 0, 0), (81, 90, 240)),
    ((0, 255, 0), (145, 54, 34)),
    ((0, 0, 255), (41, 240, 110)),
    ((255, 255, 0), (210, 16, 146)),
    ((0, 255, 255), (170, 166, 16)),
    ((255, 0, 255), (106, 202, 222)),
    ((128, 128, 128), (126, 128, 128)),
]
BOUND = 1 / 255 / 4


def colour_cube(step: int = 15) -> torch.Tensor:
    """Return (1, 3, 18, 324): 8-bit colours on a grid, corners included, in [0, 1]."""
    axis = torch.arange(0, 256, step)
    cube = torch.cartesian_prod(axis, axis, axis).T / 255
    return cube.reshape(1, 3, 18, -1)


@pytest.mark.parametrize(("rgb", "ycbcr"), MATLAB_VALUES)
def test_convention_is_matlab_rgb2ycbcr(rgb, ycbcr):
    colour = torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1) / 255
    converted = YCbCr().to_ycbcr(colour).flatten() * 255
    assert converted.round().tolist() == list(ycbcr)


def test_unrounded_values_are_those_of_the_formula():
    colour = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    # 65.481*.2 + 128.553*.4 + 24.966*.6 + 16, and the two other rows likewise
    expected = [95.497, 157.9594, 101.9572]
    converted = YCbCr().to_ycbcr(colour).flatten() * 255
    assert converted.tolist() == pytest.approx(expected, abs=1e-4)
    assert YCbCr().to_y(colour).item() * 255 == pytest.approx(expected[0], abs=1e-4)


def test_round_trip_in_fp32():
    rgb, colour = colour_cube(), YCbCr()
    assert (colour.to_rgb(colour.to_ycbcr(rgb)) - rgb).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_round_trip_under_autocast(dtype):
    rgb, colour = colour_cube(), YCbCr()
    with torch.autocast("cpu", dtype=dtype):
        back = colour.to_rgb(colour.to_ycbcr(rgb))
    assert back.dtype == torch.float32
    assert (back - rgb).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_round_trip_of_half_inputs_kept_in_fp32_between(dtype):
    rgb, colour = colour_cube().to(dtype), YCbCr()
    back = colour.to_rgb(colour.to_ycbcr(rgb.float())).to(dtype)
    assert (back.float() - rgb.float()).abs().max() < BOUND


def test_round_trip_through_stored_fp16():
    rgb, colour = colour_cube().half(), YCbCr()
    assert (colour.to_rgb(colour.to_ycbcr(rgb)).float() - rgb.float()).abs().max() < BOUND


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["to_ycbcr", "to_y", "to_rgb"])
def test_half_inputs_are_rounded_once_at_the_end(dtype, method):
    x = colour_cube().to(dtype)
    converted = getattr(YCbCr(), method)(x)
    assert converted.dtype == dtype
    torch.testing.assert_close(
        converted, getattr(YCbCr(), method)(x.float()).to(dtype), rtol=0, atol=0
    )


def test_module_cast_and_emptied_keeps_fp32_constants():
    rgb = colour_cube()
    expected = YCbCr().to_ycbcr(rgb)
    for changed in (YCbCr().bfloat16(), YCbCr().half(), YCbCr().to("meta").to_empty(device="cpu")):
        assert changed.matrix.dtype == torch.float32
        assert torch.equal(changed.to_ycbcr(rgb), expected)


def test_constants_are_made_once_and_not_saved():
    colour = YCbCr()
    before = colour.matrix.data_ptr()
    colour.to_ycbcr(colour_cube())
    assert colour.matrix.data_ptr() == before
    assert colour.state_dict() == {}


def test_deepcopy_gives_the_same_result():
    rgb, colour = colour_cube(), YCbCr()
    assert torch.equal(copy.deepcopy(colour).to_ycbcr(rgb), colour.to_ycbcr(rgb))


def test_compiled_gives_the_same_result():
    rgb, colour = colour_cube(), YCbCr()
    compiled = torch.compile(colour.to_y, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(rgb), colour.to_y(rgb))


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (2, 7, 3, 4, 5)])
def test_channels_are_third_from_the_end(shape):
    rgb, colour = torch.rand(shape), YCbCr()
    assert colour.to_ycbcr(rgb).shape == rgb.shape
    assert colour.to_y(rgb).shape == (*shape[:-3], 1, *shape[-2:])
    torch.testing.assert_close(colour.to_y(rgb), colour.to_ycbcr(rgb)[..., :1, :, :])


def test_luma_gradient():
    rgb = torch.rand(1, 3, 2, 2, requires_grad=True)
    YCbCr().to_y(rgb).sum().backward()
    expected = torch.tensor([65.481, 128.553, 24.966]) / 255
    torch.testing.assert_close(rgb.grad, expected.view(1, 3, 1, 1).expand(1, 3, 2, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_luma_of_images_in_8_bit_units(dtype):
    white = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    rgb = np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0]]], dtype) * dtype(white)
    values = luma(rgb)
    assert values.shape == (1, 3)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [[16, 235, 81.481]], rtol=1e-6)


def test_luma_agrees_with_the_tensor_path():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    rgb = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    np.testing.assert_allclose(luma(pixels), YCbCr().to_y(rgb)[0].numpy() * 255, atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
def test_grey_counts_as_equal_channels(shape):
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rgb = np.repeat(grey.reshape(4, 5, 1), 3, axis=2)
    np.testing.assert_allclose(luma(grey), luma(rgb), atol=1e-4)


def test_luma_of_a_single_row_or_column_keeps_its_shape():
    assert luma(np.zeros((1, 6, 3), np.uint8)).shape == (1, 6)
    assert luma(np.zeros((6, 1, 3), np.uint8)).shape == (6, 1)


def test_luma_raises_on_other_images():
    with pytest.raises(ValueError, match="shape"):
        luma(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="int64"):
        luma(np.zeros((4, 4, 3), np.int64))
