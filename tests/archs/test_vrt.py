import copy
import math

import pytest
import torch

from archs.vrt import VRT, Doubling, Halving
from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from tests.archs.networks import build, image, vrt

DEBLUR = {
    "scale": 1,
    "depths": (8,) * 7 + (4,) * 4,
    "indep_reconsts": (9, 10),
    "embed_dims": (96,) * 7 + (120,) * 4,
    "num_heads": (6,) * 11,
    "deformable_groups": 16,
}
VIMEO = {"scale": 4, "window_size": (8, 8, 8), "pa_frames": 4, "deformable_groups": 16}
REDS_16 = {"scale": 4, "window_size": (8, 8, 8), "pa_frames": 6, "deformable_groups": 24}

PUBLISHED = {
    "001": ({"scale": 4}, 30_676_435),
    "002": (REDS_16, 35_134_783),
    "003": (VIMEO, 32_577_991),
    "005": (DEBLUR, 18_320_007),
    "008": ({**DEBLUR, "nonblind_denoising": True}, 18_320_871),
}
"""Arguments and parameters of the published files, by number."""


def weights(place, *shape):
    return {f"{place}.weight": shape, f"{place}.bias": (shape[0],)}


def perceptron(place, channels, hidden, out):
    wide = weights(f"{place}.fc11", hidden, channels) | weights(f"{place}.fc12", hidden, channels)
    return wide | weights(f"{place}.fc2", out, hidden)


def attention_block(place, channels, window, heads, mutual):
    length = math.prod(window)
    state = {
        f"{place}.attn.relative_position_bias_table": (
            math.prod(2 * side - 1 for side in window),
            heads,
        ),
        f"{place}.attn.relative_position_index": (length, length),
        **weights(f"{place}.attn.qkv_self", 3 * channels, channels),
        **weights(f"{place}.attn.proj", channels, (2 if mutual else 1) * channels),
        **weights(f"{place}.norm1", channels),
        **weights(f"{place}.norm2", channels),
        **perceptron(f"{place}.mlp", channels, 2 * channels, channels),
    }
    if mutual:
        state[f"{place}.attn.position_bias"] = (1, length // 2, channels)
        state |= weights(f"{place}.attn.qkv_mut", 3 * channels, channels)
    return state


def published(
    scale,
    window_size=(6, 8, 8),
    depths=(8,) * 7 + (4,) * 6,
    indep_reconsts=(11, 12),
    embed_dims=(120,) * 7 + (180,) * 6,
    num_heads=(6,) * 13,
    pa_frames=2,
    deformable_groups=12,
    nonblind_denoising=False,
):
    """Return the names and shapes of the official state dict."""
    c, reach = embed_dims[0], pa_frames // 2
    state = weights("conv_first", c, 27 + nonblind_denoising, 1, 3, 3)
    for level in range(6):
        for layer, (out, into) in enumerate(((32, 8), (64, 32), (32, 64), (16, 32), (2, 16))):
            place = f"spynet.basic_module.{level}.basic_module.{2 * layer}"
            state |= weights(place, out, into, 7, 7)
    state |= {"spynet.mean": (1, 3, 1, 1), "spynet.std": (1, 3, 1, 1)}
    for number in range(7):
        place, heads = f"stage{number + 1}", num_heads[number]
        inner = c if number == 0 else 4 * c if number < 4 else c // 4
        state |= weights(f"{place}.reshape.1", inner)
        state |= weights(f"{place}.reshape.2", c, inner) if number else {}
        for index in range(depths[number]):
            mutual = index < depths[number] * 3 // 4
            block = (
                f"{place}.residual_group1.blocks.{index}"
                if mutual
                else f"{place}.residual_group2.blocks.{index - depths[number] * 3 // 4}"
            )
            window = (2, *window_size[1:]) if mutual else window_size
            state |= attention_block(block, c, window, heads, mutual)
        state |= weights(f"{place}.linear1", c, c) | weights(f"{place}.linear2", c, c)
        state |= weights(f"{place}.pa_deform", c, c, 3, 3)
        for layer, (out, into) in {
            0: (c, (1 + reach) * c + pa_frames),
            2: (c, c),
            4: (c, c),
            6: (27 * deformable_groups, c),
        }.items():
            state |= weights(f"{place}.pa_deform.conv_offset.{layer}", out, into, 3, 3)
        state |= perceptron(f"{place}.pa_fuse", 3 * c, 3 * c, c)
    wide = embed_dims[-1]
    state |= weights("stage8.0.1", c) | weights("stage8.0.2", wide, c)
    for number in range(7, len(depths)):
        place = f"stage8.{number - 6}"
        window = (1, *window_size[1:]) if number in indep_reconsts else window_size
        for index in range(depths[number]):
            block = f"{place}.residual_group.blocks.{index}"
            state |= attention_block(block, wide, window, num_heads[number], False)
        state |= weights(f"{place}.linear", wide, wide)
    state |= weights("norm", wide) | weights("conv_after_body", c, wide)
    if scale == 1:
        return state | weights("conv_last", 3, c, 1, 3, 3)
    return (
        state
        | weights("conv_before_upsample.0", 64, c, 1, 3, 3)
        | weights("upsample.0", 256, 64, 1, 3, 3)
        | weights("upsample.5", 256, 64, 1, 3, 3)
        | weights("upsample.10", 64, 64, 1, 3, 3)
        | weights("conv_last", 3, 64, 1, 3, 3)
    )


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=pytest.mark.slow if number in ("003", "008") else ())
        for number in PUBLISHED
    ],
)
def test_names_shapes_and_count_are_the_published_ones(number):
    arguments, count = PUBLISHED[number]
    with torch.device("meta"):
        net = VRT(**arguments)
    assert {n: tuple(v.shape) for n, v in net.state_dict().items()} == published(**arguments)
    assert sum(p.numel() for p in net.parameters()) == count


