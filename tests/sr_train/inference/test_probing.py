"""What sizes a network of anybody's takes is found by trying."""

import numpy as np
import pytest
import torch
from torch import nn

from sr_train.api.network import NetSpec
from sr_train.inference import probing
from sr_train.inference.probing import fit_sizes
from sr_train.inference.upscaler import Upscaler

CPU = torch.device("cpu")


class Net(nn.Module):
    """Upscales by 2, and takes any size."""

    def __init__(self):
        super().__init__()
        self.tail = nn.Conv2d(3, 12, 1)

    def forward(self, lq):
        return nn.functional.pixel_shuffle(self.tail(lq), 2)


class OfFour(Net):
    def forward(self, lq):
        if lq.shape[-2] % 4 or lq.shape[-1] % 4:
            raise ValueError("multiples of 4, please")
        return super().forward(lq)


class AtLeast16(Net):
    def forward(self, lq):
        assert min(lq.shape[-2:]) >= 16
        return super().forward(lq)


class Windows(Net):
    """Attention windows without padding."""

    side = 8

    def forward(self, lq):
        b, c, h, w = lq.shape
        windows = lq.view(b, c, h // self.side, self.side, w // self.side, self.side)
        return super().forward(windows.reshape(b, c, h, w))


class WindowsOf7(Windows):
    side = 7


class WindowsOf12(Windows):
    side = 12


class UNet(Net):
    """Goes down and up again; of odd sizes it makes others."""

    def forward(self, lq):
        half = nn.functional.avg_pool2d(lq, 4)
        return super().forward(nn.functional.interpolate(half, scale_factor=4))


class Reflects(Net):
    def forward(self, lq):
        return super().forward(nn.functional.pad(lq, (3, 3, 3, 3), mode="reflect")[..., 3:-3, 3:-3])


class WithNumbers(OfFour):
    def forward(self, lq):
        float(lq.sum())
        return super().forward(lq)


class Caches(OfFour):
    """Keeps a tensor of its last input's device."""

    cache = None

    def forward(self, lq):
        if self.cache is None:
            self.cache = torch.ones(3, 1, 1, device=lq.device)
        return super().forward(lq * self.cache)


class Uncopyable(OfFour):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")


class Tuple(Net):
    def forward(self, lq):
        return super().forward(lq), 1


class Drops(nn.Module):
    """Changes with every forward that is not in eval mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.net = OfFour()

    def forward(self, lq):
        return self.net(nn.functional.dropout(self.norm(lq), training=self.training))


@pytest.mark.parametrize(
    ("net", "multiple", "least", "words"),
    [
        (OfFour, 4, 4, "multiples of 4"),
        (AtLeast16, 1, 16, "at least 16"),
        (Windows, 8, 8, "multiples of 8"),
        (WindowsOf7, 7, 7, "multiples of 7"),
        (WindowsOf12, 12, 12, "multiples of 12"),
        (UNet, 4, 4, "multiples of 4"),
        (Reflects, 1, 4, "at least 4"),
        (WithNumbers, 4, 4, "multiples of 4"),
        (Caches, 4, 4, "multiples of 4"),
        (Uncopyable, 4, 4, "multiples of 4"),
        (Drops, 4, 4, "multiples of 4"),
    ],
)
def test_what_a_network_needs_is_found_and_said_once(caplog, net, multiple, least, words):
    caplog.set_level("INFO", "sr_train")
    made, random = net(), torch.random.get_rng_state()
    state = {name: value.clone() for name, value in made.state_dict().items()}
    spec = fit_sizes(made, NetSpec(scale=2), CPU)
    assert (spec.size_multiple, spec.min_size, spec.pads_inside) == (multiple, least, False)
    (line,) = caplog.messages
    assert line == f"arch: {net.__name__} needs sizes that are {words}; inputs are padded"
    assert made.training
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in made.state_dict().items())
    for size in ((1, 1), (9, 17), (33, 20)):
        pixels = np.zeros((*size, 3), np.uint8)
        assert Upscaler(made, spec)(pixels).shape == (2 * size[0], 2 * size[1], 3)


def test_what_is_kept_of_an_input_without_numbers_stays_away_from_the_network():
    net = Caches()
    fit_sizes(net, NetSpec(scale=2), CPU)
    assert net.cache is None or net.cache.device == CPU


def test_a_network_that_takes_any_size_is_never_computed(caplog):
    caplog.set_level("INFO", "sr_train")
    net, devices = Net(), set()
    net.register_forward_pre_hook(lambda module, args: devices.add(args[0].device.type))
    spec = NetSpec(scale=2)
    assert fit_sizes(net, spec, CPU) is spec
    assert devices <= {"meta"}
    assert not caplog.messages


@pytest.mark.parametrize("net", [Tuple, Net])
def test_what_always_fails_or_says_itself_what_it_takes_is_left(net):
    made, spec = net(), NetSpec(scale=4)
    if net is Net:
        made.spec = NetSpec(scale=2)
        made.forward = None
    assert fit_sizes(made, spec, CPU) is spec


def test_a_network_that_takes_too_long_is_left(monkeypatch):
    monkeypatch.setattr(probing, "_BUDGET_SEC", -1.0)
    spec = NetSpec(scale=2)
    assert fit_sizes(OfFour(), spec, CPU) is spec
