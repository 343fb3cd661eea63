"""A limit on what a constructor takes of memory: a wrong number must not end the process."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sr_train.utils.memory import available_bytes

_MAKES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
"""Functions whose first argument, or arguments, are a shape."""

_LEAST = 2**26
"""Bytes below which the system is not asked."""

_SAFE = 0.9
"""Share of the free memory that one tensor may take."""

_MOST_TENSORS = 20_000
"""Several times what any network has; a loop that makes them takes a second up to here."""


class WithinMemory(TorchFunctionMode):
    """Raise MemoryError where what is made inside would not fit into what is free.

    Linux promises more than there is, and ends the process once it is used.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _MAKES and args:
            self._count += 1
            if self._count > _MOST_TENSORS:
                raise MemoryError(f"more than {_MOST_TENSORS:,} tensors")
            _check_size(args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _check_size(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    shape = args[0] if isinstance(args[0], list | tuple) else args
    if kwargs.get("device") is not None or not all(isinstance(side, int) for side in shape):
        return  # of another device, or torch's to refuse
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    wanted = math.prod(shape) * dtype.itemsize
    if wanted < _LEAST or torch.get_default_device().type != "cpu":
        return
    free = available_bytes()
    if wanted > _SAFE * free:
        raise MemoryError(
            f"a tensor of {' x '.join(map(str, shape))} takes {wanted / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free"
        )
