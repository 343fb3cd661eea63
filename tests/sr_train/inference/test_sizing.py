"""Tiles that are not exact: how far they are off is measured and said, and `auto` goes by it."""

import logging
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from sr_train.api.errors import PluginError
from sr_train.api.network import NetSpec
from sr_train.inference import sizing
from sr_train.inference.footprint import measure_footprint
from sr_train.inference.sizing import SizedTiler
from sr_train.inference.tiling import tiled_forward

CPU = torch.device("cpu")


class Pooling(nn.Module):
    """Every pixel sees the mean of all; `strength` tells how much."""

    def __init__(self, strength=0.5, field=None, takes_clips=False):
        super().__init__()
        self.spec = NetSpec(scale=2, receptive_field=field, takes_clips=takes_clips)
        self.strength = strength
        self.pixels = []

    def forward(self, lq):
        self.pixels.append(lq.shape[-2] * lq.shape[-1])
        x = lq * 0.5 + self.strength * lq.mean((-2, -1), keepdim=True)
        return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


def ramp(height, width, frames=None):
    """Return an input whose mean differs from place to place."""
    lq = torch.linspace(0, 1, width).expand(1, 3, height, width)
    return lq if frames is None else lq[:, None].expand(1, frames, 3, height, width)


def run(tiler, net, lq, name="a.png"):
    """Return the prediction put together."""
    out = torch.zeros(*lq.shape[:-2], lq.shape[-2] * 2, lq.shape[-1] * 2)
    for patch in tiler.patches(net, lq, name):
        rows, columns = patch.pixels.shape[-2:]
        out[..., patch.top : patch.top + rows, patch.left : patch.left + columns] = patch.pixels
    return out


@pytest.fixture
def room(monkeypatch, caplog):
    """Return a function that sets how many bytes there are for tensors."""
    caplog.set_level(logging.INFO)
    sizing._say_blended.cache_clear()
    return lambda size: monkeypatch.setattr(sizing, "room_for_tensors", lambda device: size)


def bytes_at(found, pixels):
    """Return what so many pixels take by a footprint."""
    return found.bytes * (pixels / found.pixels) ** found.power


def bytes_of(net, pixels):
    return bytes_at(measure_footprint(net, ramp(96, 96), CPU), pixels)


def test_tiles_of_a_given_size_say_how_far_they_are_off(room, caplog):
    room(1e12)
    net, lq = Pooling(), ramp(64, 96)
    tiler = SizedTiler(net.spec, CPU, 32, None, 1, measure=True)
    out = run(tiler, net, lq)
    expected = tiled_forward(net, lq, net.spec, 32)
    torch.testing.assert_close(out, expected)
    apart = (expected.clamp(0, 1) - net(lq).clamp(0, 1)).double()
    largest, psnr = apart.abs().max() * 255, -10 * torch.log10(apart.square().mean())
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"off by up to {largest:.1f}/255 (PSNR {psnr:.1f} dB between the two)" in record.message
    assert "tiles of 32 that share 16 pixels" in record.message
    assert "measured on the whole of a.png" in record.message
    assert largest > 30


def test_it_is_measured_once(room, caplog):
    room(1e12)
    net = Pooling()
    tiler = SizedTiler(net.spec, CPU, 32, None, 1, measure=True)
    run(tiler, net, ramp(32, 20))
    assert caplog.records == [], "nothing is cut, so nothing is to be said"
    run(tiler, net, ramp(100, 110))
    run(tiler, net, ramp(100, 110))
    assert (net.pixels.count(100 * 110), len(caplog.records)) == (1, 1)


def test_a_small_deviation_is_no_warning(room, caplog):
    room(1e12)
    net = Pooling(strength=0.001)
    run(SizedTiler(net.spec, CPU, 32, None, 1, measure=True), net, ramp(64, 64))
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_what_does_not_fit_as_a_whole_is_measured_on_a_part(room, caplog):
    net = Pooling()
    room(bytes_of(net, 2000))
    lq = ramp(200, 100)
    net.pixels.clear()
    out = run(SizedTiler(net.spec, CPU, 32, None, 1, measure=True), net, lq)
    torch.testing.assert_close(out, tiled_forward(net, lq, net.spec, 32))
    part = re.search(r"measured on (\d+)x(\d+) of a.png", caplog.records[0].message)
    assert part
    assert 1800 < int(part[1]) * int(part[2]) <= 2000
    assert max(net.pixels) <= max(2000, 96 * 96)


