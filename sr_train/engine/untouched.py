"""Trying a network without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(*nets: nn.Module) -> Iterator[None]:
    """Leave buffers, gradients and random numbers as they were before the block."""
    kept = [(buffer, buffer.clone()) for net in nets for buffer in net.buffers()]
    parameters = [parameter for net in nets for parameter in net.parameters()]
    on_cuda = {p.device for p in parameters if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(list(on_cuda)):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        for parameter in parameters:
            parameter.grad = None
