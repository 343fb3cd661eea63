"""From a typed config to the callbacks of a run."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sr_train.api.callback import Callback
from sr_train.config.build import build
from sr_train.config.schema import RunConfig
from sr_train.engine.adaptive import (
    ADAPTIVE_PACE,
    ADAPTIVE_PRECISION,
    AdaptivePace,
    AdaptivePrecision,
)
from sr_train.engine.model import SRModel
from sr_train.factory.components import make_all
from sr_train.factory.contracts import check_callback


def make_callbacks(cfg: RunConfig, model: SRModel, num_ranks: int) -> dict[str, Callback]:
    """Build the callbacks by config path, the same on every rank, in the order they are called.

    Raises:
        Problems: what is wrong with any of them.
    """
    return make_all(callback_makers(cfg, model, num_ranks))


def callback_makers(cfg: RunConfig, model: SRModel, num_ranks: int) -> dict[str, Callable[[], Any]]:
    """Return what makes each callback, by config path: those that a setting switches on first."""
    makers: dict[str, Callable[[], Any]] = {}
    if cfg.precision.adaptive:
        makers[ADAPTIVE_PRECISION] = partial(AdaptivePrecision, model, cfg.precision, num_ranks)
    if cfg.discriminator.arch is not None and cfg.discriminator.adaptive:
        makers[ADAPTIVE_PACE] = AdaptivePace
    return {**makers, **configured_makers(cfg)}


def configured_makers(cfg: RunConfig) -> dict[str, Callable[[], Any]]:
    """Return what makes each callback of the group `callbacks`, by config path."""
    return {
        f"callbacks.{name}": partial(_callback, node, f"callbacks.{name}", cfg.plugins)
        for name, node in cfg.callbacks.items()
    }


def _callback(node: Any, path: str, plugins: list[str]) -> Any:
    callback = build(node, path, plugins)
    check_callback(callback, path)
    return callback
