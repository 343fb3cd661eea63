"""Arguments of data sets as a config has them: what is of the wrong kind is named."""

from collections.abc import Mapping, Sequence
from typing import Any

from sr_train.api.errors import DataError

Texts = str | Sequence[str]
"""One or several."""

Range = tuple[int, int | None]


def texts(what: str, value: Texts) -> list[str]:
    """Return one or several texts of a config as a list.

    Raises:
        DataError: something else, or an empty one; names `what`.
    """
    each = [value] if isinstance(value, str) else value
    if not isinstance(each, Sequence) or isinstance(each, bytes):
        raise DataError(
            f"{what}: expected text or a list of texts, got {value!r}; write it in quotes"
        )
    for text in each:
        if not isinstance(text, str):
            kind = type(text).__name__
            raise DataError(f"{what}: expected text, got {text!r} ({kind}); write it in quotes")
        if not text.strip() or "\0" in text:
            raise DataError(f"{what}: expected a name, got the empty text {text!r}")
    return list(each)


def mapping(what: str, value: Mapping[str, Any] | None, example: str) -> dict[str, Any]:
    """Return a mapping of names; none at all is empty.

    Raises:
        DataError: something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise DataError(f"{what}: expected names with their values, {example}, got {value!r}")
    return dict(value)


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    """Raise where a word is none of those that can be.

    Raises:
        DataError: naming `what`.
    """
    if value not in choices:
        raise DataError(f"{what} must be {' or '.join(choices)}, got {value!r}")


def check_positive(values: Mapping[str, int | None]) -> None:
    """Raise where a number is below 1; None is none.

    Raises:
        DataError: naming the first of them.
    """
    for what, value in values.items():
        if value is not None and value < 1:
            raise DataError(f"{what} must be at least 1, got {value}")


def strides(value: int | Sequence[int]) -> list[int]:
    """Return one or several distances between frames as a list.

    Raises:
        DataError: one that is no whole number above 0.
    """
    each = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not each or not all(type(step) is int and step > 0 for step in each):
        raise DataError(f"stride: expected a whole number above 0, or several, got {value!r}")
    return each


def ranges(value: Mapping[str, Sequence[int | None]] | None) -> dict[str, Range]:
    """Return ranges as pairs by pattern.

    Raises:
        DataError: one that is no [first, end].
    """
    pairs: dict[str, Range] = {}
    for pattern, limits in mapping("ranges", value, "{NAME: [0, 80]}").items():
        is_pair = isinstance(limits, Sequence) and not isinstance(limits, str) and len(limits) == 2
        if not is_pair or type(limits[0]) is not int or type(limits[1]) not in (int, type(None)):
            raise DataError(f"ranges: {pattern!r}: expected [first, end], got {limits!r}")
        pairs[pattern] = (limits[0], limits[1])
    return pairs
