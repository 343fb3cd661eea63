"""`infer`: use a network on pictures, folders and videos."""

import hydra
from omegaconf import DictConfig

from sr_train.cli.reporting import reported
from sr_train.cli.run_plugins import with_plugins_of_run
from sr_train.config.compose import typed
from sr_train.config.preflight import use_problems
from sr_train.config.schema import InferConfig, store_schemas
from sr_train.ops.errors import Problems

store_schemas()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="infer")
@reported
def main(cfg: DictConfig) -> None:
    """Compose, then upscale."""
    from sr_train.monitoring.console import start_logging

    start_logging()
    config = with_plugins_of_run(typed(cfg, InferConfig))
    problems = use_problems(config)
    if problems:
        raise Problems(problems)
    from sr_train.cli.inferring import run_infer

    run_infer(config)
