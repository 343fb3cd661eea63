"""`export`: write a network's weights as .safetensors."""

import hydra
from omegaconf import DictConfig

from sr_train.cli.reporting import reported
from sr_train.cli.run_plugins import with_plugins_of_run
from sr_train.config.compose import typed
from sr_train.config.preflight import use_problems
from sr_train.config.schema import ExportConfig, store_schemas
from sr_train.ops.errors import Problems

store_schemas()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="export")
@reported
def main(cfg: DictConfig) -> None:
    """Compose, then write."""
    from sr_train.monitoring.console import start_logging

    start_logging()
    config = with_plugins_of_run(typed(cfg, ExportConfig))
    problems = use_problems(config)
    if problems:
        raise Problems(problems)
    from sr_train.cli.using import run_export

    run_export(config)
