"""`train`: train a network, or go on with a run; alone, or once for each value of a sweep."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sr_train.api.errors import Problems
from sr_train.cli.running import Request, run_job
from sr_train.cli.sweeping import ended_early, one_of_many
from sr_train.config.compose import plain, typed
from sr_train.config.schema import RunConfig


@one_of_many
def job(cfg: DictConfig) -> float | None:
    """Do one training run; return the best value of `best_metric`, for a search."""
    from sr_train.config.preflight import run_problems  # imports torch; --help needs none

    config = typed(cfg, RunConfig)
    problems = run_problems(config)
    if problems:
        raise Problems(problems)
    from sr_train.commands.train import run_training

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    return run_training(config, plain(cfg), run_dir)


def main(request: Request) -> None:
    """Compose the config and run it, or each of its runs."""
    try:
        run_job(request, job)
    except Exception as err:
        code = ended_early(err)
        if code is None:
            raise
        raise SystemExit(code) from err
