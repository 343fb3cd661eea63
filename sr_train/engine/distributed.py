"""Several processes that train as one: who they are, what they agree on, how they end.

One process is a `World` of size 1, which needs no process group and whose every method is free.
"""

import contextlib
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sr_train.api.errors import ConfigError, SRTrainError
from sr_train.api.text import first_few
from sr_train.engine import rank_errors
from sr_train.monitoring.meter import RunningSum
from sr_train.utils.launch import Launch, SharedError

CAPACITY = 512
"""Scalars that one reduction can hold."""

_HEAD = 2
_LOST = re.compile(r"gloo|closed by peer|connection (reset|refused)|broken pipe|timed out", re.I)

Item = TypeVar("Item")


class LostRankError(SRTrainError):
    """Another rank has ended or does not answer, so this one cannot continue."""


@dataclass(frozen=True)
class World:
    """The processes of a run and the place of this one among them.

    Every method but the properties is a collective: all ranks call it, in the same order.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that logs and writes files."""
        return self.rank == 0

    def gather(self, item: Item) -> list[Item]:
        """Return the picklable items of all ranks, by rank, on every rank."""
        if self.size == 1:
            return [item]
        items: list[Item | None] = [None] * self.size
        dist.all_gather_object(items, item)
        return items  # type: ignore[return-value]

    def gather_to_main(self, item: Item) -> list[Item]:
        """Return the picklable items of all ranks on rank 0; an empty list elsewhere."""
        if self.size == 1:
            return [item]
        items: list[Item | None] | None = [None] * self.size if self.is_main else None
        dist.gather_object(item, items)
        return items or []  # type: ignore[return-value]

    def broadcast(self, item: Item | None) -> Item:
        """Return rank 0's picklable item on every rank; the others' is not looked at."""
        items = [item]
        if self.size > 1:
            dist.broadcast_object_list(items)
        return items[0]  # type: ignore[return-value]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run a block on every rank and end all of them where one meets a user's error.

        The block itself must hold no collective.

        Raises:
            SharedError: on every rank, with the words of the ranks that failed.
        """
        fault: SRTrainError | None = None
        try:
            yield
        except SRTrainError as err:
            if self.size == 1:
                raise
            fault = err
        texts = self.gather(None if fault is None else str(fault))
        failed = {rank: text for rank, text in enumerate(texts) if text is not None}
        if len(failed) == self.size and len(set(failed.values())) == 1:
            raise SharedError(failed[0]) from fault
        if failed:
            told = "\n".join(f"rank {rank}: {text}" for rank, text in failed.items())
            raise SharedError(told) from fault

    def combine(self, sums: Mapping[str, RunningSum]) -> dict[str, RunningSum]:
        """Add up the sums of all ranks by name, in one collective.

        The sums are the same to the last bit on every rank.

        Args:
            sums: by name; every rank has the same names, in any order. None at all is fine.

        Raises:
            SharedError: naming each rank and the names that it lacks, or too many names.
        """
        if self.size == 1:
            return dict(sums)
        names = sorted(sums)
        row = [0.0] * (_HEAD + 3 * CAPACITY)
        row[:_HEAD] = float(len(names)), _digest(names)
        for i, name in enumerate(names[:CAPACITY]):
            each = sums[name]
            row[_HEAD + 3 * i : _HEAD + 3 * (i + 1)] = each.total, each.count, each.non_finite
        rows = self._gather_rows(row)
        if max(row[0] for row in rows) > CAPACITY:
            most = int(max(row[0] for row in rows))
            raise SharedError(f"{most} scalars in one log window; at most {CAPACITY} can be kept")
        if len({tuple(row[:_HEAD]) for row in rows}) > 1:
            raise SharedError(_name_differences(self.gather(names)))
        return {
            name: _sum([row[_HEAD + 3 * i : _HEAD + 3 * (i + 1)] for row in rows])
            for i, name in enumerate(names)
        }

    def _gather_rows(self, row: Sequence[float]) -> list[list[float]]:
        # On the host: the numbers are there already, in full precision, and every build has Gloo.
        mine = torch.tensor(row, dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(rows, mine)
        return [gathered.tolist() for gathered in rows]


def reduce_scalars(
    values: Mapping[str, Tensor | float | RunningSum], world: World
) -> dict[str, float]:
    """Average scalars by name over all ranks, in one collective.

    Args:
        values: by name: a float, an int, a tensor of any shape (its mean, weighted by how many
            elements it has), or a `RunningSum`: a sum with its own count. Inf and NaN are left out.
        world: the ranks.

    Returns:
        Means, the same on every rank; a name without one finite value is absent.

    Raises:
        SharedError: if the ranks differ in names.
    """
    sums = world.combine({name: _running_sum(value) for name, value in values.items()})
    return {name: each.total / each.count for name, each in sums.items() if each.count}


def start_world(device: torch.device, timeout_sec: float = 600.0) -> World:
    """Join the processes that torchrun started with this one; do nothing for a single one.

    Python objects and scalars travel by Gloo, gradients on CUDA by NCCL.

    Args:
        device: of this rank, see `device_of_rank`.
        timeout_sec: a collective that takes longer ends the run.

    Raises:
        LostRankError: if the others cannot be reached.
    """
    launch = Launch.from_environment()
    if not launch.several:
        return World()
    if launch.rank == 0:
        rank_errors.post(rank_errors.BEFORE, "")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend,
            rank=launch.rank,
            world_size=launch.size,
            timeout=timedelta(seconds=timeout_sec),
        )
    except (RuntimeError, ValueError) as err:
        raise LostRankError(
            f"the {launch.size} processes of this run did not find each other: {err}"
        ) from err
    return World(launch.rank, launch.size, launch.local_rank)


def stop_world(world: World) -> None:
    """Leave the process group; every rank does so after its last collective."""
    if world.size > 1:
        dist.destroy_process_group()


def device_of_rank(device: torch.device) -> torch.device:
    """Return the device of this rank: with several processes, each has a GPU of its own.

    Raises:
        ConfigError: where there are fewer GPUs than processes, or for a kind that serves only one.
    """
    launch = Launch.from_environment()
    if not launch.several or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ConfigError(f"device={device}: cannot be shared by {launch.size} processes; use cpu")
    if device.index is not None:
        raise ConfigError(f"device={device}: each process takes its own GPU; write device=cuda")
    count = torch.cuda.device_count()
    if launch.local_rank >= count:
        raise ConfigError(
            f"device=cuda: this machine has {count}, process {launch.local_rank} on it finds "
            f"none; start at most {count} processes here (torchrun --nproc-per-node={count})"
        )
    return torch.device("cuda", launch.local_rank)


def fault_of_ranks(err: BaseException) -> SRTrainError | None:
    """Return what to report of an error that only several ranks meet; else None."""
    if isinstance(err, RuntimeError) and "find_unused_parameters" in str(err):
        return SharedError(
            "some weights got no gradient in a step (a warning of the first step names them), "
            "which several processes wait for; set distributed.find_unused=true, or freeze them"
        )
    return lost_rank(err)


def lost_rank(err: BaseException) -> LostRankError | None:
    """Return what to report of an error of a collective whose partner is gone; else None.

    Gloo raises plain RuntimeErrors, so they are known by their words.
    """
    if not dist.is_initialized() or not isinstance(err, RuntimeError):
        return None
    if not isinstance(err, dist.DistError) and not _LOST.search(str(err)):
        return None
    last = str(err).strip().splitlines()[-1]
    return LostRankError(
        "another rank has ended or does not answer, so this one ends too; see what it said, then "
        f"resume with resume=auto ({last})"
    )


def _running_sum(value: Tensor | float | RunningSum) -> RunningSum:
    if isinstance(value, RunningSum):
        return value
    if isinstance(value, Tensor):
        return RunningSum.of(value.detach().flatten().tolist())
    return RunningSum.of([float(value)])


def _sum(parts: Sequence[Sequence[float]]) -> RunningSum:
    totals, counts, non_finite = zip(*parts, strict=True)
    return RunningSum(math.fsum(totals), int(sum(counts)), int(sum(non_finite)))


def _digest(names: Sequence[str]) -> float:
    """Return a number below 2**48 that differs, as good as surely, where the names do."""
    digest = hashlib.blake2b("\n".join(names).encode(), digest_size=6).digest()
    return float(int.from_bytes(digest, "big"))


def _name_differences(names: Sequence[Sequence[str]]) -> str:
    every = {name for row in names for name in row}
    lines = []
    for rank, row in enumerate(names):
        missing = sorted(every - set(row))
        if missing:
            shown = first_few(missing)
            lines.append(f"rank {rank} did not log {shown}, which another rank did")
    return "the ranks of this run log different scalars:\n  - " + "\n  - ".join(lines)
