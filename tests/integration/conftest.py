from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toys import Outcome, no_validation, toy_words


@pytest.fixture
def train(command: Callable[..., Outcome], in_folder: Path) -> Callable[..., Outcome]:
    """Return a function that trains the toy without validation, its settings amended."""
    words = no_validation(*toy_words(in_folder))
    return lambda *more: command("train", *words, *more)
