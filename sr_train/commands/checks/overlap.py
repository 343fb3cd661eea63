"""Files that two data sets have in common, by name or by content."""

import os
from collections.abc import Sequence

from sr_train.api.dataset import SetFile
from sr_train.api.text import one_line
from sr_train.io.files import read_ends

_BYTES = 1 << 16
_MOST_COMPARED = 20


def overlap(
    train: Sequence[SetFile], val: Sequence[SetFile], num_samples: int = 100
) -> tuple[int, int, tuple[str, str] | None]:
    """Count how many of a few files of one set are in another too, as they are or as copies.

    Args:
        train: of the larger set.
        val: of the set whose files are looked for.
        num_samples: of them that are looked at, spread evenly.

    Returns:
        How many were found, of how many, and the paths of the first pair.
    """
    by_size: dict[tuple[int, int | None], list[str]] = {}
    for file in train:
        by_size.setdefault((file.num_bytes, file.number), []).append(file.path)
    count = min(len(val), num_samples)
    looked_at = [val[(2 * place + 1) * len(val) // (2 * count)] for place in range(count)]
    found: list[tuple[str, str]] = []
    for file in looked_at:
        twin = _twin(file.path, by_size.get((file.num_bytes, file.number), []))
        if twin is not None:
            found.append((twin, file.path))
    return len(found), count, found[0] if found else None


def _twin(path: str, candidates: Sequence[str]) -> str | None:
    """Return what is the same file, or begins and ends alike, among files of one size."""
    if path in candidates:
        return path
    name = os.path.basename(path)
    namesakes = [each for each in candidates if os.path.basename(each) == name]
    likely = [*namesakes[:_MOST_COMPARED], *candidates[:_MOST_COMPARED]]
    ends = read_ends(path, _BYTES) if likely else None
    if ends is None:
        return None
    return next((each for each in likely if read_ends(each, _BYTES) == ends), None)


def overlap_warning(name: str, train: Sequence[SetFile], val: Sequence[SetFile]) -> str | None:
    """Return a line where a set for validation holds what is trained on.

    Args:
        name: config path of the set for validation.
        train: files of the training set's ground truth.
        val: files of the other's.
    """
    found, count, example = overlap(train, val)
    if example is None:
        return None
    same = one_line(example[1])
    if not _is_one_path(*example):
        same += f" (the same as {one_line(example[0])})"
    return (
        f"{name}: {found} of {count} files that were looked at are trained on too, such as {same}; "
        "scores on them say nothing about other images"
    )


def _is_one_path(one: str, other: str) -> bool:
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False
