"""Whether half precision pays on a CPU: measured, since many have to imitate it."""

import logging
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from sr_train.api.errors import ConfigError, PluginError
from sr_train.commands.checks.trial import explained
from sr_train.config.schema import PrecisionName, RunConfig
from sr_train.engine.model import SRModel
from sr_train.engine.precision import Precision
from sr_train.engine.sharding import is_sharded
from sr_train.engine.untouched import untouched
from sr_train.factory.models import input_shape
from sr_train.inference.calling import run_generator
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

_BUDGET_SEC = 4.0
_RUNS, _MOST_RUNS = 3, 10
"""Of each precision; the first one sets up, the fastest of the others counts."""

_ENOUGH_SEC = 0.2

_SMALL = 16
_WORTH_SAYING = 1.1

_HALF = (PrecisionName.fp16, PrecisionName.bf16)


def tell_half_on_cpu(cfg: RunConfig, model: SRModel) -> float | None:
    """Warn where half precision, asked for by name, is slower than fp32 on this CPU.

    Returns:
        How many times as long as in fp32 the network takes; None where it was not measured.
    """
    half = cfg.precision.name in _HALF and model.device.type == "cpu"
    if not half or is_sharded(model.generator.net):
        return None
    try:
        ratio, shape = _measured(model, input_shape(cfg, model.spec))
    except (RuntimeError, PluginError) as err:
        if is_out_of_memory(err):
            return None  # a matter of the step, which knows how to continue
        raise ConfigError(explained(cfg, model, "arch", str(err)) or f"arch: {err}") from err
    words = (cfg.precision.name.value, ratio, "x".join(map(str, shape)))
    if ratio > _WORTH_SAYING:
        log.warning(
            "warning: precision=%s: on this CPU the network takes %.1f times as long as in fp32 "
            "(forward and backward of %s); take precision=fp32, or auto",
            *words,
        )
    else:
        log.info("precision %s: the network takes %.2f of fp32's time (measured on %s)", *words)
    return ratio


def _measured(model: SRModel, full: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
    """Return how many times as long half precision takes, on as large an input as time allows."""
    ratio, shape = 0.0, full
    until, each = time.perf_counter() + _BUDGET_SEC, 0.0
    for size in _sizes(full):
        fed = torch.linspace(0, 1, torch.Size(size).numel()).reshape(size)
        if time.perf_counter() + 2 * _RUNS * each * fed.numel() > until:
            break
        half = _seconds(model, fed, model.precision)
        each = half / fed.numel()
        ratio = half / _seconds(model, fed, Precision("fp32", model.device, "to compare"))
        shape = size
    return ratio, shape


def _sizes(full: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield shapes of inputs from a small one up to that of a micro-batch."""
    side = min(_SMALL, full[-1])
    shapes = [(1, *full[1:-2], side, side), (1, *full[1:]), full]
    yield from dict.fromkeys(shapes)


def _seconds(model: SRModel, fed: Tensor, precision: Precision) -> float:
    """Return the shortest time of a forward and backward; nothing of the network is changed."""
    net, spec = model.generator.net, model.spec
    taken: list[float] = []
    with untouched(net):
        while len(taken) < _RUNS or (len(taken) < _MOST_RUNS and sum(taken) < _ENOUGH_SEC):
            started = time.perf_counter()
            with precision.autocast():
                made = run_generator(net, model.layout(fed.clone()), spec)
            made.float().mean().backward()
            taken.append(time.perf_counter() - started)
    return min(taken[1:])
