"""One training run from config to closing table."""

import logging
import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sr_train.api.errors import raise_all
from sr_train.commands.checks.inputs import check_inputs
from sr_train.commands.checks.starting import look_before
from sr_train.commands.resuming import (
    ResumeState,
    best_so_far,
    broadcast_checkpoint,
    check_same_architecture,
    find_resumed,
    health_of,
    restore,
)
from sr_train.commands.run_plugins import origin
from sr_train.commands.summary import print_summary
from sr_train.commands.tables import score_table, write_scores
from sr_train.config.compose import plain, typed
from sr_train.config.preflight import run_problems
from sr_train.config.schema import RunConfig
from sr_train.engine.checkpoint import set_aside_newer
from sr_train.engine.distributed import World, device_of_rank, start_world, stop_world
from sr_train.engine.joining import check_same_data, wrap_ddp
from sr_train.engine.live_validation import LiveValidation
from sr_train.engine.randomness import seed_everything, seed_rank
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.trainer import Trainer
from sr_train.factory import components, models
from sr_train.factory.callbacks import make_callbacks
from sr_train.factory.determinism import use_deterministic
from sr_train.factory.trainer import make_trainer
from sr_train.io.formats.limits import set_max_megapixels
from sr_train.monitoring.console import console, start_logging
from sr_train.monitoring.run_files import write_manifest
from sr_train.utils.command_lines import command_line, program, shown_path
from sr_train.utils.heap import keep_heap
from sr_train.utils.launch import Stopped

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float | None:
    """Do one training run; return the best value of `best_metric`, for a search.

    Raises:
        SRTrainError: for everything a user can fix.
        Stopped: after a signal.
    """
    config = typed(cfg, RunConfig)
    raise_all(run_problems(config))
    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    result = run_training(config, plain(cfg), run_dir, hydra.output_subdir)
    if result.stopped_by is not None:
        raise Stopped(result.stopped_by)  # a return would start the next run of a sweep
    return result.best[config.best_metric] if config.data.val else None


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    folder: Path
    """The run's folder, which `load_network` and `resume` take."""
    weights: Path
    """The last weights, .safetensors."""
    step: int
    """Steps that are done."""
    best: Mapping[str, float | None]
    """Best value of each metric; None: no validation was done, or it was never a number."""
    best_weights: Mapping[str, Path]
    """Weights that were best by a metric, .safetensors."""
    stopped_by: str | None
    """Name of the signal that ended the run early, all saved."""


def run_training(
    cfg: RunConfig, resolved: dict[str, Any], run_dir: Path, launch: str | None
) -> TrainResult:
    """Train as configured.

    Args:
        cfg: checked config.
        resolved: the same config as plain Python, kept in checkpoints.
        run_dir: the run's folder.
        launch: where in it this launch has its config; None: nowhere.

    Returns:
        What the run came to, after a signal, too.

    Raises:
        SRTrainError: for everything a user can fix.
    """
    set_max_megapixels(cfg.io.max_megapixels)
    device = device_of_rank(components.choose_device(cfg.device))
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
        resumed = broadcast_checkpoint(found, world)
        trainer = prepare(cfg, resolved, folder, resumed, device, world, launch)
        del found, resumed  # a state as large as the model
        with trainer.loggers, closing(trainer.stream):
            with world.together():
                trainer.loggers.config(resolved)
            stopped_by = train_to_end(trainer)
        close_run(trainer, folder, stopped_by)
    stop_world(world)
    weights = {name: folder.best_weights(name) for name in trainer.best}
    return TrainResult(
        run_dir,
        folder.last_weights,
        trainer.step,
        {name: best.value for name, best in trainer.best.items()},
        {name: path for name, path in weights.items() if path.is_file()},
        stopped_by,
    )


