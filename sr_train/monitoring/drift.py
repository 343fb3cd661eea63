"""How far weights move between two log lines."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class ParameterDrift:
    """L2 norm of the change of live parameters since the last reading.

    Args:
        parameters: watched; a copy of them is kept.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._live = [parameter.detach() for parameter in parameters]
        self._before = [parameter.clone() for parameter in self._live]

    def before(self) -> list[Tensor]:
        """Return the parameters of the last reading, on the CPU, for a state of the run."""
        return [parameter.cpu() for parameter in self._before]

    @torch.no_grad()
    def restore(self, before: Sequence[Tensor]) -> None:
        """Count from what a launch before counted from, if it watched the same parameters."""
        if [each.shape for each in before] == [each.shape for each in self._before]:
            for mine, stored in zip(self._before, before, strict=True):
                mine.copy_(stored)

    @torch.no_grad()
    def read(self) -> Tensor:
        """Return the norm as a tensor on the device and start a new interval."""
        norm = torch.nn.utils.get_total_norm(torch._foreach_sub(self._live, self._before))
        torch._foreach_copy_(self._before, self._live)
        return norm
