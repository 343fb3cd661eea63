import pytest
import torch
from torch import nn

from archs.compact import SRVGGNetCompact
from archs.fsrcnn import FSRCNN
from archs.imdn import IMDN
from archs.span import SPAN
from archs.temporal import TemporalWindow
from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from tests.archs.networks import build, image, swinir


class Recorder(nn.Module):
    """Keeps its input and returns the centre frame."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.spec = NetSpec(scale=1, in_channels=in_channels)

    def forward(self, lq):
        self.seen = lq
        return lq[:, :3]


def test_each_frame_comes_first_in_its_own_window_and_ends_are_repeated():
    net = TemporalWindow(Recorder(15), frames=5)
    clip = torch.arange(4.0).view(1, 4, 1, 1, 1) + torch.zeros(2, 4, 3, 2, 3)
    assert torch.equal(net(clip), clip)
    assert net.net.seen.shape == (8, 15, 2, 3)
    windows = net.net.seen[:4, ::3, 0, 0].tolist()
    assert windows == [[0, 0, 0, 1, 2], [1, 0, 0, 2, 3], [2, 0, 1, 3, 3], [3, 1, 2, 3, 3]]


def test_samples_and_channels_keep_their_order():
    net = TemporalWindow(Recorder(9), frames=3)
    clip = torch.rand(2, 3, 3, 4, 5)
    net(clip)
    expected = [clip[b, [t, max(t - 1, 0), min(t + 1, 2)]] for b in range(2) for t in range(3)]
    assert torch.equal(net.net.seen, torch.stack(expected).flatten(1, 2))


def test_one_frame_is_a_clip():
    assert TemporalWindow(Recorder(9), 3)(torch.rand(1, 1, 3, 4, 4)).shape == (1, 1, 3, 4, 4)


def test_a_frame_reaches_as_far_in_time_as_the_spec_says():
    net = build(
        lambda: TemporalWindow(SRVGGNetCompact(1, in_channels=15, num_feat=4, num_conv=0), 5)
    )
    clip = image(net, 3, 3, num_frames=9).requires_grad_()
    (gradient,) = torch.autograd.grad(net(clip)[:, 4].sum(), clip)
    reached = gradient.abs().amax((0, 2, 3, 4)).nonzero().flatten().tolist()
    assert net.spec.time_field == 2
    assert reached == [2, 3, 4, 5, 6]


def test_the_spec_is_that_of_the_image_network_for_clips():
    inner = SRVGGNetCompact(2, in_channels=9, num_feat=4, num_conv=1)
    spec = TemporalWindow(inner, 3).spec
    assert spec == NetSpec(
        scale=2, receptive_field=inner.spec.receptive_field, takes_clips=True, time_field=1
    )
    luma = TemporalWindow(SRVGGNetCompact(2, 3, 1, num_feat=4, num_conv=1), 3).spec
    assert (luma.in_channels, luma.out_channels, luma.colour) == (1, 1, "y")
    spikes = TemporalWindow(
        SRVGGNetCompact(1, in_channels=24, num_feat=4, num_conv=1), 3, {"spikes": 5}
    ).spec
    assert (spikes.in_channels, dict(spikes.extra_inputs)) == (3, {"spikes": 5})


@pytest.mark.parametrize(
    "inner",
    [
        lambda: IMDN(2, in_channels=9, num_feat=16, num_block=1),
        lambda: SPAN(2, in_channels=9, num_feat=8),
        lambda: swinir(2, "pixelshuffle", in_channels=9, out_channels=3),
        lambda: swinir(1, "", in_channels=9, out_channels=3),
    ],
    ids=["imdn", "span", "swinir", "swinir_denoise"],
)
def test_other_image_networks_fit(inner):
    net = build(lambda: TemporalWindow(inner(), 3)).eval()
    scale = net.spec.scale
    with torch.no_grad():
        assert net(image(net, 5, 6)).shape == (1, 3, 3, 5 * scale, 6 * scale)


@pytest.mark.parametrize(
    ("net", "arguments", "message"),
    [
        (Recorder(12), {"frames": 4}, "frames must be odd.*got 4, nearest: 3, 5"),
        (Recorder(9), {"frames": 0}, "frames must be an integer of at least 1"),
        (Recorder(9), {"frames": 5}, r"for RGB 5 \* \(3\) = 15; got 9"),
        (Recorder(9), {"frames": 3, "extra_inputs": {"spikes": 5}}, r"3 \* \(3 \+ 5\) = 24; got 9"),
        (Recorder(9), {"frames": 3, "extra_inputs": {"spikes": 0}}, r"extra_inputs\.spikes must"),
        (FSRCNN(2), {"frames": 3}, "net.in_channels must be 3 frames .* got 1"),
        (nn.Conv2d(9, 3, 1), {"frames": 3}, "must have a spec.*Conv2d has none"),
        (TemporalWindow(Recorder(9), 3), {"frames": 3}, "TemporalWindow takes clips already"),
    ],
)
def test_impossible_arguments_are_refused(net, arguments, message):
    with pytest.raises(ConfigError, match=f"TemporalWindow: .*{message}"):
        TemporalWindow(net, **arguments)
