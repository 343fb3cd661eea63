"""Composing by Hydra, with everything looked at that Hydra would act on by itself."""

import copy
from dataclasses import astuple, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import (
    CachingConfigRepository,
    ConfigRepository,
    IConfigRepository,
)
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sr_train.api.errors import ConfigError, Problems
from sr_train.config.hydra_node import check_hydra_node, check_search_path
from sr_train.config.paths import name_problems
from sr_train.config.schema import store_schemas
from sr_train.config.sources import hidden_by_shipped, search_path


class ComposeError(Exception):
    """A config did not compose.

    Args:
        cause: what Hydra, OmegaConf or a file's reader raised.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Repository(ConfigRepository):
    """Sources that are read once, and lists of defaults that are merged once.

    A command composes several times, mostly with the same choices of groups.
    """

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.read: dict[str, ConfigResult] = {}
        self.merged: dict[tuple[Any, ...], DictConfig] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Repository":
        return copy.copy(self)  # Hydra composes with a copy, whose sources it may replace

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a config, which is not to be changed, and its list of defaults."""
        found = self.read.get(config_path) or super().load_config(config_path)
        if found is None:
            return None
        self.read[config_path] = found
        return replace(found)


class Loader(ConfigLoaderImpl):
    """The way of every config of a command, those of a sweep's runs included.

    Args:
        config_dir: the user's own configs, beside the shipped ones.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        version.setbase("1.3")
        store_schemas()
        super().__init__(search_path(config_dir))
        self.repository = Repository(self.config_search_path)
        self.config_dir = config_dir
        self._overrides: list[str] = []

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a config.

        Raises:
            ComposeError: whatever went wrong. All of it stems from words and files of the user,
                so nothing of it is a defect to be reported as one.
        """
        self._overrides = overrides
        try:
            parsed = OverridesParser.create().parse_overrides(overrides)
            check_search_path(parsed)
            cfg = super().load_configuration(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
            if config_name is not None:  # Hydra's own help, of nobody's config
                check_hydra_node(cfg, parsed)
                self._check_files(cfg)
                _check_name(cfg)
        except Exception as err:
            raise ComposeError(err) from err
        return cfg

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        found = super()._load_single_config(default, repo)
        return replace(found, config=copy.deepcopy(found.config))  # Hydra takes it to pieces

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        assert isinstance(repo, CachingConfigRepository)
        assert isinstance(repo.delegate, Repository)
        merged, key = repo.delegate.merged, tuple(map(astuple, defaults))
        if key not in merged:
            merged[key] = super()._compose_config_from_defaults_list(defaults, repo)
        cfg = copy.deepcopy(merged[key])
        for override in OverridesParser.create().parse_overrides(self._overrides):
            if override.is_add() or override.is_force_add():
                _begin_entry(cfg, override)
        return cfg

    def _check_files(self, cfg: DictConfig) -> None:
        """Raise where a file of the user's is hidden by a shipped one."""
        if self.config_dir is None:
            return
        for group, options in cfg.hydra.runtime.choices.items():
            names = [options] if isinstance(options, str) else list(options or [])
            for name in names:
                hidden = hidden_by_shipped(self.config_dir, group, name)
                if hidden is not None:
                    raise ConfigError(
                        f"{hidden}: the shipped config of that name is the one that counts; give "
                        "yours another name"
                    )


def _begin_entry(cfg: DictConfig, override: Override) -> None:
    """Begin the new entry of a mapping whose entries have fields, such as `objective.mine`.

    OmegaConf begins it as a plain mapping, which it then refuses for not having those fields.
    """
    parts = override.key_or_group.split(".")
    most = len(parts) if isinstance(override.value(), dict) else len(parts) - 1
    for count in range(1, most):
        node = OmegaConf.select(cfg, ".".join(parts[:count]), throw_on_missing=False)
        if not isinstance(node, DictConfig):
            return
        kind, name = node._metadata.element_type, parts[count]
        if isinstance(kind, type) and is_dataclass(kind) and name not in node:
            node.merge_with({name: {}})
            return


def _check_name(cfg: DictConfig) -> None:
    """Raise for a name that is none of a folder, before Hydra makes that folder."""
    if "name" not in cfg:
        return
    try:
        name = cfg.name
    except OmegaConfBaseException:
        return  # reported when all values are resolved
    problems = name_problems(str(name))
    if problems:
        raise Problems(problems)
