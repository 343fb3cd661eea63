"""What `train` looks at before its first step: all that is cheap of what `check` looks at."""

import logging
from collections.abc import Mapping
from typing import Any

from sr_train.api.errors import PluginError, raise_all
from sr_train.api.network import NetSpec
from sr_train.commands.checks.advice import tell_advice
from sr_train.commands.checks.dry_step import toy_batches
from sr_train.commands.checks.half import tell_half_on_cpu
from sr_train.commands.checks.trial import try_parts
from sr_train.config.schema import RunConfig
from sr_train.engine.distributed import World
from sr_train.engine.model import SRModel
from sr_train.engine.sharding import is_sharded
from sr_train.inference.probing import SizeProbe

log = logging.getLogger(__name__)


def look_before(cfg: RunConfig, model: SRModel, sets: Mapping[str, Any], world: World) -> None:
    """Warn of what makes one doubt the run; refuse what deterministic mode cannot do.

    Nothing of the model changes. Each rank looks at its own device, rank 0 warns.

    Args:
        cfg: checked config.
        model: before its first step of this launch, not wrapped for several ranks yet.
        sets: data sets by config path.
        world: the ranks.

    Raises:
        PluginError: a network without a spec of its own fails in eval mode.
        Problems: naming the networks and losses that torch has no deterministic way for.
    """
    if world.is_main:
        tell_advice(cfg, sets)
        tell_half_on_cpu(cfg, model)
    if cfg.data.val and not is_sharded(model.generator.net):
        _check_eval(cfg, model)
    if cfg.train.deterministic and not is_sharded(model.generator.net):
        problems, _ = try_parts(cfg, model, toy_batches(cfg, sets["data.train"].sample(0, 0)))
        raise_all(problems)


def _check_eval(cfg: RunConfig, model: SRModel) -> None:
    """Run a network that says nothing about itself in eval mode, as the first validation will.

    Raises:
        PluginError: with what it fails on.
    """
    net, spec = model.generator.net, model.spec
    if isinstance(getattr(net, "spec", None), NetSpec):
        return
    side = cfg.data.lq_size
    fault = SizeProbe(net, spec, model.device).fault((1, side, side))
    if fault is not None:
        raise PluginError(f"arch: in eval mode, as in validation: {fault}")
