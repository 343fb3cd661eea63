"""Composing by Hydra, with everything looked at that Hydra would act on by itself."""

from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sr_train.config.hydra_node import check_hydra_node, check_search_path
from sr_train.config.paths import name_problems
from sr_train.config.schema import store_schemas
from sr_train.config.sources import hidden_by_shipped, search_path
from sr_train.ops.errors import ConfigError, Problems


class ComposeError(Exception):
    """A config did not compose.

    Args:
        cause: what Hydra, OmegaConf or a file's reader raised.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Loader(ConfigLoaderImpl):
    """The way of every config of a command, those of a sweep's runs included.

    Args:
        config_dir: the user's own configs, beside the shipped ones.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        version.setbase("1.3")
        store_schemas()
        super().__init__(search_path(config_dir))
        self.config_dir = config_dir

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
                so nothing of it is a defect to be told as one.
        """
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


def _check_name(cfg: DictConfig) -> None:
    """Raise for a name that is none of a folder, before Hydra makes that folder."""
    if "name" not in cfg:
        return
    try:
        name = cfg.name
    except OmegaConfBaseException:
        return  # told when all values are resolved
    problems = name_problems(str(name))
    if problems:
        raise Problems(problems)
