"""How far two results of the same arithmetic may lie apart, whatever the processor."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11}
UNIT[torch.bfloat16] = 2.0**-8
"""Largest relative error of one rounding."""


def assert_rounded_alike(
    found: Tensor,
    expected: Tensor,
    roundings: float,
    size: float | None = None,
    name: str = "",
    dtype: torch.dtype | None = None,
) -> None:
    """Assert that two tensors differ by rounding alone; else show the most, where, and the bound.

    Whole numbers must be equal.

    A sum of n terms that is added up in any order is off by at most n - 1 roundings of the sum of
    their magnitudes, and by some root of that many as errors have either sign (Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, sections 4.2 and 2.8).

    Args:
        found: of the dtype of `expected`.
        expected: what it is compared to.
        roundings: how many of them a value may be off by.
        size: of what is rounded, where values are what remains of larger terms; None: the largest
            magnitude in `expected`.
        name: of the tensor.
        dtype: in which was computed; None: that of `expected`.
    """
    size = float(expected.abs().max()) if size is None else size
    bound = roundings * UNIT.get(dtype or expected.dtype, 0.0) * size
    torch.testing.assert_close(
        found,
        expected,
        rtol=0.0,
        atol=bound,
        msg=lambda words: f"{name} {words}\nThe bound is {roundings:g} roundings of {size:g}.",
    )


def assert_identical(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Assert that tensors by name are equal bit for bit; else show name, numbers and places."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=0.0, atol=0.0, msg=lambda words, name=name: f"{name}: {words}"
        )


def sum_of_magnitudes(net: nn.Module, x: Tensor) -> float:
    """Return the largest sum of magnitudes of which a value of a linear network is what is left."""
    positive = copy.deepcopy(net)
    with torch.no_grad():
        for weights in positive.parameters():
            weights.abs_()
        return float(positive(x.abs()).max())
