"""`overfit`: prove that a network can learn a handful of samples."""

import hydra
from omegaconf import DictConfig

from sr_train.cli.reporting import reported
from sr_train.config.compose import typed
from sr_train.config.preflight import overfit_problems
from sr_train.config.schema import OverfitConfig, store_schemas
from sr_train.ops.errors import Problems

store_schemas()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="overfit")
@reported
def main(cfg: DictConfig) -> None:
    """Compose, then train on a few samples."""
    config = typed(cfg, OverfitConfig)
    problems = overfit_problems(config)
    if problems:
        raise Problems(problems)
    from sr_train.cli.overfitting import run_overfit

    run_overfit(config)
