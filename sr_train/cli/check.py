"""`check`: look for every problem of a run before it starts."""

from omegaconf import DictConfig

from sr_train.cli.reporting import reported
from sr_train.cli.running import Request, run_job


@reported
def job(cfg: DictConfig) -> None:
    """Look."""
    from sr_train.commands.check import run_check

    run_check(cfg)


def main(request: Request) -> None:
    """Compose, then look."""
    run_job(request, job)
