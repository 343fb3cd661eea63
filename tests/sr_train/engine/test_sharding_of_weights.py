"""A network split over two ranks learns as one process does, and is stored whole."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from archs.swinir import SwinIR
from sr_train.engine.distributed import World
from sr_train.engine.sharding import (
    gather_full,
    global_max_abs,
    global_norm,
    is_sharded,
    shard_,
    split_moments,
    split_weights,
    to_local,
)
from tests.closeness import assert_rounded_alike
from tests.ranks import on_ranks

pytestmark = pytest.mark.dist


def swinir() -> SwinIR:
    torch.manual_seed(0)
    return SwinIR(
        scale=2, img_size=8, window_size=4, embed_dim=12, depths=[2, 2], num_heads=[2, 2],
        upsampler="pixelshuffledirect", drop_path_rate=0.0,
    )  # fmt: skip


def learn(world, steps, stored=None):
    """Take some steps on a batch of two per rank; return the whole state and the losses."""
    net = swinir()
    if world.size > 1:
        shard_(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, eps=1e-3, fused=True)
    first = 0
    if stored is not None:
        net.load_state_dict(split_weights(stored["net"], net))
        moments = split_moments(stored["moments"], list(net.parameters()))
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        first = stored["steps"]
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        batch = torch.rand(4, 3, 8, 8, generator=generator)
        share = batch[world.rank :: world.size]
        optimizer.zero_grad()
        target = nn.functional.interpolate(share, scale_factor=2.0).roll(1, -1)
        (net(share) - target).square().mean().backward()
        optimizer.step()
    return {
        "net": gather_full(net.state_dict()),
        "moments": gather_full(optimizer.state_dict()["state"]),
        "steps": first + steps,
        "norm": gather_full(nn.utils.get_total_norm([p.grad for p in net.parameters()])),
        "held": sum(to_local(p).numel() for p in net.parameters()),
        "blocks": sum(isinstance(module, FSDPModule) for module in net.modules()),
    }


def assert_close(found, expected):
    assert found["net"].keys() == expected["net"].keys()
    for name, value in expected["net"].items():
        # Each of three steps of Adam adds lr / eps = 10 times the error of a gradient, whose
        # elements are below 0.1 and sums of some hundred terms.
        assert_rounded_alike(found["net"][name], value, roundings=32, size=1.0, name=name)
    torch.testing.assert_close(found["norm"], expected["norm"], atol=1e-6, rtol=1e-5)


def test_two_ranks_learn_as_one_and_hold_half():
    alone = learn(World(), 3)
    first, second = on_ranks(learn, 3)
    assert_close(first, alone)
    assert_close(second, alone)
    assert first["held"] + second["held"] == alone["held"]
    assert first["held"] < 0.6 * alone["held"]
    assert first["blocks"] == 3, "two residual groups and the root"


def test_what_is_stored_goes_on_split_or_whole():
    unbroken = learn(World(), 4)
    split = on_ranks(learn, 2)[0]
    assert_close(learn(World(), 2, split), unbroken)
    assert_close(on_ranks(learn, 2, learn(World(), 2))[1], unbroken)


def test_a_plain_network_passes_through():
    net = swinir()
    weights = copy.deepcopy(net.state_dict())
    assert not is_sharded(net)
    assert split_weights(weights, net) == weights
    assert gather_full({"a": [1, (None, "x")]}) == {"a": [1, (None, "x")]}


def shared_memory(world):
    net = swinir()
    shard_(net)
    assert is_sharded(net)
    parameter = next(iter(net.parameters()))
    with torch.no_grad():
        to_local(parameter).fill_(3.0)
    return float(gather_full(parameter.detach()).min())


def test_a_local_part_shares_memory():
    assert on_ranks(shared_memory) == [3.0, 3.0]


def shard_where_there_is_a_gpu(world):
    torch._C._get_accelerator = lambda: torch.device("cuda")
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    shard_(net)
    net(torch.ones(2, 4)).sum().backward()
    weight = net[0].weight
    return weight.device_mesh.device_type, to_local(weight).device.type, weight.grad.device.type


def test_a_network_on_the_cpu_is_split_over_cpus_whatever_the_machine_has():
    assert on_ranks(shard_where_there_is_a_gpu) == [("cpu", "cpu", "cpu")] * 2


def measure(world):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 4))
    expected = list(net.parameters())
    norm = nn.utils.get_total_norm([p.detach().clone() for p in expected])
    peaks = torch.stack([p.detach().abs().max() for p in expected])
    shard_(net)
    parts = [to_local(p.detach()) for p in net.parameters()]
    found = global_norm(parts, net), global_max_abs(parts, net)
    return [part.numel() for part in parts], found, (norm, peaks)


def test_norms_and_peaks_are_those_of_the_whole_also_where_a_rank_holds_nothing():
    first, second = on_ranks(measure)
    assert 0 in second[0], "a rank without any element of a tensor"
    for _, found, expected in (first, second):
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])
