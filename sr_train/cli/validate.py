"""`validate`: score a network on test sets."""

from omegaconf import DictConfig

from sr_train.cli.reporting import reported
from sr_train.cli.running import Request, run_job


@reported
def job(cfg: DictConfig) -> None:
    """Score."""
    from sr_train.cli.using import run_validate

    run_validate(cfg)


def main(request: Request) -> None:
    """Compose, then score."""
    run_job(request, job)
