import pytest
import torch
from torch.nn import functional

from archs.basicvsr import BasicVSR
from sr_train.api.errors import ConfigError
from sr_train.api.names import to_own_names
from sr_train.ops.flow import flow_warp
from tests.archs.networks import basicvsr, build, image
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


def published():
    """Names and shapes of basicvsr_reds4_20120409-0e599677.pth, `generator.` taken off."""
    return (
        flow()
        | residual("backward_resblocks", 67, 64, 30)
        | residual("forward_resblocks", 67, 64, 30)
        | conv("fusion", 64, 128, 1)
        | tail()
    )


def test_published_weights_of_both_programs_fit():
    with torch.device("meta"):
        net = BasicVSR(4)
    shapes = published()
    assert to_own_names(net, shapes) == own_shapes(net)
    assert to_own_names(net, dict(renamed(shapes, in_basicsr))) == own_shapes(net)
    assert count(net) == 6_291_311


def test_weights_of_basicsr_load_strictly():
    net, other = build(lambda: basicvsr(4)), basicvsr(4)
    state = {
        name.replace("_resblocks", "_trunk")
        .replace("upsample1.upsample_conv", "upconv1")
        .replace("upsample2.upsample_conv", "upconv2"): value
        for name, value in net.state_dict().items()
    }
    assert "upconv2.bias" in state
    other.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[n]) for n, value in net.state_dict().items())


@pytest.mark.parametrize("num_frames", [1, 2, 5])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_clips_of_any_length_are_enlarged(scale, num_frames):
    net = build(lambda: basicvsr(scale)).eval()
    with torch.no_grad():
        pred = net(image(net, 5, 7, batch=2, num_frames=num_frames))
    assert pred.shape == (2, num_frames, 3, 5 * scale, 7 * scale)
    assert torch.isfinite(pred).all()


def test_the_tail_starts_from_the_enlarged_frame():
    net = build(lambda: basicvsr(2)).eval()
    torch.nn.init.zeros_(net.conv_last.weight)
    torch.nn.init.zeros_(net.conv_last.bias)
    lq = image(net, 6, 5)
    base = functional.interpolate(lq[0], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(net(lq)[0], base)


def test_every_frame_sees_every_other_one():
    net = build(lambda: basicvsr(1)).double().eval()
    lq = image(net, 4, 4).double().requires_grad_()
    pred = net(lq)
    for frame in range(3):
        (gradient,) = torch.autograd.grad(pred[0, frame].sum(), lq, retain_graph=True)
        assert (gradient[0].abs().amax((1, 2, 3)) > 0).all()


def test_features_come_along_the_flow_to_the_neighbour():
    """One step of each pass, against the same step written out."""
    net = build(lambda: basicvsr(2)).eval()
    lq = image(net, 12, 10, num_frames=2)
    first, second = lq.unbind(1)
    none = torch.zeros(1, 8, 12, 10)
    with torch.no_grad():
        later = net.backward_resblocks(torch.cat((second, none), 1))
        warped = flow_warp(later, net.spynet(first, second))
        both = net.backward_resblocks(torch.cat((first, warped), 1))
        earlier = net.forward_resblocks(torch.cat((first, none), 1))
        expected = net._reconstruct(first, both, earlier)
        torch.testing.assert_close(net(lq)[:, 0], expected)


def test_a_reversed_clip_gives_the_reversed_result_with_both_passes_swapped():
    net, other = build(lambda: basicvsr(2)).eval(), build(lambda: basicvsr(2)).eval()
    state = net.state_dict()
    for name in list(state):
        if name.startswith("backward_"):
            twin = name.replace("backward_", "forward_")
            state[name], state[twin] = state[twin], state[name]
    state["fusion.weight"] = state["fusion.weight"].roll(8, 1)
    other.load_state_dict(state)
    lq = image(net, 6, 9, num_frames=4)
    with torch.no_grad():
        torch.testing.assert_close(other(lq.flip(1)).flip(1), net(lq))
        assert not torch.allclose(net(lq.flip(1)).flip(1), net(lq))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 3}, "scale must be one of 1, 2, 4; got 3"),
        ({"mid_channels": 0}, "mid_channels must be an integer of at least 1; got 0"),
        ({"num_blocks": 0}, "num_blocks must be"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"BasicVSR: {message}"):
        BasicVSR(**{"scale": 4, **arguments})
