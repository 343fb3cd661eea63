"""The commands: what each is for, which module does it, and what its command line may ask for."""

import importlib
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig


@dataclass(frozen=True)
class Command:
    """A word after `python -m sr_train`.

    Args:
        module: of `sr_train.commands`, whose `run(cfg)` does it; torch is imported with it.
        help: in one line.
        of_a_run: reads the config of a training run, and takes that of a run's folder.
        several: may run in several processes that torchrun started.
        sweeps: may run once for each value of a sweep.
    """

    module: str
    help: str
    of_a_run: bool = False
    several: bool = False
    sweeps: bool = False

    def __call__(self, cfg: DictConfig) -> Any:
        """Do it, as its config says."""
        return importlib.import_module(f"sr_train.commands.{self.module}").run(cfg)


COMMANDS = {
    "train": Command(
        "train",
        "train a network, or resume a run (resume=auto)",
        of_a_run=True,
        several=True,
        sweeps=True,
    ),
    "validate": Command("validate", "score a network on test sets", several=True),
    "infer": Command("infer", "use a network on an image, a video or a folder"),
    "export": Command("export", "write a network's weights as .safetensors"),
    "check": Command("check", "look for every problem of a run before it starts", of_a_run=True),
    "overfit": Command(
        "overfit", "prove that a network can learn a handful of samples", of_a_run=True
    ),
}

HELP = {
    **{name: command.help for name, command in COMMANDS.items()},
    "config": "list the configs to choose from, or print their JSON Schema for editors",
}
"""Every word after `python -m sr_train`; `config` answers at once and composes nothing."""
