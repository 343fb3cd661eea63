"""How far weights move between two log lines."""

from collections.abc import Iterable

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

    @torch.no_grad()
    def read(self) -> Tensor:
        """Return the norm as a tensor on the device and start a new interval."""
        norm = torch.nn.utils.get_total_norm(torch._foreach_sub(self._live, self._before))
        torch._foreach_copy_(self._before, self._live)
        return norm
