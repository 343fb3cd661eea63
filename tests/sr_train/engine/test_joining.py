"""What a network needs to learn on several processes."""

import logging

import pytest
import torch
from torch import nn

from sr_train.api.errors import ConfigError
from sr_train.config.schema import ChannelsLast
from sr_train.engine.distributed import World, fault_of_ranks
from sr_train.engine.joining import convert_sync_batchnorm
from sr_train.engine.precision import resolve_precision
from sr_train.factory.networks import use_channels_last

TWO = World(0, 2)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def with_batch_norm():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_batch_norm_sees_all_ranks_on_gpus_and_keeps_its_weights():
    net = with_batch_norm()
    names, weight = list(net.state_dict()), net[1].weight
    joined = convert_sync_batchnorm(net, CUDA, TWO)
    assert isinstance(joined[1], nn.SyncBatchNorm)
    assert list(joined.state_dict()) == names
    assert joined[1].weight is weight


def test_batch_norm_on_cpus_is_warned_of(caplog):
    net = with_batch_norm()
    with caplog.at_level(logging.WARNING):
        assert convert_sync_batchnorm(net, CPU, TWO) is net
    assert "BatchNorm" in caplog.text
    assert not isinstance(net[1], nn.SyncBatchNorm)


@pytest.mark.parametrize("world", [None, World()])
@pytest.mark.parametrize("make", [with_batch_norm, lambda: nn.Conv2d(3, 3, 1)])
def test_one_process_is_left_alone(caplog, world, make):
    net = make()
    assert convert_sync_batchnorm(net, CUDA, world) is net
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in net.modules())
    assert not caplog.text


def test_a_network_without_batch_norm_is_left_alone():
    net = nn.Conv2d(3, 3, 1)
    assert convert_sync_batchnorm(net, CUDA, TWO) is net


def test_split_weights_keep_their_layout():
    half = resolve_precision("bf16", CPU)
    assert use_channels_last(ChannelsLast.auto, half)
    assert not use_channels_last(ChannelsLast.auto, half, split=True)
    assert not use_channels_last(ChannelsLast.never, half, split=True)
    with pytest.raises(ConfigError, match=r"net_g.channels_last=always: .*fsdp.*auto or never"):
        use_channels_last(ChannelsLast.always, half, split=True)


def test_another_error_is_no_fault_of_ranks():
    assert fault_of_ranks(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
