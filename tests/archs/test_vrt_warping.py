import pytest
import torch
from torch.nn import functional

from archs.vrt_warping import FlowGuidedAlignment, flows_to_later, images_of_next


class Constant:
    """A flow network that sees the same motion everywhere, one for each frame."""

    def __init__(self, steps):
        self.steps = torch.tensor(steps)

    def pyramid(self, ref, supp, levels):
        height, width = ref.shape[-2:]
        return [
            (self.steps / 2**level)[:, :, None, None].expand(
                -1, -1, height >> level, width >> level
            )
            for level in range(levels)
        ]


def test_flows_to_frames_farther_away_add_up():
    steps = [[1.0, 0.0], [2.0, 1.0], [0.0, -3.0]]
    levels = flows_to_later(Constant(steps), torch.zeros(1, 4, 3, 32, 32), reach=3)
    assert [[tuple(flow.shape) for flow in level] for level in levels[::3]] == [
        [(1, 3, 2, 32, 32), (1, 2, 2, 32, 32), (1, 1, 2, 32, 32)],
        [(1, 3, 2, 4, 4), (1, 2, 2, 4, 4), (1, 1, 2, 4, 4)],
    ]
    whole = [flow[0, :, :, 16, 16].tolist() for flow in levels[0]]
    assert whole[0] == steps
    assert whole[1] == [[3.0, 1.0], [2.0, -2.0]]
    assert whole[2] == [[3.0, -2.0]]
    assert levels[1][1][0, 0, :, 8, 8].tolist() == [1.5, 0.5]


def test_a_clip_of_two_frames_has_no_farther_flows():
    levels = flows_to_later(Constant([[1.0, 0.0]]), torch.zeros(1, 2, 3, 8, 8), reach=3)
    assert [len(level) for level in levels] == [1, 1, 1, 1]


def test_the_next_image_is_looked_up_at_the_four_pixels_around_the_flow():
    clip = torch.rand(2, 3, 2, 5, 6)
    flows = torch.tensor([0.25, 1.5]).view(1, 1, 2, 1, 1).expand(2, 2, 2, 5, 6)
    found = images_of_next(clip, flows)
    assert found.shape == (2, 3, 8, 5, 6)
    assert found[:, 2].abs().max() == 0
    for frame in (0, 1):
        after = clip[:, frame + 1, :, 2, 3:5]
        assert torch.equal(found[:, frame, 0:2, 1, 3], after[..., 0])
        assert torch.equal(found[:, frame, 2:4, 0, 3], after[..., 0])
        assert torch.equal(found[:, frame, 4:6, 1, 3], after[..., 1])
        assert torch.equal(found[:, frame, 6:8, 0, 3], after[..., 1])


def align(reach, channels=12):
    torch.manual_seed(0)
    return FlowGuidedAlignment(channels, reach, deformable_groups=2 * reach, max_offset=10.0)


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_untrained_alignment_convolves_the_neighbours_where_flows_point(reach):
    """Its offsets are then the flows, and every weight a half."""
    module = align(reach)
    clip = torch.rand(1, 4, 12, 9, 9)
    motion = torch.tensor([[1, 2], [-2, 0], [0, -1]])
    flows = [motion[k].view(1, 1, 2, 1, 1).expand(1, 3 - k, 2, 9, 9).float() for k in range(reach)]
    found = module(clip, flows)
    assert found[:, 3].abs().max() == 0
    per_frame = 12 // reach
    for frame in range(3):
        for k in range(reach):
            out = slice(k * per_frame, (k + 1) * per_frame)
            if frame + k + 1 > 3:
                expected = torch.zeros(1, per_frame, 3, 3)
            else:
                kernels = functional.conv2d(clip[:, frame + k + 1], 0.5 * module.weight[out])
                right, down = motion[k].tolist()
                expected = kernels[..., 2 + down : 5 + down, 2 + right : 5 + right]
            torch.testing.assert_close(found[:, frame, out, 3:6, 3:6], expected)


def test_offsets_stay_near_the_flow():
    """Where the network asks for more than the bound, it gets the bound."""
    module = align(1)
    torch.nn.init.constant_(module.conv_offset[-1].bias, 100.0)
    module.max_offset = 2.0
    clip = torch.rand(1, 2, 12, 12, 12)
    found = module(clip, [torch.zeros(1, 1, 2, 12, 12)])
    expected = functional.conv2d(clip[:, 1], module.weight)[..., 5:8, 5:8]
    torch.testing.assert_close(found[:, 0, :, 4:7, 4:7], expected)


def test_positions_stay_exact_in_half_precision():
    module = align(2)
    clip = torch.rand(1, 3, 12, 8, 300)
    flows = [torch.full((1, 3 - k, 2, 8, 300), 0.5) for k in (1, 2)]
    exact = module(clip, flows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(clip, flows)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-4)
