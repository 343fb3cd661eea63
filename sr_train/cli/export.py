"""`export`: write a network's weights as .safetensors."""

from omegaconf import DictConfig

from sr_train.api.errors import Problems
from sr_train.cli.reporting import reported
from sr_train.cli.running import Request, run_job
from sr_train.commands.run_plugins import with_plugins_of_run
from sr_train.config.compose import typed
from sr_train.config.schema import ExportConfig


@reported
def job(cfg: DictConfig) -> None:
    """Write."""
    from sr_train.config.preflight import use_problems  # imports torch; --help needs none
    from sr_train.monitoring.console import start_logging

    start_logging()
    config = with_plugins_of_run(typed(cfg, ExportConfig))
    problems = use_problems(config)
    if problems:
        raise Problems(problems)
    from sr_train.cli.using import run_export

    run_export(config)


def main(request: Request) -> None:
    """Compose, then write."""
    run_job(request, job)
