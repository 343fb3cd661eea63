"""What a launcher such as torchrun says about this process, read without importing torch."""

import os
from typing import NamedTuple, Self

from sr_train.ops.errors import SRTrainError


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
    """An error that every rank raises with the same words, so that one of them tells it."""
