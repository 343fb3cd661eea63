"""One training run from config to closing table."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from sr_train.cli import assemble, learning, networks
from sr_train.cli.inputs import check_inputs
from sr_train.cli.joining import check_same_data, share
from sr_train.cli.resuming import (
    Resumed,
    best_so_far,
    find_resumed,
    health_of,
    refuse_other_network,
    same_on_all,
    take_up,
)
from sr_train.cli.summary import tell_summary
from sr_train.cli.tables import score_table, write_scores
from sr_train.config.build import build
from sr_train.config.schema import RunConfig
from sr_train.engine.checkpoint import set_aside_newer
from sr_train.engine.distributed import World, device_of_rank, start_world, stop_world
from sr_train.engine.host import keep_heap
from sr_train.engine.live_validation import LiveValidation
from sr_train.engine.model import SRModel
from sr_train.engine.policy import Policy
from sr_train.engine.precision import resolve_precision
from sr_train.engine.randomness import seed_everything, seed_rank
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.state_health import StateHealth
from sr_train.engine.trainer import Best, Cadence, Trainer
from sr_train.engine.validator import Validator
from sr_train.monitoring.console import console, start_logging
from sr_train.monitoring.records import write_manifest
from sr_train.monitoring.sentinel import Sentinel
from sr_train.ops.images.limits import set_max_megapixels
from sr_train.ops.launch import Stopped

log = logging.getLogger(__name__)


def run_training(cfg: RunConfig, resolved: dict[str, Any], run_dir: Path) -> float | None:
    """Train as configured.

    Args:
        cfg: checked config.
        resolved: the same config as plain Python, kept in checkpoints.
        run_dir: the run's folder.

    Returns:
        The best value of `best_metric`, or None without validation.

    Raises:
        SRTrainError: for everything a user can mend.
        Stopped: after a signal.
    """
    set_max_megapixels(cfg.io.max_megapixels)
    device = device_of_rank(assemble.choose_device(cfg.device))
    world = start_world(device, cfg.distributed.timeout_sec)
    folder = RunFolder(run_dir)
    with ExitStack() as held:
        found = None
        start_logging(rank=world.rank)
        with world.together():
            if world.is_main:
                held.enter_context(folder.lock())
                folder.tidy()
            start_logging(folder.log_file, world.rank)
            if world.is_main:
                found = find_resumed(cfg, folder)
        trainer = prepare(cfg, resolved, folder, same_on_all(found, world), device, world)
        del found  # a state as large as the model
        try:
            stopped_by = train_to_end(trainer)
        finally:
            trainer.stream.close()
            for logger in trainer.loggers:
                logger.close()
        close_run(trainer, folder, stopped_by)
    stop_world(world)
    if stopped_by is not None:
        raise Stopped(stopped_by)  # a return would start the next run of a sweep
    return trainer.best[cfg.best_metric].value if cfg.data.val else None


def prepare(
    cfg: RunConfig,
    resolved: dict[str, Any],
    folder: RunFolder,
    resumed: Resumed | None,
    device: torch.device,
    world: World,
) -> Trainer:
    """Build the trainer, at the step it goes on from, and note the launch in the manifest."""
    keep_heap()
    seed_everything(cfg.seed)
    torch.use_deterministic_algorithms(cfg.train.deterministic)
    nodes = {"data.train": cfg.data.train}
    nodes |= {f"data.val.{name}": node for name, node in cfg.data.val.items()}
    best: dict[str, float | None] = {}
    with world.together():
        if resumed is not None:
            refuse_other_network(resumed, resolved)
        sets = assemble.make_sets(nodes, cfg.plugins)
    check_same_data(sets, world)
    with world.together():
        model = learning.make_model(cfg, device, world)
        check_inputs(model.spec, sets)
    seed_rank(cfg.seed, 0, world)
    policies = learning.make_policies(cfg, model.precision, world.size)
    if resumed is not None:
        with world.together():
            best = take_up(model, policies, resumed, resolved, world)
        if world.is_main:
            for moved in set_aside_newer(folder.checkpoints, resumed.state["step"]):
                log.info("set aside, of a later step than the one gone on from: %s", _shown(moved))
        best = best_so_far(best, folder, world)
    health = health_of(folder, resumed, world)
    validated = resumed is None or bool(resumed.state.get("validated", True))
    share(model, cfg.distributed, world)
    with world.together():
        trainer = make_trainer(
            cfg, resolved, folder, model, sets, best, policies, world, validated, health
        )
    if world.is_main:
        facts = {
            "device": str(device),
            "processes": world.size,
            "precision": model.precision.name,
            "first_step": trainer.step + 1,
            "data": {path: dataset.fingerprint() for path, dataset in sets.items()},
        }
        write_manifest(folder.manifest, facts)
    for logger in trainer.loggers:
        logger.text("config", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    return trainer


def make_trainer(
    cfg: RunConfig,
    resolved: dict[str, Any],
    folder: RunFolder,
    model: SRModel,
    sets: Mapping[str, Any],
    stored_best: Mapping[str, float | None],
    policies: Mapping[str, Policy],
    world: World,
    validated: bool = True,
    health: StateHealth | None = None,
) -> Trainer:
    """Put the parts of a run together; rank 0 alone has loggers."""
    first_step = model.generator.steps + 1
    loggers = [
        build(node, f"logger.{name}", cfg.plugins, run_dir=folder.root, first_step=first_step)
        for name, node in cfg.logger.items()
        if world.is_main
    ]
    metrics = assemble.make_metrics(cfg.metrics, cfg.plugins) if cfg.data.val else {}
    return Trainer(
        model,
        make_stream(cfg, model, sets["data.train"], world),
        cadence=Cadence(
            steps=cfg.train.steps,
            accum=cfg.train.accum,
            log_every=cfg.train.log_every,
            val_every=cfg.train.val_every,
            checkpoint_every=cfg.train.checkpoint_every,
            keep_last=cfg.train.keep_last,
        ),
        folder=folder,
        card=networks.card_of(resolved["arch"], model.spec),
        config=resolved,
        best={
            name: Best(bool(metric.higher_is_better), stored_best.get(name))
            for name, metric in metrics.items()
        },
        sentinel=Sentinel(
            cfg.train.max_skipped_in_row, folder.root, world.rank if world.size > 1 else None
        ),
        validation=make_validation(cfg, folder, model, sets, metrics, loggers, world),
        validated=validated,
        health=health,
        loggers=loggers,
        policies=policies,
        world=world,
    )


def make_stream(cfg: RunConfig, model: SRModel, dataset: Any, world: World) -> Any:
    """Build the endless stream of this rank's micro-batches."""
    return build(
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


def make_validation(
    cfg: RunConfig,
    folder: RunFolder,
    model: SRModel,
    sets: Mapping[str, Any],
    metrics: Mapping[str, Any],
    loggers: list[Any],
    world: World,
) -> LiveValidation | None:
    """Build what scores the network while it trains, in fp32 as `validate` does."""
    if not cfg.data.val:
        return None
    prefix = "data.val."
    validation_sets = {k.removeprefix(prefix): v for k, v in sets.items() if k.startswith(prefix)}
    full = resolve_precision("fp32", model.device)
    return LiveValidation(
        Validator(validation_sets, metrics, cfg.scale, world),
        lambda: networks.make_clip_upscaler(model.net_for_use(), model.spec, full, cfg.tiling),
        folder.samples,
        loggers,
    )


def train_to_end(trainer: Trainer) -> str | None:
    """Train, or say that nothing is left to do; return the signal that ended it."""
    parameters = sum(p.numel() for p in trainer.model.generator.net.parameters())
    log.info("%s, %.2f M parameters", trainer.card.architecture, parameters / 1e6)
    if trainer.step >= trainer.cadence.steps:
        log.info(
            "step %d of %d is done already; raise train.steps to go on",
            trainer.step,
            trainer.cadence.steps,
        )
    stopped_by = trainer.fit()
    if stopped_by is None and trainer.scores is None and trainer.validation is not None:
        trainer.score()  # for the tables alone: a run that is done gets no more rows
    return stopped_by


def close_run(trainer: Trainer, folder: RunFolder, stopped_by: str | None) -> None:
    """Show what a run came to: tables, sheet, paths, what to try next."""
    tell_summary(trainer, folder, stopped_by)
    if stopped_by is not None:
        log.info("stopped by %s after step %d; state saved. Go on with:", stopped_by, trainer.step)
        console.print(f"  {_again(trainer.world, folder)}")
        return
    validation = trainer.validation
    if isinstance(validation, LiveValidation) and trainer.scores is not None:
        baseline = validation.baseline()
        title = f"{trainer.card.architecture.rsplit('.', 1)[-1]} x{trainer.card.scale}"
        console.print(score_table(trainer.scores, baseline, f"{title}, step {trainer.step}"))
        if not trainer.world.is_main:
            return
        write_scores(folder.root, trainer.scores, baseline, {"step": trainer.step})
        console.print(f"pictures     {_shown(validation.sheet_path)}  (bicubic | SR | GT)")
    console.print(f"weights      {_shown(folder.last_weights)}")
    if trainer.model.swa is not None and trainer.model.swa.started:
        console.print(f"SWA          {_shown(folder.swa_weights)}")
    for metric in trainer.best:
        console.print(f"best         {_shown(folder.best_weights(metric))}")
    console.print(f"state        {_shown(folder.checkpoints)}")
    console.print(f"TensorBoard  {_shown(folder.root / 'tensorboard')}")
    run, here = _shown(folder.root), _programs()
    use, weights = shlex.quote(f"checkpoint={run}"), shlex.quote(f"output={run.name}.safetensors")
    console.print(
        "\ntry next\n"
        f"  {here}tensorboard --logdir {shlex.quote(str(run.parent))}\n"
        f"  {here}python -m sr_train infer {use} input=PICTURE_OR_FOLDER output=upscaled\n"
        f"  {here}python -m sr_train export {use} {weights}"
    )


def _again(world: World, folder: RunFolder) -> str:
    """Return the command line that goes on with this run; its folder holds the config."""
    program = [f"{_programs()}python"]
    here = os.environ.get("LOCAL_WORLD_SIZE")  # set by torchrun; srun starts what was typed
    if here is not None and world.size > 1:
        program = [f"{_programs()}torchrun", f"--nproc-per-node={here}"]
    return shlex.join([*program, "-m", "sr_train", "train", f"resume={_shown(folder.root)}"])


def _shown(path: Path | None) -> Path:
    """Return a path as a person standing in the working directory would type it."""
    assert path is not None
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _programs() -> str:
    """Return what to type before `python`: nothing where the shell finds this one by itself."""
    folder = Path(sys.executable).parent
    if Path(shutil.which("python") or "").parent == folder:
        return ""
    return f"{_shown(folder)}/"
