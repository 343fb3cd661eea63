import logging
import math

import pytest
import torch
from torch.nn import functional

from sr_train.api.errors import CheckpointError
from sr_train.ops import spynet
from sr_train.ops.flow import flow_warp
from sr_train.ops.spynet import SpyNet, make_spynet

CHANNELS = (8, 32, 64, 32, 16, 2)


def published(form: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the file that BasicSR or mmagic publishes."""
    shapes = {}
    for level in range(6):
        for number in range(5):
            place = f"basic_module.{level}.basic_module."
            place += f"{2 * number}" if form == "BasicSR" else f"{number}.conv"
            shapes[f"{place}.weight"] = (CHANNELS[number + 1], CHANNELS[number], 7, 7)
            shapes[f"{place}.bias"] = (CHANNELS[number + 1],)
    return shapes


def state_of(form: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) for name, shape in published(form).items()
    }


def silent() -> SpyNet:
    """Return a network that adds no flow at any scale."""
    net = SpyNet()
    for weights in net.parameters():
        torch.nn.init.zeros_(weights)
    return net


def pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 2, 3, height, width, generator=generator).unbind()


def test_names_and_shapes_are_the_published_ones():
    state = {name: tuple(value.shape) for name, value in SpyNet().state_dict().items()}
    statistics = {"mean": (1, 3, 1, 1), "std": (1, 3, 1, 1)}
    assert state == published("BasicSR") | statistics
    assert sum(math.prod(shape) for shape in published("BasicSR").values()) == 1_440_300


@pytest.mark.parametrize("form", ["BasicSR", "mmagic"])
@pytest.mark.parametrize("layout", ["params", "state_dict", None])
def test_published_files_load(tmp_path, form, layout):
    path, state = tmp_path / "flow.pth", state_of(form)
    torch.save(state if layout is None else {layout: state}, path)
    net = make_spynet(path)
    for own, stored in zip(net.parameters(), state.values(), strict=True):
        assert torch.equal(own, stored)
    assert net.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_a_missing_or_foreign_file_is_told(tmp_path):
    path = tmp_path / "flow.pth"
    with pytest.raises(CheckpointError, match=r"SpyNet: no weights at .*flow\.pth.*spynet=PATH"):
        make_spynet(str(path))
    torch.save({"params": {"conv.weight": torch.ones(1)}}, path)
    with pytest.raises(CheckpointError, match=r"flow\.pth is not what .*basic_module\.0.*nothing"):
        make_spynet(path)


def test_starting_untrained_is_said_once(caplog):
    spynet._tell_untrained.cache_clear()
    with caplog.at_level(logging.INFO):
        make_spynet(None)
        make_spynet(None)
    assert caplog.text.count("starts untrained") == 1


def test_without_refinement_nothing_moves():
    flow = silent()(*pair(40, 33))
    assert flow.shape == (2, 2, 40, 33)
    assert torch.equal(flow, torch.zeros_like(flow))


@pytest.mark.parametrize("level", range(6))
def test_what_a_scale_adds_counts_in_its_own_pixels(level):
    """An image of 48 x 32 is worked on as 64 x 32, so lengths downwards shrink again."""
    net = silent()
    with torch.no_grad():
        net.basic_module[level].basic_module[8].bias.copy_(torch.tensor([1.0, -3.0]))
    flow = net(*pair(48, 32))
    factor = 2 ** (5 - level)
    torch.testing.assert_close(flow[:, 0], torch.full((2, 48, 32), 1.0 * factor))
    torch.testing.assert_close(flow[:, 1], torch.full((2, 48, 32), -3.0 * factor * 48 / 64))


def test_each_scale_sees_the_reference_and_the_other_image_warped():
    """The finest scale is asked for its first input channels as they are."""
    net = silent()
    seen = []
    net.basic_module[5].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net.basic_module[4].basic_module[8].bias.copy_(torch.tensor([1.5, 0.5]))
    ref, supp = pair(32, 64)
    net(ref, supp)
    flow = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1).expand(2, 2, 32, 64)
    normalised = [(image - net.mean) / net.std for image in (ref, supp)]
    warped = flow_warp(normalised[1], flow, padding="border")
    torch.testing.assert_close(seen[0], torch.cat((normalised[0], warped, flow), 1))


def test_a_pyramid_holds_the_flows_of_the_finer_scales():
    net = silent()
    with torch.no_grad():
        net.basic_module[0].basic_module[8].bias.copy_(torch.tensor([1.0, 2.0]))
    flows = net.pyramid(*pair(64, 48), 4)
    assert [tuple(flow.shape[-2:]) for flow in flows] == [(64, 48), (32, 24), (16, 12), (8, 6)]
    for level, flow in enumerate(flows):
        factor = 2 ** (5 - level)
        torch.testing.assert_close(flow[:, 0], torch.full_like(flow[:, 0], factor * 48 / 64))
        torch.testing.assert_close(flow[:, 1], torch.full_like(flow[:, 1], factor * 2.0))


@pytest.mark.slow
def test_flow_learns_a_shift():
    """Along the flow, the other image becomes the reference."""
    torch.manual_seed(0)
    net = SpyNet()
    noise = torch.rand(1, 3, 12, 12)
    large = functional.interpolate(noise, (40, 40), mode="bicubic", align_corners=True)
    ref, supp = large[..., 4:36, 4:36], large[..., 2:34, 3:35]
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def error() -> torch.Tensor:
        warped = flow_warp(supp, net(ref, supp), padding="border")
        return (warped - ref)[..., 4:-4, 4:-4].abs().mean()

    before = error().item()
    for _ in range(25):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    flow = net(ref, supp)[..., 8:-8, 8:-8].mean((0, 2, 3)).tolist()
    assert error().item() < 0.5 * before
    assert flow == pytest.approx([1.0, 2.0], abs=0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    net = SpyNet()
    ref, supp = pair(16, 20)
    with torch.autocast("cpu", dtype=dtype):
        halved = net(ref, supp)
    assert halved.dtype is torch.float32
    assert torch.equal(halved, net(ref, supp))
    assert net(ref.to(dtype), supp.to(dtype)).dtype is torch.float32
