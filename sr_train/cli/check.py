"""`check`: look for every problem of a run before it starts."""

import hydra
from omegaconf import DictConfig

from sr_train.cli.reporting import reported
from sr_train.config.schema import store_schemas

store_schemas()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="check")
@reported
def main(cfg: DictConfig) -> None:
    """Compose, then look."""
    from sr_train.cli.checking import run_check

    run_check(cfg)
