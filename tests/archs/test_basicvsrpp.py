import pytest
import torch
from torch.nn import functional

from archs.basicvsrpp import BasicVSRPlusPlus, SecondOrderAlignment
from sr_train.api.errors import ConfigError
from sr_train.api.names import to_own_names
from sr_train.engine.weights import load_into, read_weights
from sr_train.ops.flow import flow_warp
from tests.archs.networks import basicvsrpp, build, image
from tests.archs.recurrent import (
    conv,
    count,
    flow,
    in_basicsr,
    own_shapes,
    renamed,
    residual,
    tail,
)

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


def published(channels: int, num_blocks: int, *, is_low_res_input: bool = True):
    """Names and shapes of a published file, `generator.` taken off."""
    if is_low_res_input:
        shapes = flow() | residual("feat_extract", 3, channels, 5)
    else:
        shapes = flow() | conv("feat_extract.0", channels, 3)
        shapes |= conv("feat_extract.2", channels, channels)
        shapes |= residual("feat_extract.4", channels, channels, 5)
    for number, branch in enumerate(BRANCHES):
        align = f"deform_align.{branch}"
        shapes[f"{align}.weight"] = (channels, 2 * channels, 3, 3)
        shapes[f"{align}.bias"] = (channels,)
        shapes |= conv(f"{align}.conv_offset.0", channels, 3 * channels + 4)
        shapes |= conv(f"{align}.conv_offset.2", channels, channels)
        shapes |= conv(f"{align}.conv_offset.4", channels, channels)
        shapes |= conv(f"{align}.conv_offset.6", 432, channels)
        shapes |= residual(f"backbone.{branch}", (2 + number) * channels, channels, num_blocks)
    return shapes | residual("reconstruction", 5 * channels, channels, 5) | tail(channels)


@pytest.mark.parametrize(
    ("channels", "num_blocks", "is_low_res_input", "parameters"),
    [(64, 7, True, 7_322_927), (64, 15, False, 9_760_175), (128, 25, True, 43_780_463)],
    ids=["x4", "deblurring and denoising", "NTIRE 2021"],
)
def test_published_weights_of_both_programs_fit(channels, num_blocks, is_low_res_input, parameters):
    """The numbers of parameters are those of the published source."""
    with torch.device("meta"):
        net = BasicVSRPlusPlus(
            4 if is_low_res_input else 1,
            mid_channels=channels,
            num_blocks=num_blocks,
            is_low_res_input=is_low_res_input,
        )
    shapes = published(channels, num_blocks, is_low_res_input=is_low_res_input)
    assert to_own_names(net, shapes) == own_shapes(net)
    assert to_own_names(net, dict(renamed(shapes, in_basicsr))) == own_shapes(net)
    assert count(net) == parameters


