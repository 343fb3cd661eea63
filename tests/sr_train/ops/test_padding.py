import numpy as np
import pytest
import torch

from sr_train.ops.padding import pad_to


@pytest.mark.parametrize(
    ("size", "multiple", "minimum", "padded"),
    [
        ((7, 9), 4, 1, (8, 12)),
        ((8, 12), 4, 1, (8, 12)),
        ((1, 1), 8, 1, (8, 8)),
        ((1, 7), 2, 8, (8, 8)),
        ((3, 20), 4, 10, (12, 20)),
        ((5, 5), 1, 1, (5, 5)),
        ((2, 3), 16, 1, (16, 16)),
    ],
)
@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 4, 3)])
def test_mirrors_like_numpy(size, multiple, minimum, padded, leading):
    x = torch.rand(*leading, *size)
    result = pad_to(x, multiple, minimum)
    assert result.shape == (*leading, *padded)
    width = [(0, 0)] * len(leading) + [(0, padded[0] - size[0]), (0, padded[1] - size[1])]
    assert np.array_equal(result.numpy(), np.pad(x.numpy(), width, mode="reflect"))


def test_a_tensor_that_fits_comes_back_itself():
    x = torch.rand(1, 3, 8, 8)
    assert pad_to(x, 8) is x


@pytest.mark.parametrize("size", [(7, 9), (1, 2)])
def test_gradients_reach_every_pixel(size):
    x = torch.rand(1, 1, *size, requires_grad=True)
    pad_to(x, 8).sum().backward()
    assert (x.grad >= 1).all()
    assert x.grad.sum() == pad_to(x, 8).numel()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(7, 9), (1, 1)])
def test_keeps_the_type(dtype, size):
    result = pad_to(torch.ones(1, 3, *size).to(dtype), 8)
    assert result.dtype == dtype
    assert result.float().min() == 1
