"""`validate`: score a network on test sets."""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from sr_train.api.errors import ConfigError, raise_all
from sr_train.commands.checks.inputs import check_inputs
from sr_train.commands.run_plugins import with_plugins_of_run
from sr_train.commands.tables import directions_of, score_table, write_scores
from sr_train.config.compose import typed
from sr_train.config.paths import empty_paths
from sr_train.config.preflight import use_problems
from sr_train.config.schema import ValidateConfig
from sr_train.engine.distributed import device_of_rank, start_world, stop_world
from sr_train.engine.joining import check_same_data
from sr_train.engine.validator import Scored, Validator, on_last
from sr_train.engine.weights import read_weights
from sr_train.factory import components, networks
from sr_train.inference.clips import frame_by_frame
from sr_train.inference.naming import inside
from sr_train.io.formats.limits import set_max_megapixels
from sr_train.io.images import write_image
from sr_train.monitoring.console import console, progress_bar, start_logging
from sr_train.utils.heap import keep_heap
from sr_train.utils.launch import Launch
from sr_train.utils.signals import Stop


def run(cfg: DictConfig) -> None:
    """Score a checkpoint on every configured set; write and print the results.

    Processes that torchrun started share the images and clips; rank 0 reports the results.

    Ctrl-C, SIGTERM and SIGHUP end it at once: scores of a part would mislead.

    Raises:
        SRTrainError: for everything a user can fix.
        SystemExit: where a signal ended it; no scores are written then.
    """
    rank = Launch.from_environment().rank
    start_logging(rank=rank)
    keep_heap()
    promise = "ends; images that are written are kept, no scores are"
    with Stop("" if rank else promise, at_once=True) as stop:
        _validate(cfg, stop)


def _validate(cfg: DictConfig, stop: Stop) -> None:
    config = _with_scale(cfg)
    set_max_megapixels(config.io.max_megapixels)
    if not config.data.val:
        raise ConfigError(
            "data.val: no data set; add +dataset=set5, or +dataset=main data.val.main.gt=FOLDER"
        )
    device = device_of_rank(components.choose_device(config.device))
    world = start_world(device)
    with world.together():
        net, spec, weights = networks.load_for_use(config)
        precision = components.make_precision(config.precision, device)
        nodes = {f"data.val.{name}": node for name, node in config.data.val.items()}
        sets = components.make_sets(nodes, config.plugins)
    check_same_data(sets, world)
    with world.together():
        check_inputs(spec, sets)
        validator = Validator(
            {path.removeprefix("data.val."): dataset for path, dataset in sets.items()},
            components.make_metrics(config.metrics, config.plugins),
            spec.scale,
            world,
        )
        # Ranks share a machine's memory, which must not decide between them.
        measure = world.size == 1
        upscale = networks.make_clip_upscaler(
            net.to(device), spec, precision, config.tiling, measure=measure
        )
        output = Path(config.output).expanduser()
        output.mkdir(parents=True, exist_ok=True)

    count = len(range(world.rank, len(validator), world.size))
    with progress_bar("validate", count, lines=True) as bar:
        scores = validator.run(upscale, _keeper(output, config.save_images, bar.advance))
    baseline = None
    if config.baseline:
        with progress_bar("bicubic", count, lines=True) as bar:
            baseline = validator.run(frame_by_frame(validator.bicubic), on_last(bar.advance))
    if world.is_main:
        title, directions = f"{type(net).__name__} x{spec.scale}", directions_of(validator.metrics)
        console.print(score_table(scores, baseline, title, directions))
        facts = {"checkpoint": str(weights.source), "scale": spec.scale}
        with stop.holding():
            written = write_scores(output, scores, baseline, facts, directions)
        for path in written:
            console.print(f"written  {path}")
    stop_world(world)


def _with_scale(cfg: DictConfig) -> ValidateConfig:
    """Take the scale from the checkpoint where the command line gives none.

    Paths of data sets may depend on it, so it must stand before they are resolved.
    """
    if OmegaConf.is_missing(cfg, "checkpoint"):
        return typed(cfg, ValidateConfig)
    raise_all(empty_paths({"checkpoint": cfg.checkpoint}))
    if cfg.scale is None:
        card = read_weights(Path(str(cfg.checkpoint)).expanduser(), str(cfg.weights)).card
        if card is None or card.scale is None:
            raise ConfigError(
                f"checkpoint={cfg.checkpoint}: names no scale; add scale=2, 3 or 4 and arch=..."
            )
        with open_dict(cfg):
            cfg.scale = card.scale
    config = with_plugins_of_run(typed(cfg, ValidateConfig))
    raise_all(use_problems(config))
    return config


def _keeper(output: Path, keep: bool, advance: Callable[[], None]) -> Callable[[Scored], None]:
    count = on_last(advance)

    def on_frame(scored: Scored) -> None:
        if keep:
            path = inside(output, f"{scored.set_name}/{scored.name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, scored.pred)
        count(scored)

    return on_frame
