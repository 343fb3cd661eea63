"""Scalars of a log window, kept on the device until they are read."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The means of a log window and how many values each rests on."""

    means: dict[str, float]
    """Mean over the finite values of each key; a key without a finite value is absent."""
    counts: dict[str, int]
    """Number of finite values behind each mean."""
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

    def read(self) -> Window:
        """Return the means since the last call and start a new window; empty before any value."""
        names = list(self._values)
        lengths = [len(self._values[name]) for name in names]
        flat = self._on_host([value for name in names for value in self._values[name]])
        self._values.clear()
        means, counts, non_finite = {}, {}, {}
        start = 0
        for name, length in zip(names, lengths, strict=True):
            values = flat[start : start + length]
            start += length
            finite = [value for value in values if math.isfinite(value)]
            if len(finite) < length:
                non_finite[name] = length - len(finite)
            if finite:
                means[name] = math.fsum(finite) / len(finite)
                counts[name] = len(finite)
        return Window(means, counts, non_finite)

    @staticmethod
    def _on_host(values: list[Tensor | float]) -> list[float]:
        positions = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
        tensors = [value.float() for value in values if isinstance(value, Tensor)]
        result = [0.0 if isinstance(value, Tensor) else float(value) for value in values]
        if tensors:
            for position, number in zip(positions, torch.stack(tensors).tolist(), strict=True):
                result[position] = number
        return result
