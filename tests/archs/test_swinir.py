import copy
import math

import pytest
import torch

from archs.swin_layers import DropPath, join_windows, shift_mask, split_windows
from archs.swinir import SwinIR
from sr_train.api.errors import ConfigError
from tests.archs.networks import build, image, swinir

LIGHT = {"embed_dim": 60, "depths": (6,) * 4, "num_heads": (6,) * 4}
BIAS_TABLES = 24 * 225 * 6


def planned(**arguments):
    """Return the names and shapes of a state dict without making the weights."""
    with torch.device("meta"):
        net = SwinIR(**arguments)
    count = sum(math.prod(weights.shape) for weights in net.parameters())
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}, count


@pytest.mark.parametrize(("scale", "thousands"), [(2, 878), (4, 897)])
def test_lightweight_has_the_published_names_and_count(scale, thousands):
    state, count = planned(scale=scale, upsampler="pixelshuffledirect", **LIGHT)
    assert len(state) == 366
    assert state["patch_embed.norm.weight"] == (60,)
    block = "layers.3.residual_group.blocks.5."
    assert state[block + "attn.relative_position_bias_table"] == (225, 6)
    assert state[block + "attn.relative_position_index"] == (64, 64)
    assert state[block + "attn_mask"] == (64, 64, 64)
    assert state[block + "attn.qkv.weight"] == (180, 60)
    assert state[block + "mlp.fc1.weight"] == (120, 60)
    assert "layers.3.residual_group.blocks.4.attn_mask" not in state
    assert state["layers.3.conv.weight"] == (60, 60, 3, 3)
    assert state["upsample.0.weight"] == (3 * scale**2, 60, 3, 3)
    assert round((count - BIAS_TABLES) / 1000) == thousands


def test_classical_has_the_published_names():
    state, count = planned(scale=4, img_size=48)
    assert len(state) == 550
    assert count == 11_900_199
    assert state["layers.0.residual_group.blocks.1.attn_mask"] == (36, 64, 64)
    assert state["conv_before_upsample.0.weight"] == (64, 180, 3, 3)
    assert state["upsample.0.weight"] == state["upsample.2.weight"] == (256, 64, 3, 3)
    assert state["conv_last.weight"] == (3, 64, 3, 3)


def test_real_world_large_has_the_published_names():
    state, count = planned(
        scale=4,
        upsampler="nearest+conv",
        embed_dim=240,
        depths=(6,) * 9,
        num_heads=(8,) * 9,
        resi_connection="3conv",
    )
    assert len(state) == 859
    assert count == 28_013_059
    assert state["layers.8.conv.2.weight"] == (60, 60, 1, 1)
    assert state["conv_after_body.4.weight"] == (240, 60, 3, 3)
    assert state["conv_up2.weight"] == (64, 64, 3, 3)


def test_real_world_x2_has_one_convolution_less():
    state, _ = planned(scale=2, upsampler="nearest+conv")
    assert "conv_up1.weight" in state
    assert "conv_up2.weight" not in state


def test_jpeg_has_the_published_names():
    state, count = planned(
        scale=1, in_channels=1, upsampler="", window_size=7, img_size=126, img_range=255.0
    )
    assert len(state) == 544
    assert count == 11_485_585
    assert state["layers.0.residual_group.blocks.1.attn_mask"] == (324, 49, 49)
    assert state["conv_last.weight"] == (1, 180, 3, 3)


def test_windows_are_put_back_where_they_were():
    x = torch.arange(2 * 6 * 9 * 2).view(2, 6, 9, 2)
    windows = split_windows(x, 3)
    assert windows.shape == (12, 9, 2)
    assert torch.equal(windows[1].view(3, 3, 2), x[0, :3, 3:6])
    assert torch.equal(join_windows(windows, 3, 6, 9), x)


def test_the_mask_parts_what_the_shift_brought_together():
    """After a shift by 1 in windows of 2, the last row and column come from the other border."""
    mask = shift_mask(4, 4, 2)
    assert mask.shape == (4, 4, 4)
    assert torch.equal(mask[0], torch.zeros(4, 4))
    apart = [[0.0, -100.0, 0.0, -100.0], [-100.0, 0.0, -100.0, 0.0]] * 2
    assert torch.equal(mask[1], torch.tensor(apart))
    assert torch.equal(mask[3] == 0, torch.eye(4, dtype=torch.bool))


