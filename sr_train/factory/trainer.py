"""From a typed config to the trainer of a run, with all that it drives."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sr_train.api.callback import Callback
from sr_train.api.logger import Logger
from sr_train.config.build import build
from sr_train.config.schema import RunConfig
from sr_train.engine.best import Best
from sr_train.engine.distributed import World
from sr_train.engine.live_validation import LiveValidation
from sr_train.engine.model import SRModel
from sr_train.engine.precision import resolve_precision
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.state_health import StateHealth
from sr_train.engine.trainer import Trainer
from sr_train.engine.validator import Validator
from sr_train.factory import components, networks
from sr_train.factory.contracts import STREAM, check_contract
from sr_train.monitoring.loggers import Loggers
from sr_train.monitoring.non_finite import NonFiniteMonitor
from sr_train.utils.failures import naming


def make_trainer(
    cfg: RunConfig,
    resolved: dict[str, Any],
    folder: RunFolder,
    model: SRModel,
    sets: Mapping[str, Any],
    stored_best: Mapping[str, float | None],
    callbacks: Mapping[str, Callback],
    world: World,
    validated: bool = True,
    health: StateHealth | None = None,
    window: Mapping[str, Any] | None = None,
    parts: Mapping[str, Any] | None = None,
) -> Trainer:
    """Put the parts of a run together; those of `part_makers` may be given."""
    if parts is None:
        parts = components.make_all(part_makers(cfg, folder, model, sets, world))
    loggers = Loggers({path: each for path, each in parts.items() if path.startswith("logger.")})
    metrics = components.below("metrics", parts)
    return Trainer(
        model,
        parts["data.stream"],
        cadence=cfg.train,
        folder=folder,
        card=networks.card_of(resolved["arch"], model.spec),
        config=resolved,
        best={
            name: Best(bool(metric.higher_is_better), stored_best.get(name))
            for name, metric in metrics.items()
        },
        monitor=NonFiniteMonitor(
            cfg.train.max_skipped_in_row, folder.root, world.rank if world.size > 1 else None
        ),
        validation=make_validation(cfg, folder, model, sets, metrics, loggers, world),
        validated=validated,
        health=health,
        window=window,
        loggers=loggers,
        callbacks=callbacks,
        world=world,
    )


def part_makers(
    cfg: RunConfig,
    folder: RunFolder,
    model: SRModel,
    sets: Mapping[str, Any],
    world: World,
    *,
    dry_run: bool = False,
) -> dict[str, Callable[[], Any]]:
    """Return what makes metrics, stream and loggers (only rank 0 has them), by config path.

    Loggers come last: they may open a run somewhere, which nothing would close again where
    another part fails.
    """
    nodes = cfg.logger if world.is_main else {}
    first_step = model.generator.steps + 1
    metrics = cfg.metrics if cfg.data.val else {}
    return {
        **components.metric_makers(metrics, cfg.plugins),
        "data.stream": partial(make_stream, cfg, model, sets["data.train"], world),
        **components.logger_makers(nodes, cfg.plugins, folder.root, first_step, dry_run=dry_run),
    }


def make_stream(cfg: RunConfig, model: SRModel, dataset: Any, world: World) -> Any:
    """Build the endless stream of this rank's micro-batches."""
    with naming("data.stream", dataset, lambda: "what reads it"):
        stream = build(
            cfg.data.stream,
            "data.stream",
            cfg.plugins,
            dataset=dataset,
            batch_size=cfg.data.batch_size // cfg.train.accum,
            seed=cfg.seed,
            pin_memory=model.device.type == "cuda",
            rank=world.rank,
            world_size=world.size,
        )
    check_contract(stream, STREAM, "data.stream")
    return stream


def make_validation(
    cfg: RunConfig,
    folder: RunFolder,
    model: SRModel,
    sets: Mapping[str, Any],
    metrics: Mapping[str, Any],
    logger: Logger,
    world: World,
) -> LiveValidation | None:
    """Build what scores the network while it trains, in fp32 as `validate` does."""
    if not cfg.data.val:
        return None
    validation_sets = components.below("data.val", sets)
    full = resolve_precision("fp32", model.device)
    return LiveValidation(
        Validator(validation_sets, metrics, cfg.scale, world),
        lambda: networks.make_clip_upscaler(model.net_for_use(), model.spec, full, cfg.tiling),
        folder.samples,
        logger,
    )
