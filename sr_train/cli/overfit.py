"""`overfit`: prove that a network can learn a handful of samples."""

from omegaconf import DictConfig

from sr_train.api.errors import Problems
from sr_train.cli.reporting import reported
from sr_train.cli.running import Request, run_job
from sr_train.config.compose import typed
from sr_train.config.schema import OverfitConfig


@reported
def job(cfg: DictConfig) -> None:
    """Train on a few samples."""
    from sr_train.config.preflight import overfit_problems  # imports torch; --help needs none

    config = typed(cfg, OverfitConfig)
    problems = overfit_problems(config)
    if problems:
        raise Problems(problems)
    from sr_train.commands.overfit import run_overfit

    run_overfit(config)


def main(request: Request) -> None:
    """Compose, then train on a few samples."""
    run_job(request, job)