def test_pixels_of_opposite_borders_do_not_see_each_other():
    """With one shifted block, a change in the first row stays within half a window of it."""
    net = build(lambda: swinir(1, "", depths=(2,), num_heads=(2,))).eval()
    net.layers[0].residual_group.blocks = net.layers[0].residual_group.blocks[1:]
    lq = image(net, 16, 16)
    changed = lq.clone()
    changed[..., 0, :] += 0.5
    with torch.no_grad():
        moved = (net(changed) - net(lq)).abs().amax((0, 1, 3))
    assert moved[0] > 0
    assert moved[10:].max() == 0


@pytest.mark.parametrize("upsampler", ["pixelshuffledirect", "nearest+conv"])
def test_img_size_has_no_effect_and_other_masks_load(upsampler):
    net = build(lambda: swinir(2, upsampler, img_size=8)).eval()
    other = copy.deepcopy(swinir(2, upsampler, img_size=16)).eval()
    other.load_state_dict(net.state_dict())
    lq = image(net, 8, 8)
    with torch.no_grad():
        assert torch.equal(net(lq), other(lq))
    assert other.layers[0].residual_group.blocks[1].attn_mask.shape == (16, 16, 16)


def test_masks_of_another_window_do_not_load():
    net = swinir(2, "pixelshuffledirect")
    state = swinir(2, "pixelshuffledirect", window_size=2).state_dict()
    with pytest.raises(RuntimeError, match="attn_mask"):
        net.load_state_dict(state)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    out = drop(torch.ones(4000, 2, 2, 3))
    per_sample = out.flatten(1)
    assert (per_sample.amin(1) == per_sample.amax(1)).all()
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop.eval()(out), out)


def test_stochastic_depth_grows_with_depth():
    net = swinir(2, "pixelshuffledirect", drop_path_rate=0.3)
    rates = [block.drop_path.rate for group in net.layers for block in group.residual_group.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_scale_1_without_head_starts_from_the_input():
    net = swinir(1, "").eval()
    torch.nn.init.zeros_(net.conv_last.weight)
    torch.nn.init.zeros_(net.conv_last.bias)
    lq = image(net, 5, 6)
    torch.testing.assert_close(net(lq), lq)


def test_scale_1_without_head_starts_from_the_first_channels():
    net = build(lambda: swinir(1, "", in_channels=9, out_channels=3)).eval()
    torch.nn.init.zeros_(net.conv_last.weight)
    torch.nn.init.zeros_(net.conv_last.bias)
    lq = image(net, 5, 6)
    torch.testing.assert_close(net(lq), lq[:, :3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"upsampler": "bilinear"}, "upsampler must be one of 'pixelshuffle'"),
        ({"scale": 5}, r"scale \(upsampler 'pixelshuffle'\) must be one of 2, 3, 4, 8; got 5"),
        ({"scale": 2, "upsampler": ""}, r"scale \(upsampler ''\) must be one of 1; got 2"),
        ({"scale": 3, "upsampler": "nearest+conv"}, ".* must be one of 2, 4; got 3"),
        ({"resi_connection": "2conv"}, "resi_connection must be one of '1conv', '3conv'"),
        ({"num_heads": (7,) * 6}, r"embed_dim \(180\) must be a multiple of num_heads\[0\]"),
        (
            {"scale": 1, "upsampler": "", "in_channels": 2, "out_channels": 3},
            r"in_channels \(upsampler ''\) must be 1 or at least out_channels \(3\).*got 2",
        ),
        ({"depths": (6, 6)}, "depths and num_heads must be of the same length"),
        ({"depths": (6,) * 5 + (0,)}, r"depths\[5\] must be"),
        ({"window_size": 7}, "img_size must be .* got 64, nearest: 63, 70"),
        ({"img_size": 8}, "img_size must be .* got 8, nearest: 16, 24"),
        ({"window_size": 1}, "window_size must be an integer of at least 2"),
        ({"mlp_ratio": 0}, "mlp_ratio must be above 0"),
        ({"img_range": -1.0}, "img_range must be above 0"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must be in \[0, 1\)"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"SwinIR: {message}"):
        SwinIR(**{"scale": 2, **arguments})
