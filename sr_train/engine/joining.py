"""How the networks of several processes learn as one."""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sr_train.config.schema import DistributedConfig
from sr_train.engine.distributed import World
from sr_train.engine.model import SRModel
from sr_train.engine.sharding import is_sharded
from sr_train.utils.launch import SharedError

log = logging.getLogger(__name__)

_KNOWN = inspect.signature(DistributedDataParallel).parameters
_FLAG = "forward_sync_buffers" if "forward_sync_buffers" in _KNOWN else "broadcast_buffers"
BUFFERS_STAY: dict[str, Any] = {_FLAG: False}
"""Buffers are the same on all ranks as it is; to overwrite them in place, as DDP does in every
forward, would spoil the graph of the forward before. torch 2.14 renamed the flag."""


def wrap_ddp(model: SRModel, cfg: DistributedConfig, world: World) -> None:
    """Let the ranks average their gradients. A collective.

    Args:
        model: of this rank, the same on each.
        cfg: how.
        world: the ranks; nothing to do for a single one.
    """
    if world.size == 1:
        return
    for name, learner in model.learners.items():
        if is_sharded(learner.net):
            form = "FSDP, each process holds its part of the weights"
        else:
            form = "DDP"
            learner.wrapped = DistributedDataParallel(
                learner.net,
                device_ids=None if model.device.type == "cpu" else [model.device],
                **BUFFERS_STAY,
                gradient_as_bucket_view=True,
                find_unused_parameters=cfg.find_unused,
            )
        log.info("net_%s learns on %d processes (%s)", name, world.size, form)


def check_same_data(sets: Mapping[str, Any], world: World) -> None:
    """Make sure that all ranks see the same data. A collective.

    Ranks take their samples by number, so that others of the same number would be trained on,
    or scored, without anybody's notice.

    Args:
        sets: by config path.
        world: the ranks.

    Raises:
        SharedError: on every rank, naming each set and each rank that differs from rank 0.
    """
    mine = {path: (len(each), each.fingerprint()) for path, each in sets.items()}
    first, *others = world.gather(mine)
    faults = []
    for rank, found in enumerate(others, start=1):
        for path, (count, fingerprint) in first.items():
            if found[path] != (count, fingerprint):
                faults.append(
                    f"{path}: rank {rank} sees {found[path][0]} samples (fingerprint "
                    f"{found[path][1]}), rank 0 {count} ({fingerprint})"
                )
    if faults:
        raise SharedError(
            "the ranks see different data; give all of them the same files:\n  - "
            + "\n  - ".join(faults)
        )


def convert_sync_batchnorm(net: nn.Module, device: torch.device, world: World | None) -> nn.Module:
    """Let BatchNorm layers, where there are any, see the batches of all ranks."""
    batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    if world is None or world.size == 1 or not batch_norm:
        return net
    if device.type == "cpu":
        log.warning(
            "warning: %s has BatchNorm, whose statistics are of each process only on CPUs: the "
            "gradient is not quite that of one process with the whole batch",
            type(net).__name__,
        )
        return net
    synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return synchronised
