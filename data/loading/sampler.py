"""Chance without state: the order in which a stream visits a set."""

import numpy as np


class InfiniteSampler:
    """A new permutation for every epoch, dealt out to the ranks one sample each in turn.

    The permutations follow each other without a gap, so no batch is short, sets smaller than a
    batch work, and all ranks are in the same place. Within an epoch no two ranks meet a sample.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        """Set up the order; costs nothing until it is asked.

        Args:
            size: samples in an epoch.
            seed: of the permutations, which depend only on (seed, epoch).
            rank: takes elements rank, rank + world_size, ... of the endless order.
            world_size: number of ranks.
        """
        if size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"bad size {size}, or rank {rank} of {world_size}")
        self._size = size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)

    def batch(self, number: int, batch_size: int) -> list[tuple[int, int]]:
        """Return the (epoch, index) of batch `number` of this rank, counted from 0."""
        first = number * batch_size
        return [self._at(first + place) for place in range(batch_size)]

    def _at(self, place: int) -> tuple[int, int]:
        epoch, offset = divmod(place * self._world_size + self._rank, self._size)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            self._permutation = generator.permutation(self._size)
            self._epoch = epoch
        return epoch, int(self._permutation[offset])
