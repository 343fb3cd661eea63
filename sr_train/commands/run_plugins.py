"""Which packages of a user's own a run's network needs, known without being typed again.

To import a package is to run its code, and a weights file may come from anybody: none makes the
program import anything. A run's folder may come from anybody, too, but a folder that was copied or
unpacked is another one to the file system than the one that the run was started in, and no sender
can know which. So a run's plug-ins are taken from its folder where that is still the one in which
`train` noted them, and belongs to the user; otherwise they are to be typed.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sr_train.config.schema import RunConfig, UseConfig
from sr_train.monitoring.run_files import last_launch

log = logging.getLogger(__name__)

Use = TypeVar("Use", bound=UseConfig)


def origin(cfg: RunConfig, run_dir: Path) -> dict[str, object]:
    """Return what a launch notes in the manifest, for `with_plugins_of_run`."""
    return {
        "plugins": list(cfg.plugins),
        "working_directory": str(Path.cwd()),
        "folder_id": run_dir.stat().st_ino,
    }


def with_plugins_of_run(cfg: Use) -> Use:
    """Return the config with the plug-ins of the run that its checkpoint lies in, if any.

    Those are taken where `checkpoint` is a run's folder, or a file in its `checkpoints`.
    """
    run_dir = _run_of(Path(cfg.checkpoint).expanduser())
    if run_dir is None:
        return cfg
    launch = last_launch(run_dir / "manifest.json")
    wanted = [name for name in _names(launch) if name not in cfg.plugins]
    if not wanted:
        return cfg
    shown = ", ".join(wanted)
    if not _is_own(run_dir, launch):
        log.warning(
            "warning: %s was trained with plugins=[%s], but the folder is a copy or somebody "
            "else's: no package is imported because of it; add plugins=[%s] if you trust it",
            run_dir,
            shown,
            shown,
        )
        return cfg
    log.info("%s: plugins %s, as it was trained", run_dir, shown)
    there = launch.get("working_directory")
    if there != str(Path.cwd()):
        log.info("it was started in %s; where these are not found, work there", there)
    return replace(cfg, plugins=[*cfg.plugins, *wanted])


def _run_of(checkpoint: Path) -> Path | None:
    """Return the run's folder that a checkpoint is or lies in."""
    if checkpoint.is_dir():
        return checkpoint.parent if checkpoint.resolve().name == "checkpoints" else checkpoint
    parent = checkpoint.absolute().parent
    return parent.parent if parent.name == "checkpoints" else None


def _names(launch: Mapping[str, Any]) -> list[str]:
    plugins = launch.get("plugins")
    if not isinstance(plugins, list):
        return []
    return [name for name in plugins if isinstance(name, str) and _is_dotted(name)]


def _is_dotted(name: str) -> bool:
    return all(map(str.isidentifier, name.split(".")))


def _is_own(run_dir: Path, launch: Mapping[str, Any]) -> bool:
    """Whether a folder is the very one that a launch noted, and this user's."""
    status = run_dir.stat()
    is_mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return is_mine and launch.get("folder_id") == status.st_ino
