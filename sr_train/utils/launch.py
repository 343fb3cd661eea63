"""What torchrun, srun or submitit says about this process, read without importing torch."""

import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from sr_train.api.errors import SRTrainError

_PR_SET_PDEATHSIG = 1


class Launch(NamedTuple):
    """The place of this process among those that were started together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Place among the processes of this machine: the number of its GPU."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read RANK, WORLD_SIZE and LOCAL_RANK; without them, one process on its own."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return cls()
        rank = int(os.environ["RANK"])
        return cls(
            rank, int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", str(rank)))
        )

    @property
    def several(self) -> bool:
        """Whether other processes were started with this one."""
        return self.size > 1


class SharedError(SRTrainError):
    """An error that every rank raises with the same words, so that one of them reports it."""


class Stopped(SystemExit):
    """A run that a signal has ended, all saved: exit code 0, and no next run of a sweep."""

    def __init__(self, name: str) -> None:
        super().__init__(0)
        self.signal = name


def adopt_srun() -> None:
    """Repeat in torchrun's words what srun says, where it started the processes of one run.

    Only steps count: the script of an sbatch job also has a SLURM_PROCID, but is one process.
    """
    count = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if "RANK" in os.environ or count == 1:
        return
    # The first node of the list runs rank 0. A port that all ranks can work out by themselves:
    job, step = (int(os.environ.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
    words = {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "MASTER_ADDR": _first_node(os.environ["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(12_000 + (job + step) % 20_000),
    }
    for name, word in words.items():
        os.environ.setdefault(name, word)


def end_with_launcher() -> None:
    """Get SIGTERM when torchrun, which started this process, is gone: nobody else would end it.

    Only Linux tells a process of its parent's end. Reference: prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform != "linux" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        signal.raise_signal(signal.SIGTERM)  # it ended before it could be watched


def _first_node(nodes: str) -> str:
    """Return `gpu07` for `gpu[07-09,12],login1`."""
    whole = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", whole[0] if whole else nodes)


def announcement() -> signal.Signals | None:
    """Return the signal by which submitit announces the end of a job; None outside of one."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def call(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function, as the target of a process of one's own.

    A process that is not forked unpickles its target first: of this package, so that the project's
    `data`, `losses` and `archs` are found before anything of them is unpickled.
    """
    function(*arguments)