def filled(net):
    """Give every parameter values of its own, all sizes in proportion."""
    with torch.no_grad():
        for number, (name, values) in enumerate(sorted(net.named_parameters())):
            steps = torch.arange(values.numel(), dtype=torch.float64)
            chirp = torch.sin(0.37 * steps**2 + number).view(values.shape)
            if values.ndim == 1:
                values.copy_(0.1 * chirp + float(name.endswith("weight")))
            else:
                gain = 0.7 if name.startswith("spynet") else 0.8
                values.copy_(chirp * gain / math.sqrt(values[0].numel()))
    return net.eval()


def test_the_result_is_that_of_the_official_program():
    """A small x2 network with every part in use; the numbers are what the published code gives."""
    arguments = {
        "window_size": (3, 4, 4),
        "depths": (2,) * 8 + (1,),
        "embed_dims": (12,) * 9,
        "pa_frames": 6,
        "deformable_groups": 6,
    }
    net = filled(vrt(2, slim=False, **arguments))
    ramp = torch.arange(4 * 3 * 64 * 72, dtype=torch.float64)
    clip = (0.5 + 0.5 * torch.sin(0.013 * ramp)).float().view(1, 4, 3, 64, 72)
    with torch.no_grad():
        pred = net(clip)
    expected = [
        [0.6053046, 0.2685171, 0.8809172],
        [0.2458036, 0.8256953, 0.2072159],
        [1.0238631, -0.0342473, 1.1025480],
        [0.1261480, 0.7846929, 0.3764894],
    ]
    found = pred[0, :, :, 40, 77]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_what_is_halved_can_be_doubled_again():
    x = torch.arange(2 * 2 * 4 * 6 * 3.0).view(2, 2, 4, 6, 3)
    halved = Halving()(x)
    assert torch.equal(halved[1, 0, 1, 2].view(2, 2, 3)[1, 0], x[1, 0, 2, 5])
    assert torch.equal(Doubling()(halved), x)


