"""Every problem of a run's config that can be found without opening data, all at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.api.optimizers import averages_itself
from sr_train.config.allowed import misplaced
from sr_train.config.build import at_scale, is_node, node_problems, resolve_target
from sr_train.config.paths import empty_paths, name_problems
from sr_train.config.schema import (
    InferConfig,
    IoConfig,
    NetworkUseConfig,
    OverfitConfig,
    RunConfig,
    UseConfig,
    ValidateConfig,
)
from sr_train.config.targets import plugin_problems
from sr_train.config.term_checks import gan_problems, term_problems
from sr_train.utils.memory import available_bytes

_RUNTIME = {
    "optimizer": {"params"},
    "discriminator.optimizer": {"params"},
    "data.stream": {"dataset", "batch_size", "seed", "pin_memory", "rank", "world_size"},
    "logger": {"run_dir", "first_step", "dry_run"},
}
"""Arguments that the program gives at run time, by config path."""


def run_problems(cfg: RunConfig) -> list[str]:
    """Return every problem of a training config, each with path, found value, expectation."""
    problems = [*misplaced(cfg), *empty_paths(asdict(cfg)), *_numbers(cfg), *_choices(cfg)]
    plugins = _usable(cfg.plugins)
    for path, node in component_nodes(cfg):
        runtime = _RUNTIME.get(path) or _RUNTIME.get(path.split(".")[0]) or set()
        problems += node_problems(node, path, plugins, dict.fromkeys(runtime))
    return list(dict.fromkeys(problems))


def overfit_problems(cfg: OverfitConfig) -> list[str]:
    """Return every problem of an `overfit` config."""
    counts = {"num_samples": cfg.num_samples, "num_steps": cfg.num_steps}
    problems = [*run_problems(cfg), *_at_least(counts, 1)]
    if cfg.best_metric not in cfg.metrics:
        problems.append(f"best_metric={cfg.best_metric}: not among metrics")
    return problems


def use_problems(cfg: UseConfig) -> list[str]:
    """Return every problem of a config that uses a trained network."""
    problems = [*misplaced(cfg), *empty_paths(asdict(cfg))]
    problems += [] if cfg.scale is None else _at_least({"scale": cfg.scale}, 1)
    plugins = _usable(cfg.plugins)
    if cfg.weights not in {"ema", "live", "swa"}:
        problems.append(f"weights={cfg.weights}: expected ema, live or swa")
    if cfg.arch is not None:
        # A scale that is not given comes from the checkpoint.
        arch = at_scale(cfg.arch, cfg.scale or 1, plugins) if is_node(cfg.arch) else cfg.arch
        problems += node_problems(arch, "arch", plugins)
    if isinstance(cfg, NetworkUseConfig):
        problems += [*_tiling(asdict(cfg.tiling)), *_io(cfg.io)]
    if isinstance(cfg, ValidateConfig):
        nodes = {f"data.val.{name}": node for name, node in cfg.data.val.items()}
        nodes |= {f"metrics.{name}": node for name, node in cfg.metrics.items()}
        for path, node in nodes.items():
            problems += node_problems(node, path, plugins)
    if isinstance(cfg, InferConfig):
        problems += _places(cfg)
    return list(dict.fromkeys(problems))


def _usable(plugins: Sequence[str]) -> list[str]:
    """Return the plug-ins that there can be: what is wrong with the others is reported by then."""
    return [name for name in plugins if not plugin_problems([name])]


def _places(cfg: InferConfig) -> Iterator[str]:
    """Yield what is wrong with the words for the input, before anything is looked at."""
    given = cfg.input if isinstance(cfg.input, list) else [cfg.input]
    if not given:
        yield "input=[]: expected a file or a folder, or a list of such"
    for each in given:
        if not isinstance(each, str):
            yield f"input={each!r}: expected the path of a file or a folder, or a list of such"


def component_nodes(cfg: RunConfig) -> Iterator[tuple[str, Any]]:
    """Yield (config path, node) of every component of a run."""
    yield "arch", cfg.arch
    yield "optimizer", cfg.optimizer
    yield "scheduler", cfg.scheduler
    for name, term in cfg.objective.items():
        yield f"objective.{name}.loss", term.loss
    for name, term_d in cfg.objective_d.items():
        yield f"objective_d.{name}.loss", term_d.loss
    wanted = cfg.discriminator
    for name in ("arch", "optimizer", "scheduler"):
        if getattr(wanted, name) is not None:
            yield f"discriminator.{name}", getattr(wanted, name)
    yield "data.train", cfg.data.train
    for name, node in cfg.data.val.items():
        yield f"data.val.{name}", node
    yield "data.stream", cfg.data.stream
    for name, node in cfg.metrics.items():
        yield f"metrics.{name}", node
    for name, node in cfg.logger.items():
        yield f"logger.{name}", node
    for name, node in cfg.callbacks.items():
        yield f"callbacks.{name}", node


def _batch(cfg: RunConfig) -> Iterator[str]:
    """Yield that a batch cannot be held, however small the network is."""
    size, accum = cfg.data.batch_size, max(1, cfg.train.accum)
    pixels = cfg.data.frames * cfg.data.lq_size**2 * (1 + cfg.scale**2)
    wanted, free = 3 * (size // accum) * pixels, available_bytes()
    if wanted > free:
        yield (
            f"data.batch_size={size}, data.lq_size={cfg.data.lq_size}: the crops of a micro-batch "
            f"alone take {wanted / 2**30:,.0f} GiB, {free / 2**30:.1f} GiB are free"
        )


def _numbers(cfg: RunConfig) -> Iterator[str]:
    yield from _at_least(
        {
            "scale": cfg.scale,
            "seed": cfg.seed,
            "train.max_skipped_in_row": cfg.train.max_skipped_in_row,
            "swa.every": cfg.swa.every,
            "data.batch_size": cfg.data.batch_size,
            "data.lq_size": cfg.data.lq_size,
            "data.frames": cfg.data.frames,
        },
        least=1,
        zero_ok={"seed"},
    )
    yield from cfg.train.problems("train")
    if cfg.train.accum > 0 and cfg.data.batch_size % cfg.train.accum:
        yield (
            f"data.batch_size={cfg.data.batch_size}: must be a multiple of "
            f"train.accum={cfg.train.accum}"
        )
    if cfg.train.max_norm is not None and cfg.train.max_norm <= 0:
        yield f"train.max_norm={cfg.train.max_norm}: expected a number above 0, or null"
    if not 0.0 <= cfg.ema.decay < 1.0:
        yield f"ema.decay={cfg.ema.decay}: expected a number in [0, 1)"
    if cfg.distributed.timeout_sec <= 0:
        yield f"distributed.timeout_sec={cfg.distributed.timeout_sec}: expected seconds above 0"
    if cfg.swa.start is not None and not 0 <= cfg.swa.start < cfg.train.steps:
        yield f"swa.start={cfg.swa.start}: expected steps from 0 to below train.steps"
    yield from _batch(cfg)
    yield from cfg.precision.problems("precision")
    yield from _io(cfg.io)
    lr = cfg.optimizer.get("lr") if isinstance(cfg.optimizer, dict) else None
    if isinstance(lr, int | float) and lr < 0:
        yield f"optimizer.lr={lr}: expected a number from 0 up"
    yield from _tiling(asdict(cfg.tiling))


def _io(io: IoConfig) -> Iterator[str]:
    if not io.max_megapixels > 0:
        yield f"io.max_megapixels={io.max_megapixels:g}: expected a number above 0"


def _choices(cfg: RunConfig) -> Iterator[str]:
    yield from gan_problems(cfg)
    yield from term_problems(cfg)
    yield from _averages(cfg)
    best = cfg.best_metric
    if cfg.data.val and best not in cfg.metrics:
        yield f"best_metric={best}: no such metric{did_you_mean(best, cfg.metrics)}"
    yield from name_problems(cfg.name)
    paths = {
        "net_g.pretrained": cfg.net_g.pretrained,
        "discriminator.pretrained": cfg.discriminator.pretrained,
    }
    if cfg.resume not in {"none", "auto"}:
        paths["resume"] = cfg.resume
    for key, path in paths.items():
        if path is not None and not Path(path).expanduser().exists():
            words = "; expected none, auto, or a path" if key == "resume" else ""
            yield f"{key}={path}: no such file or folder{words}"


def _averages(cfg: RunConfig) -> Iterator[str]:
    node = cfg.optimizer
    if not isinstance(node, dict) or "_target_" not in node:
        return
    try:
        target = resolve_target(node["_target_"], "optimizer", cfg.plugins)
    except ConfigError:
        return  # the check of components reports it
    if not averages_itself(target):
        return
    name = node["_target_"]
    if not cfg.ema.enabled:
        yield f"ema.enabled=false: {name} averages by itself, for use; expected true"
    if cfg.swa.enabled:
        yield f"swa.enabled=true: {name} averages by itself; expected false"


def _tiling(tiling: Mapping[str, Any]) -> Iterator[str]:
    axes = [("tile", "overlap", "LQ pixels"), ("frames", "frame_overlap", "frames")]
    for size, shared, unit in axes:
        found, overlap = tiling[size], tiling[shared]
        number = isinstance(found, int) and not isinstance(found, bool)
        if not (found in (None, "auto") or (number and found > 0)):
            yield f"tiling.{size}={found}: expected auto, null, or a number of {unit} above 0"
        if overlap is not None and overlap < 0:
            yield f"tiling.{shared}={overlap}: expected null or a number of {unit} from 0 up"
    if tiling["tile_batch"] < 1:
        yield f"tiling.tile_batch={tiling['tile_batch']}: expected a number from 1 up"


def _at_least(
    values: Mapping[str, int],
    least: int,
    zero_ok: set[str] = frozenset(),  # type: ignore[assignment]
) -> Iterator[str]:
    for key, value in values.items():
        bound = 0 if key in zero_ok else least
        if value < bound:
            yield f"{key}={value}: expected a whole number from {bound} up"
