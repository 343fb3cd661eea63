"""The config that a run's folder holds, read so that `resume=runs/NAME` needs nothing else."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.config.old_names import in_new_names
from sr_train.config.schema_keys import default_groups
from sr_train.config.sources import SHIPPED
from sr_train.config.words import Word
from sr_train.config.yaml_files import read_yaml

_HELD_BY = {
    "dataset": ("data.train", "data.val"),
    "experiment": (),
    "search": (),
    "cluster": (),
    "debug": (),
}
"""What a group fills, where that is not the key of its name."""


@dataclass(frozen=True)
class StoredRun:
    """A run whose folder holds its config."""

    folder: Path
    config_file: Path
    config_dir: Path | None
    """Where that launch looked for the user's configs, if there is such a folder still."""

    def as_primary(self, command: str, replaced: Iterable[str]) -> str:
        """Make the stored config one that Hydra composes; return its name.

        Args:
            command: that resumes the run.
            replaced: groups that the command line chooses anew, whose stored values are left out.

        Raises:
            ConfigError: if the file cannot be read or is no config of a run.
        """
        stored = OmegaConf.to_container(read_yaml(self.config_file), resolve=False)
        assert isinstance(stored, dict)
        config = OmegaConf.create(in_new_names({str(key): value for key, value in stored.items()}))
        foreign = {"hydra", "defaults"} & {*config}
        if foreign:
            raise ConfigError(f"{self.config_file}: holds {foreign.pop()}, as no run's config does")
        for group in replaced:
            for key in _HELD_BY.get(group, (group,)):
                _drop(config, key)
        config.out_dir, config.name = str(self.folder.parent), self.folder.name
        own = OmegaConf.to_container(OmegaConf.load(SHIPPED / f"{command}.yaml"), resolve=False)
        assert isinstance(own, dict)
        kept = [item for item in own["defaults"] if _is_kept(item)]
        values = OmegaConf.to_container(config, resolve=False)
        assert isinstance(values, dict)
        node = {"defaults": [*kept, "_self_"], **values, "hydra": own["hydra"]}
        ConfigStore.instance().store(name=f"stored_{command}", node=node)
        return f"stored_{command}"


def stored_run(words: Sequence[str]) -> StoredRun | None:
    """Return the run that `resume=` names, where the words by themselves would be no whole config.

    A line that chooses an experiment or a network says by itself what to train.

    Raises:
        ConfigError: if it names no run, or one whose config is gone.
    """
    given = [Word.of(word) for word in words]
    named = [word.value for word in given if word.key == "resume" and word.value]
    if not named or named[-1] in {"none", "auto", "null"}:
        return None
    chosen = [word.group.split(".")[0] for word in given if word.prefix != "~"]
    if {"experiment", "arch"} & set(chosen):
        return None
    path = Path(str(named[-1]).strip("'\"")).expanduser()
    folder = _run_folder(path)
    if folder is None:
        raise ConfigError(f"resume={named[-1]}: {_no_run(path)}")
    launches = sorted(path.parent for path in folder.glob(".hydra/*/config.yaml"))
    if not launches:
        raise ConfigError(
            f"resume={named[-1]}: {folder / '.hydra'} holds no config of that run; type the line "
            "that it was started with, and resume=auto"
        )
    launch = _last_that_ran(launches, folder / "manifest.json")
    return StoredRun(folder, launch / "config.yaml", _config_dir(launch / "hydra.yaml"))


def _run_folder(path: Path) -> Path | None:
    """Return the run's folder that a path names, or lies in; None where there is none."""
    candidates = [path, path.parent] if path.is_dir() else [path.parent.parent]
    for folder in candidates:
        if path.exists() and (folder / "checkpoints").is_dir():
            return folder if folder.name not in {"", ".", ".."} else folder.resolve()
    return None


def _no_run(path: Path) -> str:
    """Say what there is instead of a run, and which run may be meant."""
    found = "is not the folder of a run" if path.exists() else "no such file or folder"
    runs = path if path.is_dir() else path.parent
    names = [each.parent.name for each in sorted(runs.glob("*/checkpoints"))]
    if names:
        return f"{found}{did_you_mean(path.name, names)}"
    return (
        f"{found}; expected auto, a run's folder, or a training state of one; where it is to start "
        "another run, say what that trains, too: arch=..."
    )


def _last_that_ran(launches: Sequence[Path], manifest: Path) -> Path:
    """Return the folder of the last launch that began to train.

    One that failed before it did leaves a config, too, but no entry in the manifest.
    """
    try:
        noted = json.loads(manifest.read_text())[-1]["config"]
    except (OSError, ValueError, LookupError, TypeError):
        noted = None
    return next((launch for launch in launches if f".hydra/{launch.name}" == noted), launches[-1])


def _config_dir(hydra_yaml: Path) -> Path | None:
    """Return the folder of the user's configs that a launch was given."""
    try:
        sources = OmegaConf.select(read_yaml(hydra_yaml), "hydra.runtime.config_sources") or []
        paths = [Path(str(s.path)) for s in sources if s.provider == "command-line"]
    except (ConfigError, AttributeError):
        return None
    return next((path for path in paths if path.is_dir()), None)


def _is_kept(item: Any) -> bool:
    """Whether an entry of a command's defaults stays: the schema, and what is said of Hydra."""
    return isinstance(item, str) and (item.startswith("schema_") or item == "command")


def _drop(config: DictConfig, key: str) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if isinstance(node, DictConfig) and name in list(node):
        del node[name]


def replaced_groups(command: str, words: Sequence[str]) -> list[str]:
    """Return the groups that words choose in the place of what is stored.

    `+objective=ldl` adds to a group that takes several, and replaces nothing.
    """
    defaults = default_groups(command)
    found = []
    for text in words:
        word = Word.of(text)
        adds = word.prefix == "+" and defaults.get(word.group) is True
        is_mapping = word.value is not None and word.value.lstrip().startswith("{")
        if word.group in defaults and word.value is not None and not adds and not is_mapping:
            found.append(word.group)
    return found
