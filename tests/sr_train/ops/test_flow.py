import pytest
import torch

from sr_train.ops.flow import flow_warp


def test_zero_flow_changes_nothing():
    image = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(flow_warp(image, torch.zeros(2, 2, 5, 7)), image)


def test_first_component_points_to_the_right_and_second_down():
    image = torch.arange(20.0).reshape(1, 1, 4, 5)
    right = torch.stack([torch.ones(4, 5), torch.zeros(4, 5)])[None]
    down = torch.stack([torch.zeros(4, 5), torch.ones(4, 5)])[None]
    torch.testing.assert_close(flow_warp(image, right)[..., :4], image[..., 1:])
    torch.testing.assert_close(flow_warp(image, down)[..., :3, :], image[..., 1:, :])
    assert flow_warp(image, right)[..., 4].eq(0).all()
    assert flow_warp(image, right, padding="border")[..., 4].eq(image[..., 4]).all()


def test_half_a_pixel_is_the_mean_of_two():
    image = torch.tensor([[[[0.0, 1.0, 3.0]]]])
    flow = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    torch.testing.assert_close(flow_warp(image, flow)[0, 0, 0, :2], torch.tensor([0.5, 2.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_are_exact_in_half_precision(dtype):
    """A position above 256 has no half pixels in bf16."""
    image = torch.zeros(1, 1, 1, 401)
    image[..., 400] = 1.0
    flow = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 401)
    warped = flow_warp(image.to(dtype), flow)
    assert warped.dtype is dtype
    assert warped[0, 0, 0, 399].item() == pytest.approx(0.5)