def test_the_part_is_at_most_half_so_that_an_input_takes_no_more_than_twice(room, caplog):
    net = Pooling()
    lq = ramp(300, 300)
    room(bytes_of(net, 80_000))
    net.pixels.clear()
    run(SizedTiler(net.spec, CPU, 100, None, 1, measure=True), net, lq)
    measured = sum(net.pixels)
    net.pixels.clear()
    run(SizedTiler(net.spec, CPU, 100, None, 1), net, lq)
    assert measured < 2.2 * sum(net.pixels)


def test_auto_is_whole_where_the_whole_fits(room, caplog):
    room(1e12)
    net, lq = Pooling(), ramp(600, 700)
    out = run(SizedTiler(net.spec, CPU, "auto", None, 1, measure=True), net, lq)
    torch.testing.assert_close(out, net(lq))
    assert net.pixels[:3] == [48 * 48, 96 * 96, 600 * 700]
    assert caplog.records == []


def test_auto_takes_the_largest_tiles_that_fit_where_smaller_ones_are_off(room, caplog):
    net, lq = Pooling(), ramp(900, 1000)
    room(bytes_of(net, 400_000))
    tiler = SizedTiler(net.spec, CPU, "auto", None, 1, measure=True)
    net.pixels.clear()
    run(tiler, net, lq)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "too large for memory as a whole" in record.message
    assert "continuing with the largest that fit, tiles of 632" in record.message
    assert max(net.pixels) <= 400_000
    net.pixels.clear()
    run(tiler, net, lq, "b.png")
    run(tiler, net, ramp(500, 700), "c.png")
    assert net.pixels[-1] == 500 * 700, "fits, so it is whole"
    assert len(caplog.records) == 1


def test_auto_takes_tiles_that_are_off_by_less_than_a_step_of_8_bits(room, caplog):
    net, lq = Pooling(strength=0.001), ramp(900, 1000)
    room(bytes_of(net, 400_000))
    run(SizedTiler(net.spec, CPU, "auto", None, 1, measure=True), net, lq)
    [record] = caplog.records
    assert record.levelname == "INFO"
    assert re.search(
        r"tiles of 3\d\d that share 39 pixels are off by up to 0.\d/255", record.message
    )
    assert max(net.pixels) <= 400_000


def test_auto_says_so_where_tiles_that_share_so_much_cannot_be_measured(room, caplog):
    net, lq = Pooling(), ramp(700, 700)
    room(bytes_of(net, 300_000))
    run(SizedTiler(net.spec, CPU, "auto", 300, 1, measure=True), net, lq)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "tiles of 600 that share 300 pixels are off by an unknown amount" in record.message


def test_auto_unmeasured_is_the_same_each_time_whatever_memory_there_is(room, caplog):
    shapes = []
    for size in (1e3, 1e12):
        room(size)
        net = Pooling()
        tiler = SizedTiler(net.spec, CPU, "auto", None, 1)
        run(tiler, net, ramp(512, 512))
        run(tiler, net, ramp(600, 600))
        shapes.append(net.pixels)
    assert shapes[0] == shapes[1]
    assert shapes[0][0] == 512 * 512
    assert max(shapes[0][1:]) <= 256 * 256
    [record] = caplog.records
    assert "tiles of large inputs (256, sharing 32) are blended and not exact" in record.message


def test_exact_tiles_are_not_measured(room, caplog):
    room(1e12)
    net = Pooling(strength=0.0, field=0)
    run(SizedTiler(net.spec, CPU, 32, None, 1, measure=True), net, ramp(64, 64))
    run(SizedTiler(net.spec, CPU, "auto", None, 1, measure=True), net, ramp(600, 600))
    assert caplog.records == []
    assert max(net.pixels) <= 480 * 480


