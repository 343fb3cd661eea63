"""Upscaler: depth, channels and colour of the image survive; the network is left as it was."""

import contextlib
import logging

import numpy as np
import pytest
import torch

from sr_train.api.errors import ConfigError, DataError, PluginError, SRTrainError
from sr_train.api.network import NetSpec
from sr_train.inference import sizing
from sr_train.inference.upscaler import Upscaler
from sr_train.ops.colour import luma
from sr_train.ops.resize import imresize
from tests.sr_train.inference.toys import Nearest


def image(height, width, channels=3, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(seed)
    return rng.integers(0, top + 1, (height, width, channels)).astype(dtype)


def repeated(pixels, scale):
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [None, 10, "auto"])
@pytest.mark.parametrize("scale", [1, 3])
def test_identity_gives_back_every_value(dtype, channels, tile, scale):
    net = Nearest(scale)
    pixels = image(23, 31, channels, dtype)
    out = Upscaler(net, net.spec, tile=tile)(pixels)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, repeated(pixels, scale))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rounding_is_half_up(dtype):
    white = np.float32(np.iinfo(dtype).max)
    halves = [k + 0.5 for k in range(0, 40, 2) if np.float32((k + 0.5) / white) * white == k + 0.5]
    assert len(halves) > 3
    for half in halves:
        net = Nearest(gain=0.0, offset=float(np.float32(half / white)))
        out = Upscaler(net, net.spec)(np.zeros((2, 2, 3), dtype))
        assert (out == int(half + 0.5)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_outside_are_clipped(dtype):
    net = Nearest(gain=3.0, offset=-1.0)
    pixels = np.array([[[0, 0.5, 1]]]) * np.iinfo(dtype).max
    out = Upscaler(net, net.spec)(pixels.astype(dtype))
    white = np.iinfo(dtype).max
    assert out[0, 0].tolist() == [0, pytest.approx(white / 2, abs=3), white]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_luma_network_keeps_colours(dtype):
    net = Nearest(2, "y")
    pixels = np.empty((9, 12, 3), dtype)
    pixels[:] = (np.array([200, 30, 90]) * (np.iinfo(dtype).max // 255)).astype(dtype)
    np.testing.assert_array_equal(Upscaler(net, net.spec)(pixels), repeated(pixels, 2))


def test_luma_network_takes_chroma_from_bicubic():
    net = Nearest(2, "y")
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 156, (20, 24, 3)).astype(np.uint8)
    forward = np.array(
        [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
    )
    ycbcr = pixels / 255 @ forward.T + [16, 128, 128]
    luma_plane = repeated(ycbcr[..., :1], 2)
    chroma = imresize(ycbcr[..., 1:], 2)
    planes = np.concatenate([luma_plane, chroma], axis=2) - [16, 128, 128]
    expected = planes @ np.linalg.inv(forward).T * 255
    assert expected.min() > 0
    assert expected.max() < 255
    out = Upscaler(net, net.spec)(pixels)
    assert np.abs(out - expected).max() <= 0.5001


@pytest.mark.parametrize("channels", [1, 3])
def test_luma_network_in_tiles_equals_whole(channels):
    net = Nearest(3, "y")
    pixels = image(40, 50, channels)
    whole = Upscaler(net, net.spec, tile=None)(pixels)
    np.testing.assert_array_equal(Upscaler(net, net.spec, tile=16)(pixels), whole)


def test_grey_through_an_rgb_network_is_the_luma_of_its_prediction():
    class Tint(Nearest):
        def forward(self, lq):
            return super().forward(lq) * torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1)

    net = Tint()
    grey = np.full((4, 5, 1), 200, np.uint8)
    coloured = Upscaler(net, net.spec)(np.repeat(grey, 3, axis=2))
    expected = (luma(coloured) - 16) / 219 * 255
    out = Upscaler(net, net.spec)(grey)
    assert out.shape == (8, 10, 1)
    np.testing.assert_allclose(out[..., 0], expected, atol=1)


def test_modes_come_back_and_dropout_is_off():
    net = Nearest(gain=1.0)
    net.train()
    net.drop.eval()
    pixels = image(8, 8)
    out = Upscaler(net, net.spec)(pixels)
    assert (net.training, net.drop.training) == (True, False)
    net.drop.train()
    np.testing.assert_array_equal(Upscaler(net, net.spec)(pixels), out)
    assert net.drop.training


def test_modes_come_back_after_an_error():
    net = Nearest(offset=float("nan")).train()
    with pytest.raises(SRTrainError, match="not finite"):
        Upscaler(net, net.spec)(image(4, 4))
    assert net.drop.training


def test_the_network_can_train_afterwards():
    net = Nearest()
    Upscaler(net, net.spec)(image(8, 8))
    net(torch.rand(1, 3, 8, 8)).sum().backward()
    assert net.gain.grad is not None


def test_the_network_runs_inside_the_given_context():
    dtypes = []

    class Probe(Nearest):
        def forward(self, lq):
            dtypes.append(torch.mm(lq[0, 0], lq[0, 0]).dtype)
            return super().forward(lq)

    def autocast():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    net = Probe()
    pixels = image(8, 8)
    out = Upscaler(net, net.spec, autocast=autocast)(pixels)
    Upscaler(net, net.spec, autocast=contextlib.nullcontext)(pixels)
    assert dtypes == [torch.bfloat16, torch.float32]
    np.testing.assert_array_equal(out, repeated(pixels, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tile", [None, 16])
def test_a_prediction_that_is_not_finite_names_the_image(value, tile):
    net = Nearest(offset=value)
    with pytest.raises(SRTrainError, match=r"holiday.png: .*not finite"):
        Upscaler(net, net.spec, tile=tile)(image(40, 40), "holiday.png")


def test_auto_runs_small_images_whole_and_large_ones_in_tiles():
    net = Nearest(1, field=4)
    upscaler = Upscaler(net, net.spec)
    upscaler(image(512, 512))
    assert net.shapes == [(1, 3, 512, 512)]
    net.shapes.clear()
    upscaler(image(512, 516))
    assert len(net.shapes) > 1
    assert all(max(shape) <= 480 + 2 * 4 for shape in net.shapes)


@pytest.mark.parametrize("field", [None, 300])
def test_auto_blends_what_sees_too_far_and_says_so(field, caplog):
    net = Nearest(1, field=field)
    sizing._say_blended.cache_clear()
    upscaler = Upscaler(net, net.spec)
    with caplog.at_level(logging.INFO):
        upscaler(image(20, 20))
        assert caplog.text == ""
        upscaler(image(513, 520))
        Upscaler(net, net.spec)(image(513, 520))
    [record] = caplog.records
    assert "(256, sharing 32) are blended" in record.message
    assert ("tiling.overlap=300 gives the exact" in record.message) == (field is not None)
    assert max(max(shape) for shape in net.shapes) <= 256
    net.shapes.clear()
    Upscaler(net, net.spec, overlap=300)(image(8, 8))
    assert net.shapes == [(1, 3, 8, 8)]


def test_auto_with_the_whole_receptive_field_as_overlap_is_exact():
    net = Nearest(1, field=100)
    pixels = image(300, 900)
    out = Upscaler(net, net.spec, overlap=100)(pixels)
    np.testing.assert_array_equal(out, pixels)
    assert {shape[2] for shape in net.shapes} == {300}
    assert len(net.shapes) > 1
    assert max(shape[3] for shape in net.shapes) <= 480 + 2 * 100


def test_images_that_may_not_be_written_to():
    net = Nearest()
    pixels = image(6, 6)
    pixels.flags.writeable = False
    np.testing.assert_array_equal(Upscaler(net, net.spec)(pixels), repeated(pixels, 2))


def test_alpha_is_bicubic_of_the_same_dtype():
    net = Nearest(2)
    alpha = image(9, 7, 1, np.uint16)[..., 0]
    np.testing.assert_array_equal(Upscaler(net, net.spec).upscale_alpha(alpha), imresize(alpha, 2))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4), np.uint8), "expected"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
    ],
)
def test_other_pixels_raise(pixels, message):
    net = Nearest()
    with pytest.raises(DataError, match=message):
        Upscaler(net, net.spec)(pixels)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (
            lambda pred: None,
            "returned nothing (None) for (1, 3, 6, 8) float32; expected one",
        ),
        (lambda pred: (pred, pred), "returned a tuple of 2 for"),
        (lambda pred: 1.5, "returned float 1.5"),
        (lambda pred: {"pred": pred}, "returned a dict with the keys pred"),
        (
            lambda pred: pred[:, :1],
            "made (1, 1, 12, 16) float32 of (1, 3, 6, 8) float32; expected",
        ),
        (lambda pred: pred[0], "made (3, 12, 16) float32 of"),
        (lambda pred: pred[..., 1:], "made (1, 3, 12, 15) float32 of (1, 3, 6, 8) float32"),
        (lambda pred: pred.no_such_thing, "AttributeError"),
    ],
)
def test_a_network_that_returns_something_else_is_named_with_what_it_was_given(returned, words):
    class Odd(Nearest):
        def forward(self, lq):
            return returned(super().forward(lq))

    net = Odd()
    with pytest.raises(PluginError) as caught:
        Upscaler(net, net.spec)(image(6, 8))
    assert words in str(caught.value)
    assert "arch: Odd" in str(caught.value)
    assert "(1, 3, 6, 8) float32" in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [None, 16])
