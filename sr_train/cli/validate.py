"""`validate`: score a network on test sets."""

import hydra
from omegaconf import DictConfig

from sr_train.cli.reporting import reported
from sr_train.config.schema import store_schemas

store_schemas()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="validate")
@reported
def main(cfg: DictConfig) -> None:
    """Compose, then score."""
    from sr_train.cli.using import run_validate

    run_validate(cfg)