def test_a_bounded_field_with_too_little_overlap_is_measured(room, caplog):
    room(1e12)
    net = Pooling(field=8)
    run(SizedTiler(net.spec, CPU, 32, 4, 1, measure=True), net, ramp(64, 64))
    assert "tiles of 32 that share 4 pixels are no exact cut" in caplog.text


def test_clips_are_measured_in_space(room, caplog):
    room(1e12)
    net = Pooling(takes_clips=True)
    lq = ramp(64, 96, frames=3)
    out = run(SizedTiler(net.spec, CPU, 32, None, 1, measure=True), net, lq, "clip, frames 0 to 2")
    torch.testing.assert_close(out, tiled_forward(net, lq, net.spec, 32))
    assert "measured on the whole of clip, frames 0 to 2" in caplog.text


def test_a_network_that_takes_no_small_inputs_is_used_all_the_same(room, caplog):
    room(1e12)

    class Large(Pooling):
        def forward(self, lq):
            if lq.shape[-1] < 200:
                raise PluginError("at least 200 pixels, please")
            return super().forward(lq)

    net, lq = Large(), ramp(300, 600)
    out = run(SizedTiler(net.spec, CPU, 250, None, 1, measure=True), net, lq)
    torch.testing.assert_close(out, tiled_forward(net, lq, net.spec, 250))
    assert "off by" in caplog.text


@pytest.mark.parametrize("tile", [32, "auto"])
def test_running_out_of_memory_while_measuring_ends_the_measuring_alone(room, caplog, tile):
    room(1e12)
    lq = ramp(64, 96) if tile == 32 else ramp(600, 600)
    limit = 33 * 33 if tile == 32 else 300 * 300

    class Short(Pooling):
        def forward(self, lq):
            if lq.shape[-2] * lq.shape[-1] > max(limit, 96 * 96 if len(self.pixels) < 2 else 0):
                self.pixels.append(0)
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return super().forward(lq)

    net = Short()
    out = run(SizedTiler(net.spec, CPU, tile, None, 1, measure=True), net, lq)
    assert 0 in net.pixels
    assert out.min() > 0.0, "every pixel sees the mean, so that none that was made is 0"
    if tile == 32:
        torch.testing.assert_close(out, tiled_forward(Pooling(), lq, net.spec, 32))
        assert "off by an unknown amount, as memory is too short to measure it" in caplog.text


@pytest.mark.parametrize("pixels", [0, 1, 1000])
def test_a_part_that_no_tile_cuts_tells_nothing(room, caplog, pixels):
    """Tiles of 32 on a part of at most 31 x 32 would be off by nothing at all."""
    net, lq = Pooling(), ramp(64, 96)
    room(bytes_of(net, pixels))
    out = run(SizedTiler(net.spec, CPU, 32, None, 1, measure=True), net, lq)
    torch.testing.assert_close(out, tiled_forward(net, lq, net.spec, 32))
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "off by an unknown amount, as memory is too short to measure it" in record.message


# Footprints.


def test_the_memory_of_convolutions_grows_with_their_pixels():
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    found = measure_footprint(net, torch.rand(1, 3, 200, 200), CPU)
    assert found.power == 1.0
    # Of the input of a ReLU and its result, 16 channels of float32 each; twice for what is beside.
    assert bytes_at(found, 200 * 200) == pytest.approx(2 * 2 * 16 * 4 * 200 * 200, rel=0.05)
    assert found.most_pixels(bytes_at(found, 12_345)) == pytest.approx(12_345, abs=1)


def test_the_memory_of_attention_over_all_pixels_grows_with_their_square():
    def attend(lq):
        flat = lq[..., ::4, ::4].flatten(2)
        return functional.interpolate(lq * (flat.transpose(1, 2) @ flat).softmax(-1).mean(), (2, 2))

    assert measure_footprint(attend, torch.rand(1, 3, 96, 96), CPU).power == 2.0


def test_an_input_smaller_than_those_that_are_measured():
    found = measure_footprint(lambda lq: lq * 2, torch.rand(1, 3, 10, 20), CPU)
    assert (found.pixels, found.power) == (200, 1.0)
