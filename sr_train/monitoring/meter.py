"""Scalars of a log window, kept on the device until they are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RunningSum:
    """What is known of one scalar: enough to average it over any number of processes."""

    total: float
    """Sum of the finite values."""
    count: int
    """Number of finite values."""
    non_finite: int = 0
    """Number of inf and NaN values."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "RunningSum":
        """Return the running sum of some numbers."""
        finite = [value for value in values if math.isfinite(value)]
        return cls(math.fsum(finite), len(finite), len(values) - len(finite))


Combine = Callable[[Mapping[str, RunningSum]], Mapping[str, RunningSum]]
"""Adds up the sums of all processes, by name; every process gets the sums."""


@dataclass(frozen=True)
class LogWindow:
    """The means of a log window and how many values each rests on."""

    means: dict[str, float]
    """Mean over the finite values of each key; a key without a finite value is absent."""
    counts: dict[str, int]
    """Number of finite values in each mean."""
    non_finite: dict[str, int]
    """Number of inf and NaN values per key, where there were any."""


class Meter:
    """Collect scalars by name; adding one never waits for the device.

    Values stay as they are added, tensors on their device, until `read` brings all of them over
    in one transfer. Every mean knows its own count.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor | float]] = {}

    def add(self, name: str, value: Tensor | float) -> None:
        """Append one value: a detached scalar tensor, a float or an int."""
        self._values.setdefault(name, []).append(value)

    def add_all(self, values: Mapping[str, Tensor | float]) -> None:
        """Append one value to each name."""
        for name, value in values.items():
            self.add(name, value)

    def mark(self) -> dict[str, int]:
        """Return how many values each name has, for `rewind`."""
        return {name: len(values) for name, values in self._values.items()}

    def rewind(self, mark: Mapping[str, int]) -> None:
        """Drop every value that was added since the mark."""
        for name in list(self._values):
            del self._values[name][mark.get(name, 0) :]
            if not self._values[name]:
                del self._values[name]

    def fold(self, mark: Mapping[str, int], parts: int) -> None:
        """Put the mean of every `parts` values that were added since the mark in their place.

        What was added once, as the gradient's norm is in a step, stays as it is.
        """
        for name, values in self._values.items():
            added = values[mark.get(name, 0) :]
            if parts > 1 and len(added) >= parts:
                groups = [added[at : at + parts] for at in range(0, len(added), parts)]
                values[mark.get(name, 0) :] = [sum(group) / len(group) for group in groups]

    def read(self, combine: Combine | None = None) -> LogWindow:
        """Return the means since the last call and start a new window; empty before any value.

        Args:
            combine: adds up what several processes measured, see
                `sr_train.engine.distributed.World.combine`; None: only this process.
        """
        sums: Mapping[str, RunningSum] = self._sums()
        self._values.clear()
        if combine is not None:
            sums = combine(sums)
        return LogWindow(
            {name: each.total / each.count for name, each in sums.items() if each.count},
            {name: each.count for name, each in sums.items() if each.count},
            {name: each.non_finite for name, each in sums.items() if each.non_finite},
        )

    def values(self, mark: Mapping[str, int] | None = None) -> dict[str, list[float]]:
        """Return the values since the last `read`, for a state of the run.

        Args:
            mark: leaves out what was added since; None: takes all.
        """
        flat = self._on_host([value for values in self._values.values() for value in values])
        found, start = {}, 0
        for name, values in self._values.items():
            most = len(values) if mark is None else mark.get(name, 0)
            found[name] = flat[start : start + len(values)][:most]
            start += len(values)
        return {name: values for name, values in found.items() if values}

    def restore(self, values: Mapping[str, Sequence[float]]) -> None:
        """Begin with the values of a window that a launch before did not come to the end of."""
        self._values = {name: list(found) for name, found in values.items()}

    def _sums(self) -> dict[str, RunningSum]:
        return {name: RunningSum.of(found) for name, found in self.values().items()}

    @staticmethod
    def _on_host(values: list[Tensor | float]) -> list[float]:
        positions = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
        tensors = [value.float() for value in values if isinstance(value, Tensor)]
        result = [0.0 if isinstance(value, Tensor) else float(value) for value in values]
        if tensors:
            for position, number in zip(positions, torch.stack(tensors).tolist(), strict=True):
                result[position] = number
        return result
