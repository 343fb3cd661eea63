"""What comparisons say where they fail."""

import pytest
import torch

from tests.closeness import assert_identical, assert_rounded_alike
from tests.toys import differing


def test_states_that_differ_are_shown_with_place_and_numbers():
    one = {"a": torch.tensor([1.0, 2.0]), "b": [1, {"c": torch.zeros(2)}], "d": torch.ones(1)}
    assert differing(one, one) == []
    other = {"a": torch.tensor([1.0, 2.5]), "b": [2, {"c": torch.zeros(3)}], "d": torch.ones(1)}
    assert differing(one, other) == [
        "/a 1 of 2, at most 2 and 2.5",
        "/b/0 1 2",
        "/b/1/c (2,) torch.float32, (3,) torch.float32",
    ]
    assert differing({"a": torch.tensor(torch.nan)}, {"a": torch.tensor(1.0)}) == [
        "/a 1 of 1, at most nan and 1"
    ]


def test_tensors_that_differ_are_shown_with_name_place_and_numbers():
    one = {"lq": torch.tensor([1, 2], dtype=torch.uint8)}
    assert_identical(one, one)
    with pytest.raises(AssertionError, match=r"lq: (.|\n)*1 / 2(.|\n)*: 1 at index \(1,\)"):
        assert_identical({"lq": torch.tensor([1, 3], dtype=torch.uint8)}, one)
    with pytest.raises(AssertionError, match=r"lq: (.|\n)*dtype"):
        assert_identical({"lq": torch.tensor([1.0, 2.0])}, one)
    with pytest.raises(AssertionError, match=r"w (.|\n)*index \(0,\)(.|\n)*4 roundings of 1"):
        assert_rounded_alike(torch.full((1,), 1.1), torch.ones(1), 4, name="w")