def test_a_file_of_mmagic_loads_strictly(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {
        f"generator.{name}": torch.rand(shape, generator=generator)
        for name, shape in published(8, 1).items()
    }
    path = tmp_path / "basicvsr_plusplus.pth"
    torch.save({"meta": {"iter": 1}, "state_dict": {"step_counter": torch.ones(1), **state}}, path)
    net = BasicVSRPlusPlus(4, mid_channels=8, num_blocks=1)
    load_into(net, read_weights(path))
    kept = {f"generator.{name}": value for name, value in net.state_dict().items()}
    flow_name = "generator.spynet.basic_module.5.basic_module."
    assert torch.equal(kept[f"{flow_name}8.bias"], state[f"{flow_name}4.conv.bias"])
    shared = kept.keys() & state.keys()
    assert len(shared) == len(state) - 60
    assert all(torch.equal(kept[name], state[name]) for name in shared)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_clips_of_any_length_are_enlarged(scale, num_frames):
    net = build(lambda: basicvsrpp(scale)).eval()
    with torch.no_grad():
        pred = net(image(net, 5, 7, batch=2, num_frames=num_frames))
    assert pred.shape == (2, num_frames, 3, 5 * scale, 7 * scale)
    assert torch.isfinite(pred).all()


def test_without_a_tail_the_frame_itself_is_left():
    net = build(lambda: basicvsrpp(1, is_low_res_input=False)).eval()
    torch.nn.init.zeros_(net.conv_last.weight)
    torch.nn.init.zeros_(net.conv_last.bias)
    lq = image(net, 6, 9)
    assert torch.equal(net(lq), lq)


def test_restoration_works_on_a_quarter_of_the_size():
    net = build(lambda: basicvsrpp(1, is_low_res_input=False)).eval()
    seen = []
    net.spynet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    lq = image(net, 14, 16)
    with torch.no_grad():
        net(lq)
    padded = functional.pad(lq[0], (0, 0, 0, 2), mode="reflect")
    small = functional.interpolate(padded, scale_factor=0.25, mode="bicubic")
    torch.testing.assert_close(seen[0], (small[:-1], small[1:]))
    torch.testing.assert_close(seen[1], (small[1:], small[:-1]))


def written_out(net: BasicVSRPlusPlus, lq: torch.Tensor) -> torch.Tensor:
    """Follow the paper frame by frame, by the numbers of the frames."""
    frames = range(lq.shape[1])
    features = {"spatial": [net.feat_extract(lq[:, at]) for at in frames]}

    def flow_to(start: int, end: int) -> torch.Tensor:
        return net.spynet(lq[:, start], lq[:, end])

    for branch in BRANCHES:
        back = 1 if branch.startswith("backward") else -1
        found = {}
        for at in sorted(frames, reverse=back == 1):
            current = features["spatial"][at]
            aligned = torch.zeros_like(current)
            if at + back in frames:
                one, two = at + back, at + 2 * back
                flow_1 = flow_to(at, one)
                flow_2 = torch.zeros_like(flow_1)
                if two in frames:
                    flow_2 = flow_1 + flow_warp(flow_to(one, two), flow_1)
                before = found.get(two, torch.zeros_like(current))
                align = net.deform_align[branch]
                aligned = align(found[one], before, current, flow_1, flow_2)
            seen = [values[at] for values in features.values()]
            found[at] = aligned + net.backbone[branch](torch.cat([*seen, aligned], 1))
        features[branch] = [found[at] for at in frames]
    preds = []
    for at in frames:
        x = net.reconstruction(torch.cat([values[at] for values in features.values()], 1))
        base = functional.interpolate(lq[:, at], scale_factor=2, mode="bilinear")
        preds.append(net.upsample(x) + base)
    return torch.stack(preds, 1)


def test_propagation_is_that_of_the_paper():
    net = build(lambda: basicvsrpp(2)).eval()
    lq = image(net, 8, 12, num_frames=4)
    with torch.no_grad():
        torch.testing.assert_close(net(lq), written_out(net, lq))


def centred(channels: int = 8) -> SecondOrderAlignment:
    """Return an alignment that adds what it finds for both frames, at its centre alone."""
    align = SecondOrderAlignment(channels, max_residue_magnitude=3.0)
    torch.nn.init.zeros_(align.weight)
    with torch.no_grad():
        for channel in range(channels):
            align.weight[channel, channel, 1, 1] = 1.0
            align.weight[channel, channels + channel, 1, 1] = 10.0
    return align


def parts(height: int = 9, width: int = 11) -> list[torch.Tensor]:
    """Return features one and two steps back and of the frame, and flows to the former two."""
    torch.manual_seed(0)
    features = torch.randn(3, 2, 8, height, width).unbind()
    return [*features, *(torch.randn(2, 2, 2, height, width) * 2).unbind()]


def test_alignment_starts_as_half_of_what_the_flow_finds():
    """Masks start at sigmoid(0)."""
    one, two, current, flow_1, flow_2 = parts()
    expected = 0.5 * (flow_warp(one, flow_1) + 10.0 * flow_warp(two, flow_2))
    with torch.no_grad():
        aligned = centred()(one, two, current, flow_1, flow_2)
    torch.testing.assert_close(aligned, expected, atol=1e-5, rtol=1e-4)


def test_alignment_along_a_steady_flow_is_a_convolution_of_the_warped():
    one, two, current, *_ = parts()
    align = SecondOrderAlignment(8, 10.0)
    torch.nn.init.normal_(align.bias)
    flow_1 = torch.tensor([1.25, -0.5]).view(1, 2, 1, 1).expand(2, 2, 9, 11)
    flow_2 = torch.tensor([-1.0, 1.5]).view(1, 2, 1, 1).expand(2, 2, 9, 11)
    warped = torch.cat((flow_warp(one, flow_1), flow_warp(two, flow_2)), 1)
    expected = functional.conv2d(warped, 0.5 * align.weight, align.bias, padding=1)
    with torch.no_grad():
        aligned = align(one, two, current, flow_1, flow_2)
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(aligned[inner], expected[inner], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frame", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_residues_are_bounded_and_down_before_right(frame, axis):
    """The first half of the offsets is for one frame back; of each pair the first points down."""
    one, two, current, flow_1, flow_2 = parts()
    align = centred()
    with torch.no_grad():
        bias = align.conv_offset[-1].bias
        bias[:288].view(2, 8, 9, 2)[frame, :, :, axis] = 100.0
        bias[288:] = 100.0
        aligned = align(one, two, current, flow_1, flow_2)
    (flow_1, flow_2)[frame][:, 1 - axis] += 3.0
    expected = flow_warp(one, flow_1) + 10.0 * flow_warp(two, flow_2)
    torch.testing.assert_close(aligned, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_alignment_is_exact_in_half_precision(dtype):
    """Near 300, bf16 counts in steps of two pixels and fp16 in quarters."""
    one = torch.zeros(1, 8, 1, 401, dtype=dtype)
    one[..., 100] = 1.0
    flow = torch.tensor([-299.4, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 401)
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        aligned = centred()(one, torch.zeros_like(one), torch.zeros_like(one), flow, flow)
    assert aligned.dtype is dtype
    assert aligned[0, 0, 0, 399].item() == pytest.approx(0.5 * 0.6, abs=2e-3)
    assert aligned[0, 0, 0, 400].item() == pytest.approx(0.5 * 0.4, abs=2e-3)


def test_float16_autocast_trains():
    net = build(lambda: basicvsrpp(2)).train()
    with torch.autocast("cpu", dtype=torch.float16):
        pred = net(image(net, 8, 8))
    assert pred.dtype is torch.float32
    pred.square().mean().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in net.parameters())


def test_a_single_frame_leaves_flow_and_alignment_alone():
    net = build(lambda: basicvsrpp(2)).train()
    net(image(net, 8, 8, num_frames=1)).sum().backward()
    without = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is None}
    assert without == {"spynet", "deform_align"}


def test_extra_inputs_change_the_result_and_not_the_flow():
    net = build(lambda: basicvsrpp(1, is_low_res_input=False, extra_inputs={"spikes": 2})).eval()
    assert net.spec.extra_inputs == {"spikes": 2}
    seen = []
    net.spynet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    lq = image(net, 8, 8)
    other = lq.clone()
    other[:, :, 3:] += 1.0
    with torch.no_grad():
        assert not torch.allclose(net(lq), net(other))
    torch.testing.assert_close(seen[0], seen[2])


def test_weights_in_channels_last_give_the_same():
    net = build(lambda: basicvsrpp(2)).eval()
    lq = image(net, 8, 12)
    with torch.no_grad():
        expected = net(lq)
        net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(net(lq), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 3}, "scale must be one of 1, 2, 4; got 3"),
        ({"mid_channels": 60}, "mid_channels must be a multiple of 8; got 60, nearest: 56"),
        ({"num_blocks": 0}, "num_blocks must be"),
        ({"max_residue_magnitude": 0}, "max_residue_magnitude must be above 0"),
        ({"is_low_res_input": False}, "is_low_res_input=false restores at scale 1; got scale=4"),
        ({"extra_inputs": {"spikes": 0}}, r"extra_inputs\.spikes must be an integer"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"BasicVSRPlusPlus: {message}"):
        BasicVSRPlusPlus(**{"scale": 4, **arguments})
