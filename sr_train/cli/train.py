"""`train`: train a network, or go on with a run."""

import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sr_train.cli.reporting import reported
from sr_train.config.compose import plain, typed
from sr_train.config.preflight import run_problems
from sr_train.config.schema import RunConfig, store_schemas
from sr_train.ops.errors import Problems

log = logging.getLogger(__name__)

store_schemas()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="train")
@reported
def main(cfg: DictConfig) -> float | None:
    """Run Hydra's composition, then one training run; return the best metric for sweepers."""
    config = typed(cfg, RunConfig)
    problems = run_problems(config)
    if problems:
        raise Problems(problems)
    from sr_train.cli.training import run_training

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    return run_training(config, plain(cfg), run_dir)
