"""Where configs come from: the shipped folder, and one of the user's beside it."""

import os
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, ListConfig

from sr_train.api.errors import ConfigError
from sr_train.config.packages import ROOT
from sr_train.config.yaml_files import header_of, read_yaml

SHIPPED = ROOT / "configs"

_PACKAGES = {
    "experiment": "_global_",
    "search": "_global_",
    "cluster": "_global_",
    "debug": "_global_",
    "dataset": "data",
}
"""Groups whose files speak of more than the group, and the package that the first line names."""


class ConfigFolder(ConfigSource):
    """A folder of config files, each of which is looked at before Hydra sees it."""

    @staticmethod
    def scheme() -> str:
        return "configs"

    def load_config(self, config_path: str) -> ConfigResult:
        path = self._file(config_path)
        header, config = header_of(path), read_yaml(path)
        _check_header(path, config_path.split("/")[0], header)
        _check_defaults(path, config)
        return ConfigResult(
            provider=self.provider, path=self.full_path(), config=config, header=header
        )

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return _is_inside(config_path) and os.path.isdir(os.path.join(self.path, config_path))

    def is_config(self, config_path: str) -> bool:
        return _is_inside(config_path) and self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for name in sorted(os.listdir(os.path.join(self.path, config_path))):
            self._list_add_result(
                files=found,
                file_path=os.path.join(config_path, name),
                file_name=name,
                results_filter=results_filter,
            )
        return sorted(set(found))

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))


def search_path(config_dir: Path | None) -> ConfigSearchPath:
    """Return where Hydra is to look: its own configs, the shipped ones, the user's.

    Raises:
        ConfigError: if the user's folder is none.
    """
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    Plugins.instance().register(ConfigFolder)
    found = ConfigSearchPathImpl()
    found.append("hydra", "pkg://hydra.conf")
    found.append("main", f"configs://{SHIPPED}")
    if config_dir is not None:
        if not config_dir.is_dir():
            raise ConfigError(f"--config-dir {config_dir}: no such folder")
        found.append("command-line", f"configs://{config_dir.absolute()}")
    found.append("schema", "structured://")
    return found


def hidden_by_shipped(config_dir: Path, group: str, option: str) -> Path | None:
    """Return the user's file that a shipped one of the same name hides, if it says otherwise."""
    name = Path(group, f"{option}.yaml")
    theirs, ours = config_dir / name, SHIPPED / name
    if theirs.is_file() and ours.is_file() and theirs.read_bytes() != ours.read_bytes():
        return theirs
    return None


def _is_inside(config_path: str) -> bool:
    """Whether a path of a config stays in its folder."""
    return not os.path.isabs(config_path) and ".." not in Path(config_path).parts


def _check_header(path: Path, group: str, header: dict[str, str | None]) -> None:
    wanted = _PACKAGES.get(group)
    if wanted is not None and path.parent.name == group and header["package"] is None:
        raise ConfigError(
            f"{path}: its first line is missing: # @package {wanted}  (without it, the file would "
            f"only speak of {group}.*)"
        )


def _value(node: Any) -> Any:
    return None if node is None else node._value()


def _check_defaults(path: Path, config: DictConfig) -> None:
    """Raise for a list of defaults that Hydra cannot read.

    Raises:
        ConfigError: naming the file.
    """
    if "defaults" not in list(config):  # `in` leaves out ???
        return
    example = "expected a list, such as [override /arch: compact]"
    defaults = config._get_node("defaults")
    if not isinstance(defaults, ListConfig) or defaults._is_none() or defaults._is_missing():
        raise ConfigError(f"{path}: defaults: {example}")
    for position in range(len(defaults)):
        item = defaults._get_node(position)
        if isinstance(item, DictConfig) and len(item) == 1:
            (chosen,) = (item._get_node(key) for key in item)
            names = list(chosen) if isinstance(chosen, ListConfig) else [_value(chosen)]
            fits = all(name is None or isinstance(name, str) for name in names)
        else:
            fits = not isinstance(item, DictConfig | ListConfig) and isinstance(_value(item), str)
        if not fits:
            raise ConfigError(f"{path}: defaults[{position}]: {example}")