def silent(net):
    """Let the last convolution add nothing."""
    torch.nn.init.zeros_(net.conv_last.weight)
    torch.nn.init.zeros_(net.conv_last.bias)
    return net.eval()


def test_restoration_starts_from_the_colours_of_each_frame():
    net = silent(vrt(1, pa_frames=0, extra_inputs={"spikes": 2, "depth": 1}))
    assert dict(net.spec.extra_inputs) == {"spikes": 2, "depth": 1}
    clip = image(net, 9, 10)
    assert clip.shape[2] == 6
    torch.testing.assert_close(net(clip), clip[:, :, :3])


def test_upscaling_starts_from_bilinear():
    net = silent(vrt(2, pa_frames=0))
    clip = image(net, 8, 16)
    expected = torch.nn.functional.interpolate(clip[0], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(net(clip)[0], expected)


def test_extra_inputs_are_warped_and_the_level_of_noise_is_not():
    net = vrt(1, extra_inputs={"spikes": 2}, nonblind_denoising=True)
    assert dict(net.spec.extra_inputs) == {"spikes": 2, "noise_level": 1}
    assert net.conv_first.in_channels == 9 * 5 + 1


def test_flow_is_that_of_the_colours():
    net = build(lambda: vrt(1, extra_inputs={"spikes": 2})).eval()
    seen = []
    net.spynet.pyramid = lambda ref, supp, levels: (
        seen.append(ref)
        or [torch.zeros(len(ref), 2, ref.shape[2] >> i, ref.shape[3] >> i) for i in range(levels)]
    )
    clip = image(net, 8, 8)
    with torch.no_grad():
        net(clip)
    assert torch.equal(seen[0], clip[0, :-1, :3])
    assert torch.equal(seen[1], clip[0, :, :3].flip(0)[:-1])


@pytest.mark.parametrize("num_frames", [2, 3, 5])
@pytest.mark.parametrize("pa_frames", [0, 6])
def test_a_clip_of_any_length_from_two_frames_on(num_frames, pa_frames):
    arguments = {"embed_dims": (12,) * 9, "deformable_groups": 6, "window_size": (4, 4, 4)}
    net = build(lambda: vrt(1, pa_frames=pa_frames, **arguments)).eval()
    clip = image(net, 6, 11, num_frames=num_frames)
    with torch.no_grad():
        pred = net(clip)
    assert pred.shape == clip.shape
    assert torch.isfinite(pred).all()


def test_one_frame_is_refused():
    net = vrt(1, pa_frames=0)
    assert net.spec.min_frames == 2
    with pytest.raises(ConfigError, match="at least 2 frames; got 1"):
        net(image(net, 8, 8, num_frames=1))


def test_turned_around_in_time_a_still_clip_gives_the_same_frames():
    """Both directions go through the same layers; here nothing but them knows of time."""
    net = build(lambda: vrt(1, window_size=(1, 4, 4), mul_attn_ratio=0.0, pa_frames=4)).eval()
    for number in range(1, 8):
        for layer in ("fc11", "fc12"):
            weight = getattr(getattr(net, f"stage{number}").pa_fuse, layer).weight
            with torch.no_grad():
                weight[:, 16:32] = weight[:, 32:]
    with torch.no_grad():
        net.conv_first.weight[:, 3:15] = net.conv_first.weight[:, 15:]
        clip = image(net, 8, 8, num_frames=4)
        torch.testing.assert_close(net(clip.flip(1)).flip(1), net(clip), rtol=1e-4, atol=1e-5)


def test_stochastic_depth_grows_with_depth():
    net = vrt(1, pa_frames=0, drop_path_rate=0.3)
    rates = [m.drop_path.rate for m in net.modules() if hasattr(m, "drop_path")]
    assert rates == pytest.approx(torch.linspace(0, 0.3, 16).tolist())


def test_the_spec_is_that_of_a_clip_network():
    assert vrt(2, pa_frames=0).spec == NetSpec(
        scale=2,
        size_multiple=8,
        min_size=8,
        takes_clips=True,
        time_field=None,
        min_frames=2,
        weight_files=("spynet",),
    )


def stage(gradient_checkpointing):
    """Return a stage of a network, so that its groups and alignment are those of one."""
    net = vrt(1, drop_path_rate=0.5, gradient_checkpointing=gradient_checkpointing)
    return net.stage2.train()


def through(part):
    """Return the result and the gradients of a stage, for the same noise."""
    torch.manual_seed(1)
    x = torch.rand(3, 3, 16, 8, 16, requires_grad=True)
    flows = [torch.rand(3, 2, 2, 8, 4, requires_grad=True) for _ in range(2)]
    torch.manual_seed(2)
    out = part(x, flows[:1], flows[1:])
    return [out, *torch.autograd.grad(out.square().sum(), [x, *flows, *part.parameters()])]


def test_checkpointing_changes_nothing_in_a_stage_with_alignment():
    plain = build(lambda: stage(False))
    saving = stage(True)
    saving.load_state_dict(plain.state_dict())
    for expected, found in zip(through(plain), through(saving), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.slow
def test_a_stage_with_alignment_compiles_as_one_graph_with_checkpointing():
    torch.compiler.reset()
    plain = build(lambda: stage(True))
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="aot_eager", fullgraph=True)
    for expected, found in zip(through(plain), through(compiled), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_whole_is_one_graph_with_checkpointing():
    torch.compiler.reset()
    net = build(lambda: vrt(1, drop_path_rate=0.5, gradient_checkpointing=True)).train()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    clip = image(net, 9, 8, batch=2, num_frames=2)
    preds = []
    for each in (net, compiled):
        torch.manual_seed(5)
        preds.append(each(clip))
    torch.testing.assert_close(*preds)
    assert preds[1].requires_grad


@pytest.mark.slow
def test_float16_on_the_cpu_is_finite():
    net = build(lambda: vrt(2)).train()
    with torch.autocast("cpu", dtype=torch.float16):
        pred = net(image(net, 9, 8))
    pred.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 5}, "scale must be one of 1, 2, 3, 4, 8; got 5"),
        ({"pa_frames": 3}, "pa_frames must be one of 0, 2, 4, 6; got 3"),
        ({"window_size": (8, 8)}, r"window_size must be frames, rows and columns; got \[8, 8\]"),
        ({"window_size": (6, 8, 1)}, r"window_size\[2\] must be an integer of at least 2"),
        ({"depths": (8,) * 7}, "same length, at least 8; got 7, 13 and 13"),
        ({"depths": (8,) * 12 + (0,)}, r"depths\[12\] must be"),
        ({"num_heads": (7,) * 13}, r"embed_dims\[0\] must be .* num_heads\[0\] \(7\); got 120"),
        (
            {"embed_dims": (120,) * 6 + (96,) + (180,) * 6},
            r"embed_dims\[6\] must equal embed_dims\[0\] \(120\).*got 96",
        ),
        ({"embed_dims": (120,) * 7 + (180,) * 5 + (120,)}, r"embed_dims\[12\] must equal"),
        ({"indep_reconsts": (6,)}, "indep_reconsts must lie in 7 to 12.*got 6"),
        ({"mul_attn_ratio": 1.5}, r"mul_attn_ratio must be in \[0, 1\]"),
        ({"head_feat": 0}, "head_feat must be"),
        ({"mlp_ratio": 0}, "mlp_ratio must be above 0"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must be in \[0, 1\)"),
        ({"pa_frames": 4, "deformable_groups": 5}, r"must be a multiple of pa_frames / 2 \(2\)"),
        ({"deformable_groups": 16}, r"embed_dims\[0\] .*deformable_groups \(16\); got 120"),
        ({"extra_inputs": {"spikes": 0}}, r"extra_inputs\.spikes must be"),
        (
            {"extra_inputs": {"noise_level": 1}, "nonblind_denoising": True},
            "nonblind_denoising=true brings it already",
        ),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"VRT: .*{message}"):
        VRT(**{"scale": 4, **arguments})
