"""Seeds, and the state of every random generator a step may draw from, on every rank."""

import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sr_train.engine.distributed import World

log = logging.getLogger(__name__)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - users' own components may draw from it
    torch.manual_seed(seed)


def seed_rank(seed: int, step: int, world: World) -> None:
    """Give each rank numbers of its own; a single process keeps those it has.

    Call it once the weights are there, which all ranks draw alike.
    """
    if world.size > 1:
        entropy = np.random.SeedSequence([seed, world.rank, step])
        seed_everything(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of this process's generators as tensors and plain Python.

    Args:
        device: of the run; those of GPUs are left as they are where it is none.
    """
    algorithm, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (algorithm, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator back; those of GPUs where the run is on one and their count is the same.

    Args:
        state: of `random_state`.
        device: of the run.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def random_states(world: World, device: torch.device) -> list[dict[str, Any]]:
    """Return the states of all ranks, by rank, on rank 0; an empty list elsewhere."""
    return world.gather_to_main(random_state(device))


def set_random_states(
    states: Sequence[dict[str, Any]],
    world: World,
    device: torch.device,
    *,
    seed: int,
    step: int,
) -> None:
    """Put back the state of this rank; another number of ranks starts from new seeds."""
    if len(states) == world.size:
        set_random_state(states[world.rank], device)
        return
    seed_everything(seed)
    seed_rank(seed, step, world)
    log.info(
        "random numbers: stored by %d processes, now %d; seeded anew from seed=%d and step %d",
        len(states),
        world.size,
        seed,
        step,
    )