def test_a_network_that_changes_its_input_in_place_makes_what_it_would(channels, tile):
    class InPlace(Nearest):
        def forward(self, lq):
            return super().forward(lq.mul_(0.5)) * 2

    spec = NetSpec(scale=2)  # blended tiles overlap
    pixels = image(40, 44)[..., :channels]
    made = Upscaler(InPlace(), spec, tile=tile, overlap=8)(pixels)
    np.testing.assert_array_equal(made, Upscaler(Nearest(), spec, tile=tile, overlap=8)(pixels))


@pytest.mark.parametrize(("tile", "overlap"), [(None, None), (16, 8)])
def test_inputs_are_mirrored_for_a_network_that_does_not_pad(tile, overlap):
    class OfEight(Nearest):
        def forward(self, lq):
            assert lq.shape[-2] % 8 == lq.shape[-1] % 8 == 0
            assert min(lq.shape[-2:]) >= 16
            return super().forward(lq)

    facts = {"size_multiple": 8, "min_size": 16, "pads_inside": False}
    spec = NetSpec(scale=2, receptive_field=0, **facts)
    for size in ((1, 1), (7, 30), (41, 55)):
        pixels = image(*size)
        made = Upscaler(OfEight(), spec, tile=tile, overlap=overlap)(pixels)
        np.testing.assert_array_equal(made, pixels.repeat(2, 0).repeat(2, 1))


def test_networks_for_other_things_than_images_raise():
    with pytest.raises(ConfigError, match="from 3 to 3 channels"):
        Upscaler(Nearest(), NetSpec(scale=2, in_channels=4, out_channels=3))
    with pytest.raises(ConfigError, match="further inputs; this network wants spikes"):
        Upscaler(Nearest(), NetSpec(scale=2, extra_inputs={"spikes": 2}))
    with pytest.raises(ConfigError, match="'large'"):
        Upscaler(Nearest(), NetSpec(scale=2), tile="large")
