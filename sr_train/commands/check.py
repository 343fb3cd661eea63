"""What `check` looks at: config, data, parts, the first validation and save, a step, memory."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from sr_train.api.errors import ConfigError, Problems, SRTrainError
from sr_train.commands.checks.advice import tell_advice
from sr_train.commands.checks.callbacks import rehearse_callbacks
from sr_train.commands.checks.dry_step import Static, real_step, shown_size, toy_batches, toy_step
from sr_train.commands.checks.half import tell_half_on_cpu
from sr_train.commands.checks.inputs import check_inputs, sample_problems
from sr_train.commands.checks.rehearsal import Rehearsal, rehearsal_folder
from sr_train.commands.checks.sizes import size_problems, spec_problems
from sr_train.commands.checks.trial import try_parts
from sr_train.commands.resuming import check_same_architecture, find_resumed
from sr_train.config.allowed import forbidden
from sr_train.config.compose import lenient, plain
from sr_train.config.preflight import run_problems
from sr_train.config.schema import CheckConfig
from sr_train.engine.model import SRModel
from sr_train.engine.randomness import seed_everything
from sr_train.engine.run_folder import RunFolder
from sr_train.factory import components, models
from sr_train.factory.callbacks import configured_makers
from sr_train.factory.determinism import use_deterministic
from sr_train.io.formats.limits import set_max_megapixels
from sr_train.monitoring.console import console, start_logging
from sr_train.utils.failures import naming, users_place
from sr_train.utils.memory import available_bytes, is_out_of_memory

log = logging.getLogger(__name__)

_SAMPLES = 4
"""Training samples that are looked at."""

_COPIES = 3
"""Of a state in memory, while it is written and read."""


def run(cfg: DictConfig) -> None:
    """Look for problems everywhere and report all of them.

    Raises:
        Problems: if there is any.
    """
    start_logging()
    with _counted() as doubts:
        config, problems = lenient(cfg, CheckConfig)
        set_max_megapixels(config.io.max_megapixels)
        missing = {problem.split(":")[0] for problem in problems}
        problems += [
            p for p in run_problems(config) if p.split("=")[0].split(":")[0] not in missing
        ]
        refused = forbidden(config)
        if refused:  # nothing of such a config is made
            raise Problems(list(dict.fromkeys(problems or refused)))
        is_whole = not problems
        data = _data(config, problems)
        sets = data.made
        problems += data.problems
        problems += _disk(config)
        if is_whole:
            tell_advice(config, sets)
            if config.step:
                problems += _exits(partial(_run, config, plain(cfg), sets, not problems))
    if problems:
        raise Problems(list(dict.fromkeys(problems)), advice="\n".join(data.advice) or None)
    console.print(f"check of {config.name}: {_verdict(config, sets, doubts)}")


def _exits(look: Callable[[], list[str]]) -> list[str]:
    """Return the problems found, and that some code would end the program, if it does."""
    try:
        return look()
    except SystemExit as err:
        return [f"some code called sys.exit({err.code!r}) ({users_place(err)}), which ends a run"]


@contextmanager
def _counted() -> Iterator[list[str]]:
    """Collect the warnings that are logged in the block."""
    told: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    handler = Collector(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield told
    finally:
        logging.getLogger().removeHandler(handler)


def _verdict(cfg: CheckConfig, sets: dict[str, Any], doubts: list[str]) -> str:
    """Return the closing words: what was found, and what was not looked at."""
    words = ["no problem found"]
    if doubts:
        words.append("1 warning, see above" if len(doubts) == 1 else f"{len(doubts)} warnings")
    for path, dataset in sets.items():
        left_out = getattr(dataset.report(), "left_out", [])
        if left_out:
            words.append(f"{path} leaves out {len(left_out)}, see above")
    if not cfg.step:
        words.append("no network was built and no step taken (step=false)")
    return "; ".join(words)


def _data(cfg: CheckConfig, told: Sequence[str]) -> components.Attempt:
    """Build the data sets; those that something was said of already would say it again."""
    nodes = {"data.train": cfg.data.train}
    nodes |= {f"data.val.{name}": node for name, node in cfg.data.val.items()}
    made = components.Attempt()
    for path, node in nodes.items():
        if any(problem.startswith((f"{path}.", f"{path}:", f"{path}=")) for problem in told):
            continue
        try:
            attempt = components.attempt_sets({path: node}, cfg.plugins)
        except SRTrainError as err:  # a report that fails
            attempt = components.Attempt(problems=[str(err)])
        made.made |= attempt.made
        made.problems += attempt.problems
        made.advice += attempt.advice
    if cfg.decode:
        for path, dataset in made.made.items():
            log.info("%s: decoding every file", path)
            with naming(path, dataset, lambda: "verify()"):
                made.problems += [f"{path}: {problem}" for problem in dataset.verify()]
    return made


def _disk(cfg: CheckConfig) -> list[str]:
    folder = _folder(cfg)
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir():
        return [f"out_dir={cfg.out_dir}: {existing} is a file, expected a folder"]
    if not os.access(existing, os.W_OK):
        return [f"out_dir={cfg.out_dir}: {existing} cannot be written to"]
    log.info("disk: %.1f GiB free at %s", shutil.disk_usage(existing).free / 2**30, existing)
    return []


def _folder(cfg: CheckConfig) -> Path:
    return Path(cfg.out_dir).expanduser().absolute()


def _run(
    cfg: CheckConfig, resolved: dict[str, Any], sets: dict[str, Any], heavy: bool
) -> list[str]:
    """Build what a run is made of, and take its first steps.

    Args:
        cfg: whole.
        resolved: the same, plain.
        sets: those that could be made, by config path.
        heavy: nothing was found so far: rehearse and measure, too.
    """
    before = torch.are_deterministic_algorithms_enabled()
    try:
        seed_everything(cfg.seed)
        use_deterministic(cfg)
        model = models.make_model(cfg, components.choose_device(cfg.device))
        check_inputs(model.spec, sets)
        _take_up(cfg, resolved, model)
        tell_half_on_cpu(cfg, model)
    except Problems as err:
        return [*err.problems, *_light_parts(cfg)]
    except SRTrainError as err:
        return [str(err), *_light_parts(cfg)]
    else:
        return _steps(cfg, resolved, model, sets) if heavy else _light_parts(cfg)
    finally:
        torch.use_deterministic_algorithms(before)


def _take_up(cfg: CheckConfig, resolved: dict[str, Any], model: SRModel) -> None:
    """Put the state that a run would resume from into the model; say so where there is one already.

    Raises:
        SRTrainError: if there is no such state, or it is of another network.
    """
    folder = RunFolder(_folder(cfg) / cfg.name)
    if cfg.resume == "none":
        try:
            folder.refuse_if_used()
        except ConfigError as err:
            log.warning("warning: %s", err)
        return
    found = find_resumed(cfg, folder)
    if found is not None:
        check_same_architecture(found, resolved)
        model.load_state_dict(found.state)
        log.info("resume: %s, step %d", found.path, found.state["step"])


def _light_parts(cfg: CheckConfig) -> list[str]:
    """Build what needs neither data nor network; return what is wrong with it."""
    metrics = components.metric_makers(cfg.metrics, cfg.plugins)
    return components.attempt_all({**metrics, **configured_makers(cfg)}).problems


def _steps(
    cfg: CheckConfig, resolved: dict[str, Any], model: SRModel, sets: dict[str, Any]
) -> list[str]:
    """Try each part, rehearse validation and save, take a step, measure memory."""
    try:
        with rehearsal_folder(_folder(cfg)) as folder:
            return _rehearsed(cfg, resolved, folder, model, sets)
    except SRTrainError as err:
        return [str(err)]
    except RuntimeError as err:
        if not is_out_of_memory(err):
            raise
        return [
            f"data.batch_size={cfg.data.batch_size}, data.lq_size={cfg.data.lq_size}: not even a "
            "small step fits into the device's memory; take a smaller network"
        ]


def _rehearsed(
    cfg: CheckConfig,
    resolved: dict[str, Any],
    folder: RunFolder,
    model: SRModel,
    sets: dict[str, Any],
) -> list[str]:
    rehearsal = Rehearsal(cfg, resolved, folder, model, sets)
    trainer = rehearsal.build()
    problems = rehearsal.found.problems
    samples = _samples(cfg, model, sets["data.train"], problems)
    if trainer is None:
        return problems
    size = 0
    faults: list[str] = []
    if samples:
        batches = toy_batches(cfg, samples[0])
        faults, batch = try_parts(cfg, model, batches)
        problems += faults
        rehearsal.stream(trainer)
    works = bool(samples) and not any(text.startswith("arch") for text in faults)
    before = len(problems)
    rehearsal.validate(trainer, with_network=works)
    if works and not any(text.startswith("arch") for text in problems[before:]):
        problems += size_problems(model, cfg.tiling, rehearsal.validation_sets) or spec_problems(
            model
        )
    if samples and not faults:
        optimizer = model.generator.optimizer  # all else has been seen to work
        with rehearsal.found.about("optimizer", type(optimizer).__name__):
            problems += toy_step(cfg, model, samples[0], batch)
            rehearse_callbacks(rehearsal, trainer, batch)
            problems += _disk_problems(cfg, model)
            size = rehearsal.save(trainer) if _has_room(model) else 0
    rehearsal.close(trainer)
    _tell_rehearsal(rehearsal, size)
    if problems:
        return problems
    return _disk_problems(cfg, model) + real_step(
        cfg, model, samples[0], takes_small=batch is batches[0]
    )


def _samples(
    cfg: CheckConfig, model: SRModel, dataset: Any, problems: list[str]
) -> list[dict[str, Tensor]]:
    """Return a few training samples; none where they are not what the network is fed."""
    samples, faults = [], []
    for index in range(min(len(dataset), _SAMPLES)):
        try:
            with naming("data.train", dataset, partial(str, f"sample(0, {index})")):
                sample = dataset.sample(0, index)
        except SRTrainError as err:
            faults.append(str(err))
            continue
        faults += sample_problems(sample, cfg, model.spec)
        samples.append(sample)
    problems += dict.fromkeys(faults)
    return [] if faults else samples


def _tell_rehearsal(rehearsal: Rehearsal, size: int) -> None:
    """Say what was rehearsed."""
    looked_at = "; ".join(
        f"{path}: {', '.join(f'{item.name} ({item})' for item in items)}"
        for path, items in rehearsal.items.items()
    )
    if looked_at:
        log.info("first validation, rehearsed on %s", looked_at)
    if size:
        log.info("first save, rehearsed: a state of %s, read again and taken up", shown_size(size))


def _has_room(model: SRModel) -> bool:
    """Whether a state fits into memory as often as saving and reading it takes; say so if not."""
    state, free = Static.of(model).state, available_bytes()
    if _COPIES * state <= free:
        return True
    log.info(
        "first save: not rehearsed, a state takes %s and %s of memory are free",
        shown_size(state),
        shown_size(free),
    )
    return False


def _disk_problems(cfg: CheckConfig, model: SRModel) -> list[str]:
    """Tell where the states that a run keeps do not fit onto the disk."""
    folder = _folder(cfg)
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    state = Static.of(model).state
    wanted, free = (cfg.train.keep_last + 1) * state, shutil.disk_usage(existing).free
    if wanted <= free:
        return []
    return [
        f"train.keep_last={cfg.train.keep_last}: so many states and the one being written take "
        f"{shown_size(wanted)}, {shown_size(free)} are free at {existing}"
    ]
