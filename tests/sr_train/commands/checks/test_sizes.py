"""Every size that a network will see in validation is tried, without computing where it can be."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sr_train.api.network import NetSpec
from sr_train.commands.checks import sizes
from sr_train.commands.checks.sizes import size_problems, windows_of
from sr_train.config.schema import TilingConfig


class Up(nn.Module):
    """Upscales by 2; notes what it was computed on."""

    def __init__(self):
        super().__init__()
        self.tail = nn.Conv2d(3, 12, 3, padding=1)
        self.seen = []

    def forward(self, lq):
        if lq.device.type != "meta":
            self.seen.append(tuple(lq.shape[-2:]))
        return nn.functional.pixel_shuffle(self.tail(lq), 2)


class OfFour(Up):
    def forward(self, lq):
        b, c, h, w = lq.shape
        return super().forward(lq.view(b, c, h // 4, 4, w // 4, 4).reshape(b, c, h, w))


class RoundsUp(Up):
    def forward(self, lq):
        half = nn.functional.max_pool2d(lq, 2, ceil_mode=True)
        return super().forward(nn.functional.interpolate(half, scale_factor=2))


class WithNumbers(OfFour):
    """Does not work without numbers."""

    def forward(self, lq):
        float(lq.sum())
        return super().forward(lq)


class Clips(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv3d(3, 3, 3, padding=1)

    def forward(self, lq):
        b, t, c, h, w = lq.shape
        return self.body(lq.view(b, t // 2, 2, c, h, w).reshape(b, t, c, h, w).transpose(1, 2))


def model(net, **facts):
    spec = NetSpec(**{"scale": 2, **facts})
    return SimpleNamespace(spec=spec, net_for_use=lambda: net, device=torch.device("cpu"))


def sets(*found):
    return {"data.val.main": SimpleNamespace(whole_sizes=lambda: list(found))}


WHOLE = TilingConfig(tile=None)
AUTO = TilingConfig()


def test_a_network_that_takes_all_sizes_is_not_run():
    net = Up()
    assert size_problems(model(net), AUTO, sets((1, 20, 24), (1, 45, 51))) == []
    assert net.seen == []


def test_a_network_that_wants_a_multiple_is_told_by_another_image_than_the_smallest():
    (problem,) = size_problems(model(OfFour()), AUTO, sets((1, 20, 24), (1, 45, 51), (1, 40, 48)))
    assert problem.startswith("arch: of data.val.main the network will see 51x45 (LQ pixels; 1 of")
    assert "a multiple of 4 works" in problem


def test_a_prediction_of_another_size_is_told():
    (problem,) = size_problems(model(RoundsUp()), AUTO, sets((1, 20, 24), (1, 21, 24)))
    assert "RoundsUp made (1, 3, 44, 48) float32 of (1, 3, 21, 24) float32" in problem
    assert "a multiple of 2 works" in problem


def test_a_network_that_needs_numbers_is_run_on_smaller_inputs_of_the_same_kind():
    net = WithNumbers()
    (problem,) = size_problems(model(net), AUTO, sets((1, 400, 404), (1, 401, 404)))
    assert "404x401" in problem
    assert max(max(size) for size in net.seen) <= 128
    assert (401 % 64, 404 % 64) in {(h % 64, w % 64) for h, w in net.seen} | {(17, 20)}


def test_tiles_count_not_images():
    """A large image is cut: what is a multiple of 4 as a whole need not be in tiles."""
    whole, tiled = (1, 1000, 1000), TilingConfig(tile=250)
    assert size_problems(model(OfFour()), WHOLE, sets(whole)) == []
    (problem,) = size_problems(model(OfFour()), tiled, sets(whole))
    assert "a multiple of 4 works" in problem


def test_windows():
    assert windows_of(model(Up()), WHOLE, [(1, 20, 24), (1, 20, 24)]) == {(1, 20, 24)}
    exact = model(Up(), receptive_field=4)
    found = windows_of(exact, TilingConfig(tile=32), [(1, 32, 100)])
    assert {height for _, height, _ in found} == {32}
    assert max(width for _, _, width in found) <= 40
    clips = model(Up(), takes_clips=True, min_frames=4)
    assert windows_of(clips, WHOLE, [(2, 8, 8), (9, 8, 8)]) == {(4, 8, 8), (9, 8, 8)}
    assert windows_of(clips, TilingConfig(tile=None, frames=6), [(9, 8, 8)]) == {(6, 8, 8)}


def test_a_network_that_wants_an_even_number_of_frames_is_told():
    net = model(Clips(), scale=1, takes_clips=True)
    (problem,) = size_problems(net, WHOLE, sets((4, 8, 8), (5, 8, 8)))
    assert "8x8" in problem


def test_a_set_that_tells_no_sizes_is_left_out():
    assert (
        size_problems(
            model(OfFour()), AUTO, {"data.val.x": SimpleNamespace(whole_sizes=lambda: None)}
        )
        == []
    )


def test_what_takes_too_long_is_left_out_and_counted(monkeypatch, caplog):
    monkeypatch.setattr(sizes, "_BUDGET_SEC", -1.0)
    caplog.set_level("INFO", "sr_train")
    assert size_problems(model(OfFour()), AUTO, sets((1, 21, 21), (1, 22, 22))) == []
    assert "2 sizes of validation sets were not tried" in caplog.text


@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_is(training):
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 12, 1), nn.PixelShuffle(2)).train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert size_problems(model(net), AUTO, sets((1, 9, 9), (1, 10, 9))) == []
    assert net.training is training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
