"""Tiled inference: equal to the whole image where it can be, without seams where it cannot."""

import itertools
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from sr_train.api.errors import ConfigError, PluginError, SRTrainError
from sr_train.api.network import NetSpec
from sr_train.inference import tiling
from sr_train.inference.tiling import Tiler, blend_weights, plan_axis, tiled_forward
from sr_train.ops.padding import pad_to
from tests.closeness import assert_rounded_alike, sum_of_magnitudes


class Local(nn.Module):
    """Zero-padded convolutions behind a pixel unshuffle, whose radius is known exactly."""

    def __init__(self, scale=2, depth=3, unshuffle=1, dilation=1, min_size=1):
        super().__init__()
        torch.manual_seed(0)
        self.unshuffle, self.min_size = unshuffle, min_size
        self.spec = NetSpec(
            scale=scale,
            size_multiple=unshuffle,
            min_size=min_size,
            receptive_field=depth * dilation * unshuffle,
        )
        inside = 3 * unshuffle**2
        convs = [
            nn.Conv2d(inside, inside, 3, padding=dilation, dilation=dilation) for _ in range(depth)
        ]
        self.body = nn.Sequential(*convs)

    def forward(self, lq):
        height, width = lq.shape[-2:]
        x = functional.pixel_unshuffle(pad_to(lq, self.unshuffle, self.min_size), self.unshuffle)
        x = functional.pixel_shuffle(self.body(x), self.unshuffle)[..., :height, :width]
        return functional.interpolate(x, scale_factor=self.spec.scale, mode="nearest")


class Global(nn.Module):
    """Every pixel sees the mean of the whole input; windows differ from the whole image."""

    def __init__(self, scale=1, size_multiple=1):
        super().__init__()
        self.spec = NetSpec(scale=scale, size_multiple=size_multiple)

    def forward(self, lq):
        x = lq + 0.5 * lq.mean((-2, -1), keepdim=True)
        return functional.interpolate(x, scale_factor=self.spec.scale, mode="nearest")


def whole(net, lq):
    with torch.no_grad():
        return net(lq)


def assert_as_whole(out, net, lq):
    """Assert what a linear network gives, whose largest sums have 9 * 48 terms a layer.

    For each shape a processor may add them up in another order: 32 roundings, root of 2 * 432.
    """
    assert_rounded_alike(out, whole(net, lq), 32, sum_of_magnitudes(net, lq))


SIZES = [(37, 50), (64, 33), (16, 71)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("tile", "tile_batch"), [(3, 4), (9, 1), (16, 3), (40, 2)])
@pytest.mark.parametrize(
    "net",
    [Local(), Local(scale=3, depth=2, dilation=2), Local(unshuffle=2), Local(4, 1, unshuffle=4)],
    ids=["convs", "dilated", "unshuffle 2", "unshuffle 4"],
)
def test_tiles_equal_the_whole_image(net, tile, tile_batch, height, width):
    lq = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    out = tiled_forward(net, lq, net.spec, tile, tile_batch=tile_batch)
    assert_as_whole(out, net, lq)


def test_one_pixel_less_context_would_show():
    """The equality above is no accident: the outermost pixel of the context matters."""
    net = Local(scale=1, depth=3)
    lq = torch.rand(1, 3, 40, 40)
    short = NetSpec(scale=1, receptive_field=2)
    out = tiled_forward(net, lq, short, 16)
    assert (out - whole(net, lq)).abs().max() > 1e-4


def test_no_window_is_smaller_than_the_network_wants():
    net = Local(scale=1, depth=1, min_size=24)
    lq = torch.rand(1, 3, 60, 90)
    out = tiled_forward(net, lq, net.spec, 5)
    assert_as_whole(out, net, lq)


def test_far_border_gets_the_padding_of_the_whole_image():
    """A last window of one pixel would be mirrored onto itself."""
    net = Local(scale=1, depth=0, unshuffle=4)
    net.body = nn.Conv2d(48, 48, 1)
    lq = torch.rand(1, 3, 9, 13)
    out = tiled_forward(net, lq, net.spec, 4)
    assert_as_whole(out, net, lq)


