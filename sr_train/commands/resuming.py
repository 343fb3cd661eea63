"""Finding the state that a run resumes from, and restoring it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_train.api.callback import Callback
from sr_train.api.errors import CheckpointError, ConfigError
from sr_train.config.schema import RunConfig
from sr_train.engine.callbacks import restore_callbacks
from sr_train.engine.checkpoint import (
    flat_differences,
    newest_state,
    read_state,
    states,
    step_of,
)
from sr_train.engine.distributed import World
from sr_train.engine.model import SRModel
from sr_train.engine.randomness import set_random_states
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.state_health import DIVERGED, StateHealth, read_healthy, went_back
from sr_train.engine.weights import read_weights
from sr_train.io.files import set_aside

log = logging.getLogger(__name__)

FIXED = ("scale", "arch")
"""Config keys under which a resumed run may not differ from the stored one."""

FREE_WITHIN_FIXED = ("arch.gradient_checkpointing",)
"""What changes only memory and speed, so that a resumed run may change it."""


@dataclass(frozen=True)
class ResumeState:
    """A stored state that a run resumes from."""

    path: Path
    state: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """Its resolved config, in the names of today."""
        config: dict[str, Any] = self.state["config"]
        return config


def find_resumed(cfg: RunConfig, folder: RunFolder) -> ResumeState | None:
    """Find the state to resume from, or make sure that the run's folder is free.

    Raises:
        ConfigError: if the folder is not free, or holds weights that a new run would overwrite.
        CheckpointError: if there are states and none is whole.
    """
    if cfg.resume == "none":
        folder.refuse_if_used()
        return None
    path = Path(cfg.resume).expanduser()
    if cfg.resume == "auto" or path.resolve() == folder.root.resolve():
        return _newest(folder, cfg.resume)
    if not path.resolve().is_relative_to(folder.root.resolve()):
        folder.refuse_if_used()  # two runs in one folder would mix their states
    if path.is_dir():
        found = newest_state(path / "checkpoints" if (path / "checkpoints").is_dir() else path)
        if found is None:
            raise ConfigError(f"resume={path}: no training state in it")
        return ResumeState(*found)
    return ResumeState(path, read_state(path))


def _newest(folder: RunFolder, asked: str) -> ResumeState | None:
    """Return the newest state of a run, which may not have begun yet.

    Args:
        folder: of the run.
        asked: value of `resume`.
    """
    found = newest_state(folder.checkpoints)
    if found is not None:
        resumed = ResumeState(*found)
        if went_back(folder.checkpoints, resumed.state["step"]):
            log.info(
                "the run diverged after step %d: going back to that step; the states saved "
                "after it are in %s",
                resumed.state["step"],
                folder.checkpoints / DIVERGED,
            )
        return resumed
    weights = sorted(path.name for path in folder.checkpoints.glob("*.safetensors"))
    if weights:
        start = folder.checkpoints / (weights[-1] if "last.safetensors" in weights else weights[0])
        raise ConfigError(
            f"resume={asked}: {folder.checkpoints} holds weights ({', '.join(weights)}) but no "
            "training state to resume from, and a new run would overwrite them; to start a new run "
            f"from them: name=ANOTHER_NAME net_g.pretrained={start}"
        )
    log.info("resume=%s: no training state in %s; starting at step 0", asked, folder.checkpoints)
    return None


def health_of(folder: RunFolder, resumed: ResumeState | None, world: World) -> StateHealth:
    """Return what is known of the states in a run's folder; a collective."""
    found: tuple[list[int], int | None] = ([], None)
    if world.is_main:
        steps = [step_of(path) for path in states(folder.checkpoints)]
        found = steps, read_healthy(folder.checkpoints)
    steps, noted = world.broadcast(found)
    if resumed is None:
        return StateHealth(steps)
    told = [step for step in steps if step in (noted, resumed.state.get("healthy"))]
    return StateHealth(steps, max(told, default=None), resumed.state["step"])


def best_so_far(
    stored: Mapping[str, float | None], folder: RunFolder, world: World
) -> dict[str, float | None]:
    """Return the stored best values whose weights are there and whole; a collective.

    Those of others are written anew by the next validation.
    """
    best = dict(stored)
    for metric, value in stored.items() if world.is_main else ():
        path = folder.best_weights(metric)
        if value is None:
            continue
        try:
            read_weights(path)
        except CheckpointError as err:
            log.warning("warning: %s; the next validation writes it anew", err)
            best[metric] = None
            if path.is_file():
                set_aside(path, "damaged")
    return world.broadcast(best)


def broadcast_checkpoint(found: ResumeState | None, world: World) -> ResumeState | None:
    """Return on every rank the state that rank 0 found; the others read it from the same path."""
    path = world.broadcast(None if found is None else found.path)
    with world.together():
        if path is not None and found is None:
            return ResumeState(path, read_state(path))
    return found


def check_same_architecture(resumed: ResumeState, resolved: Mapping[str, Any]) -> None:
    """Raise if the stored run trained another network.

    Raises:
        ConfigError: listing each difference under `scale` and `arch`.
    """
    stored, now = map(_fixed, _stored_and_now(resumed, resolved))
    faults = [
        f"{key}: stored {before!r}, now {after!r}"
        for key, before, after in flat_differences(stored, now)
        if key not in FREE_WITHIN_FIXED
    ]
    if faults:
        raise ConfigError(
            f"resume: {resumed.path} is of another network, which cannot be resumed:\n  - "
            + "\n  - ".join(faults)
            + "\n  to start a new run from its weights: name=... "
            f"net_g.pretrained={resumed.path} net_g.strict=false"
        )


def _stored_and_now(
    resumed: ResumeState, resolved: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both configs; a discriminator that only one of them has is free to differ."""
    stored, now = dict(resumed.config), dict(resolved)
    archs = [config["discriminator"]["arch"] for config in (stored, now)]
    if None not in archs:
        stored["discriminator.arch"], now["discriminator.arch"] = archs
    return stored, now


def _fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in (*FIXED, "discriminator.arch") if name in config}


def restore(
    model: SRModel,
    callbacks: Mapping[str, Callback],
    resumed: ResumeState,
    resolved: Mapping[str, Any],
    world: World,
) -> dict[str, float | None]:
    """Put a stored state into the model; print what was kept and how the config differs.

    Returns:
        The stored best value of each metric.
    """
    state = resumed.state
    notes = model.load_state_dict(state)
    notes += restore_callbacks(callbacks, state["callbacks"])
    numbers = {"seed": resolved["seed"], "step": state["step"]}
    set_random_states(state["random"], world, model.device, **numbers)
    log.info("resumed from %s at step %d: %s", resumed.path, state["step"], "; ".join(notes))
    if state["precision"] != model.precision.name:
        log.info("precision: was %s, now %s", state["precision"], model.precision.name)
    for key, before, after in flat_differences(resumed.config, dict(resolved)):
        if key != "resume":
            log.info("config: %s was %r, now %r", key, before, after)
    return dict(state["best"])
