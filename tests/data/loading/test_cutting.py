"""Crops in a batch: the same as plain NumPy's, whichever way is taken for their size and kind."""

import numpy as np
import pytest

from data.loading.cutting import place_images, place_tensors


def by_numpy(crops, symmetry):
    if symmetry & 4:
        crops = crops.swapaxes(1, 2)
    if symmetry & 2:
        crops = crops[:, ::-1]
    if symmetry & 1:
        crops = crops[:, :, ::-1]
    return crops.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("side", [8, 64])
@pytest.mark.parametrize("symmetry", range(8))
def test_images(symmetry, side, dtype):
    frames = np.random.default_rng(0).integers(0, 256, (7, side + 9, side + 5, 3)).astype(dtype)
    # Every second frame, backwards, as a clip may run.
    crops = frames[5::-2, 4 : 4 + side, 3 : 3 + side]
    expected = by_numpy(crops, symmetry)
    for given in (crops, list(crops)):
        out = np.zeros((3, 3, side, side), dtype)
        place_images(given, symmetry, out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("symmetry", range(8))
def test_tensors(symmetry):
    frames = np.random.default_rng(0).normal(size=(4, 5, 20, 18)).astype(np.float32)
    crops = frames[:, :, 4:12, 3:11]
    expected = by_numpy(crops.transpose(0, 2, 3, 1), symmetry)
    for given in (crops, list(crops)):
        out = np.zeros((4, 5, 8, 8), np.float32)
        place_tensors(given, symmetry, out)
        np.testing.assert_array_equal(out, expected)