class OverTime(nn.Module):
    """A convolution over frames and pixels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 3, padding=1)

    def forward(self, clip):
        return self.conv(clip.transpose(1, 2)).transpose(1, 2)


def test_clips_go_the_same_way():
    net, clip = OverTime(), torch.rand(2, 5, 3, 20, 27)
    out = tiled_forward(net, clip, NetSpec(scale=1, receptive_field=1), 8, tile_batch=2)
    assert_as_whole(out, net, clip)


def test_plan_covers_the_axis_evenly_and_on_the_grid():
    cases = itertools.product([1, 7, 8, 31, 64, 100], [1, 2, 4], [1, 3, 8], [0, 1, 4], [1, 20])
    for length, multiple, cores, halves, min_size in cases:
        core, overlap = cores * multiple, 2 * halves * multiple
        windows = plan_axis(length, core, overlap, multiple, min_size)
        assert windows[0].start == windows[0].keep_start == 0
        assert windows[-1].stop == windows[-1].keep_stop == length
        for before, after in itertools.pairwise(windows):
            assert before.keep_stop == after.keep_start < after.keep_stop
            assert after.start % multiple == before.stop % multiple == 0
            assert after.keep_start - after.start >= overlap // 2
            assert before.stop - before.keep_stop >= overlap // 2
        sizes = [window.stop - window.start for window in windows]
        assert min(sizes) >= min(length, min_size)
        assert max(sizes) - min(sizes) < multiple or len(windows) == 1


def test_windows_are_even():
    # 100 pixels in cores of at most 40: three of 34 rather than 40, 40 and 20
    assert [window.keep_stop for window in plan_axis(100, 40, 0)] == [34, 66, 100]


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize(("core", "overlap"), [(8, 0), (8, 1), (8, 8), (4, 12), (200, 4)])
def test_weights_are_positive_and_sum_to_one(core, overlap, scale):
    windows = tuple(plan_axis(61, core, overlap))
    total = torch.zeros(61 * scale)
    for window, weight in zip(windows, blend_weights(windows, scale), strict=True):
        assert weight.dtype == torch.float32
        assert weight.min() > 1e-4
        total[window.start * scale : window.stop * scale] += weight
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


def test_weights_do_not_fade_at_the_borders_of_the_image():
    windows = tuple(plan_axis(64, 24, 8))
    weights = blend_weights(windows, 1)
    assert weights[0][:8].eq(1).all()
    assert weights[-1][-8:].eq(1).all()
    assert blend_weights(windows, 1) is weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tile", "overlap"), [(16, None), (16, 0), (16, 15), (7, 3), (30, 1)])
def test_blending_keeps_a_constant_image(tile, overlap, dtype):
    net = Global(scale=2)
    lq = torch.full((1, 3, 45, 61), 0.5)
    out = tiled_forward(net, lq, net.spec, tile, overlap, out_dtype=dtype)
    assert out.dtype == dtype
    torch.testing.assert_close(out, torch.full_like(out, 0.75), rtol=0, atol=1e-6)


def test_blending_of_a_local_network_with_enough_overlap_is_nearly_exact():
    """Overlap below the receptive field, so windows are blended; they agree but for the rim."""
    net = Local(scale=2, depth=3)
    lq = torch.rand(1, 3, 60, 80)
    expected = whole(net, lq)
    out = tiled_forward(net, lq, NetSpec(scale=2), 32, 16)
    assert 0 < (out - expected).abs().max() < 0.02


def test_no_seam_where_windows_disagree():
    """Each window adds its own constant; the step between them is spread over the overlap."""
    net = Global(scale=1)
    ramp = torch.linspace(0, 1, 96).expand(1, 3, 96, 96)
    blended = tiled_forward(net, ramp, net.spec, 48, 24)
    hard = tiled_forward(net, ramp, net.spec, 48, 0)
    step = (blended[..., 1:] - blended[..., :-1]).abs().max()
    hard_step = (hard[..., 1:] - hard[..., :-1]).abs().max()
    assert hard_step > 0.2
    assert step < 0.04


def test_blending_keeps_origins_on_the_grid_of_the_network():
    starts = []
    net = Global(size_multiple=8)
    column = torch.arange(100.0).expand(1, 3, 60, 100)

    def forward(window):
        starts.append((window[0, 0, 0, 0].item(), window.shape[-1]))
        return net(window)

    tiled_forward(forward, column, net.spec, 30, 5)
    assert len({start for start, _ in starts}) > 2
    assert all(start % 8 == 0 for start, _ in starts)
    assert all(width % 8 == 0 or start + width == 100 for start, width in starts)


def test_no_tile_means_the_whole_image_at_once():
    shapes = []
    net = Global()

    def forward(window):
        shapes.append(tuple(window.shape))
        return net(window)

    lq = torch.rand(1, 3, 300, 200)
    out = tiled_forward(forward, lq, net.spec)
    assert shapes == [(1, 3, 300, 200)]
    torch.testing.assert_close(out, net(lq))


def test_only_windows_reach_the_network_and_batches_are_equal():
    shapes = []
    net = Local(scale=1, depth=2)

    def forward(window):
        shapes.append(tuple(window.shape))
        return net(window)

    tiled_forward(forward, torch.rand(1, 3, 128, 128), net.spec, 28, tile_batch=2)
    # (128 - 4) / 28 windows, rounded up, of 25 + 4 pixels
    assert set(shapes) == {(2, 3, 29, 29), (1, 3, 29, 29)}
    assert len(shapes) == 15


def test_integers_are_cut_as_they_are():
    lq = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    seen = set()

    def forward(window):
        seen.add(window.dtype)
        return window.float() / 255

    out = tiled_forward(forward, lq, NetSpec(scale=1, receptive_field=0), 16)
    assert seen == {torch.uint8}
    torch.testing.assert_close(out, lq / 255)


def memory_for(net, pixels, error=None):
    """Return `net` on a device that runs out of memory above so many pixels of input."""

    def forward(window):
        if window.numel() // 3 > pixels:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return net(window)

    return forward


SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 805306368 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("could not create a primitive"),
    MemoryError("Unable to allocate 3.00 GiB for an array"),
]


@pytest.mark.parametrize("error", SHORT, ids=str)
@pytest.mark.parametrize("tile", [None, 100])
def test_smaller_tiles_when_memory_runs_out_on_any_device(tile, error, caplog):
    net = Local(scale=2, depth=2)
    lq = torch.rand(1, 3, 150, 130)
    with caplog.at_level(logging.WARNING):
        out = tiled_forward(memory_for(net, 60 * 60, error), lq, net.spec, tile)
    assert_as_whole(out, net, lq)
    words = str(error).removeprefix("[enforce fail at alloc_cpu.cpp:127] err == 0. ").split(". ")[0]
    assert f"{words}: continuing with tile=" in caplog.text
    assert "not exact" not in caplog.text


def test_smaller_tiles_that_are_blended_are_said_to_be(caplog):
    net = Global(2)
    with caplog.at_level(logging.WARNING):
        tiled_forward(memory_for(net, 60 * 60), torch.rand(1, 3, 150, 130), net.spec, None)
    assert all("; such tiles are blended and not exact" in text for text in caplog.messages)
    assert caplog.messages


def test_other_errors_are_no_lack_of_memory():
    def forward(window):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        tiled_forward(forward, torch.rand(1, 3, 150, 130), NetSpec(scale=2), 64)


def test_memory_running_out_midway_and_the_lesson_kept():
    net = Global(scale=1)
    tiler = Tiler(net.spec, tile=64, overlap=40, tile_batch=2)
    lq = torch.full((1, 3, 128, 128), 0.5)
    calls = []

    def forward(window):
        calls.append(window.shape[0])
        if len(calls) in (4, 8):
            raise torch.OutOfMemoryError("out of memory")
        return net(window)

    out = torch.zeros(1, 3, 128, 128)
    for patch in tiler.patches(forward, lq):
        rows, columns = patch.pixels.shape[-2:]
        out[..., patch.top : patch.top + rows, patch.left : patch.left + columns] = patch.pixels
    torch.testing.assert_close(out, torch.full_like(out, 0.75))
    assert (tiler.tile_batch, tiler.tile, tiler.overlap) == (1, 32, 16)


def test_a_clear_error_when_even_a_small_tile_does_not_fit():
    net = Local(scale=1, depth=1)
    with pytest.raises(SRTrainError, match=r"too little memory for a tile of 32 pixels"):
        tiled_forward(memory_for(net, 10), torch.rand(1, 3, 130, 130), net.spec, 128)


def test_the_result_has_no_graph():
    net = Local()
    assert not tiled_forward(net, torch.rand(1, 3, 20, 20), net.spec, 8).requires_grad


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 0}, "tile must be at least 1"),
        ({"tile": 8, "overlap": -1}, "overlap must be at least 0"),
        ({"tile": 8, "overlap": 8}, "smaller than tile"),
        ({"tile": 8, "tile_batch": 0}, "tile_batch"),
    ],
)
def test_impossible_numbers(settings, message):
    with pytest.raises(ConfigError, match=message):
        Tiler(NetSpec(scale=2), **settings)


def test_a_network_that_breaks_its_word_about_the_scale():
    with pytest.raises(PluginError, match="scale 4"):
        tiled_forward(Global(2), torch.rand(1, 3, 20, 20), NetSpec(scale=4), 8)


def test_default_overlap_of_an_unbounded_network_leaves_room_in_small_tiles():
    assert Tiler(NetSpec(scale=2), tile=256)._overlap_on_grid() == tiling.BLEND_OVERLAP
    assert Tiler(NetSpec(scale=2), tile=16)._overlap_on_grid() == 8