def prepare(
    cfg: RunConfig,
    resolved: dict[str, Any],
    folder: RunFolder,
    resumed: ResumeState | None,
    device: torch.device,
    world: World,
    launch: str | None,
) -> Trainer:
    """Build the trainer, at the step it resumes from, and note the launch in the manifest."""
    keep_heap()
    seed_everything(cfg.seed)
    use_deterministic(cfg)
    nodes = {"data.train": cfg.data.train}
    nodes |= {f"data.val.{name}": node for name, node in cfg.data.val.items()}
    best: dict[str, float | None] = {}
    with world.together():
        if resumed is not None:
            check_same_architecture(resumed, resolved)
        sets = components.make_sets(nodes, cfg.plugins)
    check_same_data(sets, world)
    with world.together():
        model = models.make_model(cfg, device, world)
        check_inputs(model.spec, sets)
        look_before(cfg, model, sets, world)
    seed_rank(cfg.seed, 0, world)
    with world.together():
        callbacks = make_callbacks(cfg, model, world.size)
    if resumed is not None:
        with world.together():
            best = restore(model, callbacks, resumed, resolved, world)
        if world.is_main:
            for moved in set_aside_newer(folder.checkpoints, resumed.state["step"]):
                shown = shown_path(moved)
                log.info("set aside, of a later step than the one resumed from: %s", shown)
        best = best_so_far(best, folder, world)
    health = health_of(folder, resumed, world)
    validated = resumed is None or bool(resumed.state.get("validated", True))
    window = None if resumed is None else resumed.state.get("window")
    wrap_ddp(model, cfg.distributed, world)
    with world.together():
        trainer = make_trainer(
            cfg, resolved, folder, model, sets, best, callbacks, world, validated, health, window
        )
    if world.is_main:
        facts = {
            "device": str(device),
            "processes": world.size,
            "precision": model.precision.name,
            "first_step": trainer.step + 1,
            "config": launch,
            "data": {path: dataset.fingerprint() for path, dataset in sets.items()},
            **origin(cfg, folder.root),
        }
        write_manifest(folder.manifest, facts)
    return trainer


def train_to_end(trainer: Trainer) -> str | None:
    """Train, or say that nothing is left to do; return the signal that ended it."""
    parameters = sum(p.numel() for p in trainer.model.generator.net.parameters())
    log.info("%s, %.2f M parameters", trainer.card.architecture, parameters / 1e6)
    if trainer.step >= trainer.cadence.steps:
        log.info(
            "step %d of %d is done already; raise train.steps to continue",
            trainer.step,
            trainer.cadence.steps,
        )
    stopped_by = trainer.fit()
    if trainer.callbacks.stopped is not None:
        log.info("step %d: ended by %s", trainer.step, trainer.callbacks.stopped)
    if stopped_by is None and trainer.scores is None and trainer.validation is not None:
        trainer.score()  # only for the tables: a run that is done gets no more rows
    return stopped_by


def close_run(trainer: Trainer, folder: RunFolder, stopped_by: str | None) -> None:
    """Show what a run came to: tables, sheet, paths, what to try next."""
    print_summary(trainer, folder, stopped_by)
    if stopped_by is not None:
        log.info("stopped by %s after step %d; state saved. Go on with:", stopped_by, trainer.step)
        console.print(f"  {_again(trainer.world, folder)}")
        return
    validation = trainer.validation
    if isinstance(validation, LiveValidation) and trainer.scores is not None:
        baseline = validation.baseline()
        title = f"{trainer.card.architecture.rsplit('.', 1)[-1]} x{trainer.card.scale}"
        ways = {name: best.higher_is_better for name, best in trainer.best.items()}
        console.print(score_table(trainer.scores, baseline, f"{title}, step {trainer.step}", ways))
        if not trainer.world.is_main:
            return
        write_scores(folder.root, trainer.scores, baseline, {"step": trainer.step}, ways)
        if validation.sheet_path is not None:
            sheet = shown_path(validation.sheet_path)
            console.print(f"images       {sheet}  (bicubic | SR | GT)")
    console.print(f"weights      {shown_path(folder.last_weights)}")
    for kind in trainer.model.kinds_with_own_file:
        console.print(f"{kind.upper():12} {shown_path(folder.weights_of(kind))}")
    for best in map(folder.best_weights, trainer.best):
        if best.is_file():  # a value that was never a number is no best one
            console.print(f"best         {shown_path(best)}")
    console.print(f"state        {shown_path(folder.checkpoints)}")
    run, events = shown_path(folder.root), folder.root / "tensorboard"
    used, shipped = f"checkpoint={run}", f"output={run.name}.safetensors"
    lines = [
        command_line("infer", used, "input=IMAGE_OR_FOLDER", "output=upscaled"),
        command_line("export", used, shipped),
    ]
    if events.is_dir():
        console.print(f"TensorBoard  {shown_path(events)}")
        lines.insert(0, f"{program('tensorboard')} --logdir {shlex.quote(str(run.parent))}")
    console.print("\n  ".join(["\ntry next", *lines]))


def _again(world: World, folder: RunFolder) -> str:
    """Return the command line that resumes this run; its folder holds the config."""
    resume = f"resume={shown_path(folder.root)}"
    here = os.environ.get("LOCAL_WORLD_SIZE")  # set by torchrun; srun starts what was typed
    if here is None or world.size == 1:
        return command_line("train", resume)
    started = f"{program('torchrun')} --nproc-per-node={here} -m sr_train"
    return f"{started} train {shlex.quote(resume)}"
