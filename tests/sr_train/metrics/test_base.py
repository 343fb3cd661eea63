"""The checks that every metric makes before it compares."""

import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.metrics.base import cropped_pair, to_units


def image(*shape, dtype=np.uint8):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize(("border", "inside"), [(0, slice(0, 8)), (2, slice(2, 6))])
def test_border_is_taken_from_every_side(border, inside):
    pixels = image(8, 8, 3)
    cropped, same = cropped_pair(pixels, pixels, border, 4)
    np.testing.assert_array_equal(cropped, pixels[inside, inside])
    np.testing.assert_array_equal(same, cropped)


def test_border_scale_means_as_many_pixels_as_the_scale():
    assert cropped_pair(image(9, 8), image(9, 8), "scale", 3)[0].shape == (3, 2, 1)


def test_size_mismatch_raises():
    with pytest.raises(DataError, match=r"\(4, 4, 3\) and \(4, 5, 3\)"):
        cropped_pair(image(4, 4, 3), image(4, 5, 3), 0, 1)


@pytest.mark.parametrize("dtypes", [(np.uint8, np.uint16), (np.float32, np.float32)])
def test_dtypes_that_do_not_fit_raise(dtypes):
    with pytest.raises(DataError, match="uint8"):
        cropped_pair(image(4, 4, dtype=dtypes[0]), image(4, 4, dtype=dtypes[1]), 0, 1)


def test_too_small_for_the_border_raises_with_the_size_needed():
    with pytest.raises(DataError, match=r"8x7 pixels is too small.*at least 9x9"):
        cropped_pair(image(7, 8), image(7, 8), 4, 1)


def test_four_channels_raise():
    with pytest.raises(DataError, match="1 or 3 channels"):
        cropped_pair(image(4, 4, 4), image(4, 4, 4), 0, 1)


def test_sixteen_bit_values_come_in_8_bit_units():
    pixels = np.array([[0, 257, 65535]], np.uint16)
    np.testing.assert_allclose(to_units(pixels, "rgb"), [[0, 1, 255]], rtol=1e-6)
