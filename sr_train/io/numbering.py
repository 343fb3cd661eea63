"""What the names of frames mean: scenes, order, gaps, and which frames belong together.

A name has no suffix here. Frames of one scene have names that differ in only one number, the frame
number: of `s01_f0001` that is 1, and the scene is `s01_f`. The rules, from the plain case on:

- Names that agree up to their first differing number, which no two share, are one scene numbered
  by it, whatever follows: `0001.png`, `0001x4.png`, `frame0001_t33333.png`. Where what follows
  repeats without being the same for all, as in `0001_left`, it marks scenes.
- Else names of different words are of different scenes. Among names of the same words, a number
  that several of them share marks scenes, and the first one after it that differs in all of a
  scene counts its frames: `00001_1`, `00001_2`, `00002_1`.
- Names without any number are one scene in natural order.
- Digits after a point are decimals where all names have equally many, at least three: seconds.

In a scene, frames are in the order of their numbers, zero-padded or not. Numbers that rise by 1.5
times the usual step or more have a gap there: no clip may cross it. The usual step is the one that
most steps are near, so that times rounded to microseconds have no gaps.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, pairwise

from sr_train.api.text import first_few
from sr_train.io.folders import natural_key

GAP = 1.5
"""Times the usual step from which on frames are missing."""

_DIGITS = re.compile(r"([0-9]+)")
_DECIMALS = re.compile(r"[0-9]\.([0-9]{3,})")
_SEPARATORS = "_-. "


@dataclass(frozen=True)
class FrameRun:
    """Frames that follow each other without a gap."""

    positions: tuple[int, ...]
    """Of the names, in the order of the frames."""
    numbers: tuple[int, ...] | None
    """By which they are ordered, rising; None where the names have none."""
    scene: str
    """What its names share beside the number; empty where there is only one scene."""
    after_gap: bool = False
    """Whether it continues the scene of the run before, after a gap."""


@dataclass(frozen=True)
class _Name:
    position: int
    whole: str
    texts: tuple[str, ...]
    """Around the numbers; one more than there are numbers."""
    digits: tuple[str, ...]

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(digits.replace(".", "")) for digits in self.digits)

    def around(self, column: int) -> tuple[str, str]:
        """Return what stands before and after one of its numbers."""
        pieces = [piece for pair in zip(self.texts, self.digits, strict=False) for piece in pair]
        pieces.append(self.texts[-1])
        return "".join(pieces[: 2 * column + 1]), "".join(pieces[2 * column + 2 :])


@dataclass(frozen=True)
class _Scene:
    names: Sequence[_Name]
    column: int | None
    """Which number counts its frames; None: its names have none."""


def find_runs(names: Sequence[str]) -> list[FrameRun]:
    """Return the runs of frames that names without suffix show, scene by scene.

    Args:
        names: in any order, all different.

    Returns:
        Runs whose positions are those of all names, each once; scenes in the natural order of
        their first frames, the runs of a scene one after the other.
    """
    scenes = _scenes(_split(names))
    ordered = sorted(map(_in_order, scenes), key=lambda each: natural_key(each[0][0].whole))
    labels = _labels(ordered)
    return [
        run
        for (frames, column), label in zip(ordered, labels, strict=True)
        for run in _cut(frames, column, label)
    ]


def usual_step(steps: Sequence[int]) -> int:
    """Return the step that most steps are near: the median of the largest group within `GAP`.

    Args:
        steps: at least one, all above 0.
    """
    rising = sorted(steps)
    sizes = [bisect_left(rising, step * GAP) - first for first, step in enumerate(rising)]
    most = max(sizes)
    first = sizes.index(most)
    return rising[first + (most - 1) // 2]


def match_frames(
    names: Sequence[str], others: Sequence[str], ending: re.Pattern[str] | None = None
) -> tuple[int, ...] | None:
    """Return which of the other names belongs to each name, never only by place.

    Names are the same, or the same but for an ending of all others, or agree in scene and frame
    number, or in their last number; one of these must hold for all of them.

    Args:
        names: without suffix, all different.
        others: likewise.
        ending: what all of the others may have at their end, such as `x4`.

    Returns:
        For each name a position in `others`; None where some lack a partner.
    """
    if len(names) != len(others):
        return None
    ways: list[tuple[Sequence[Hashable], Sequence[Hashable] | None]] = [(names, others)]
    if ending is not None and all(map(ending.search, others)):
        others = [ending.sub("", other) for other in others]
        ways.append((names, others))
    ways.append((_scene_numbers(names) or (), _scene_numbers(others)))
    ways.append((_last_numbers(names) or (), _last_numbers(others)))
    for keys, other_keys in ways:
        if other_keys and len({*other_keys}) == len(others) and {*keys} == {*other_keys}:
            places = {key: place for place, key in enumerate(other_keys)}
            return tuple(places[key] for key in keys)
    return None


def check_unique(names: Sequence[str]) -> str | None:
    """Return what to say where frames have the same name without suffix; None: none have."""
    twins = [name for name, count in Counter(names).items() if count > 1]
    if not twins:
        return None
    return f"{len(twins)} frames are there twice, e.g. {twins[0]!r}; keep one of each"


def difference(names: Sequence[str], others: Sequence[str], first: str, second: str) -> str:
    """Say how frames that do not match differ.

    Args:
        names: without suffix, of what `first` calls.
        others: of what `second` calls.
        first: for example `gt`.
        second: for example `lq`.
    """
    counts = f"{second} has {len(others)} frames, {first} has {len(names)}"
    lacks, extra = _unmatched(names, others)
    if len(lacks) == len(names):
        return (
            f"{counts}, and neither names nor numbers agree: {second} has {first_few(others, 3)}, "
            f"{first} has {first_few(names, 3)}"
        )
    parts = [f"{second} lacks {first_few(lacks, 3)}"] if lacks else []
    parts += [f"{first} lacks {first_few(extra, 3)}"] if extra else []
    return f"{counts}: {'; '.join(parts)}" if parts else f"{counts}: the same number twice"


def _unmatched(names: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names without a partner on each side: by name, or by number if that is fewer."""
    found: list[tuple[list[str], list[str]]] = []
    ways: list[tuple[Sequence[Hashable] | None, Sequence[Hashable] | None]] = [
        (names, others),
        (_scene_numbers(names), _scene_numbers(others)),
        (_last_numbers(names), _last_numbers(others)),
    ]
    for keys, other_keys in ways:
        if keys is None or other_keys is None:
            continue
        known, other_known = {*keys}, {*other_keys}
        lacks = [name for name, key in zip(names, keys, strict=True) if key not in other_known]
        extra = [name for name, key in zip(others, other_keys, strict=True) if key not in known]
        found.append((lacks, extra))
    return min(found, key=lambda pair: len(pair[0]) + len(pair[1]))


def _scene_numbers(names: Sequence[str]) -> list[Hashable] | None:
    """Return (scene, number) of each name, or None where some frames have no number."""
    keys: dict[int, Hashable] = {}
    for run in find_runs(names):
        if run.numbers is None:
            return None
        for position, number in zip(run.positions, run.numbers, strict=True):
            keys[position] = (run.scene, number)
    return [keys[position] for position in range(len(names))]


def _last_numbers(names: Sequence[str]) -> list[int] | None:
    found = [_DIGITS.findall(name) for name in names]
    return [int(digits[-1]) for digits in found] if all(found) else None


def _split(names: Sequence[str]) -> list[_Name]:
    """Take names apart; digits after a point are decimals where all have equally many."""
    decimals = {len(found) for name in names for found in _DECIMALS.findall(name)}
    pattern = _DIGITS
    if len(decimals) == 1:
        pattern = re.compile(rf"([0-9]+\.[0-9]{{{decimals.pop()}}}|[0-9]+)")
    split = []
    for position, name in enumerate(names):
        pieces = pattern.split(name)
        split.append(_Name(position, name, tuple(pieces[::2]), tuple(pieces[1::2])))
    return split


def _scenes(names: Sequence[_Name]) -> list[_Scene]:
    column = _counting_all(names)
    if column is not None:
        return [_Scene(names, column)]
    by_words: dict[tuple[str, ...], list[_Name]] = {}
    for name in names:
        by_words.setdefault(name.texts if name.digits else (), []).append(name)
    return [scene for words, each in by_words.items() for scene in _of_words(each, bool(words))]


def _counting_all(names: Sequence[_Name]) -> int | None:
    """Return the column that numbers all names as one scene, whatever follows it."""
    for column in range(min(len(name.digits) for name in names) if names else 0):
        if len({name.texts[column] for name in names}) > 1:
            return None
        numbers = {name.numbers[column] for name in names}
        if len(numbers) == 1 and len(names) > 1:
            continue
        rests = {(name.texts[column + 1 :], name.digits[column + 1 :]) for name in names}
        is_counted = len(numbers) == len(names) and len(rests) in (1, len(names))
        return column if is_counted else None
    return None


def _of_words(names: Sequence[_Name], has_numbers: bool) -> list[_Scene]:
    """Return the scenes among names of the same words."""
    if not has_numbers:
        return [_Scene(names, None)]
    columns = range(len(names[0].digits))
    differing = [c for c in columns if len({name.numbers[c] for name in names}) > 1]
    if len(differing) <= 1:
        return [_Scene(names, differing[0] if differing else columns[-1])]
    first, *others = differing
    groups = _grouped(names, [first])
    if len(groups) < len(names):
        return [scene for group in groups for scene in _of_words(group, has_numbers=True)]
    scenes = _grouped(names, others)
    return [_Scene(each, first) for each in (scenes if len(scenes) < len(names) else [names])]


def _grouped(names: Sequence[_Name], columns: Sequence[int]) -> list[list[_Name]]:
    """Return the names that share the numbers in some columns."""
    groups: dict[tuple[int, ...], list[_Name]] = {}
    for name in names:
        groups.setdefault(tuple(name.numbers[c] for c in columns), []).append(name)
    return list(groups.values())


def _in_order(scene: _Scene) -> tuple[list[_Name], int | None]:
    """Return the frames of a scene in order, and the column of their numbers if these rise."""
    column = scene.column
    if column is not None:
        frames = sorted(scene.names, key=lambda name: name.numbers[column])
        if all(a.numbers[column] < b.numbers[column] for a, b in pairwise(frames)):
            return frames, column
    return sorted(scene.names, key=lambda name: natural_key(name.whole)), None


def _labels(ordered: Sequence[tuple[list[_Name], int | None]]) -> list[str]:
    """Return what to call each scene, no two alike."""
    if len(ordered) == 1:
        return [""]
    labels: list[str] = []
    taken: set[str] = set()
    for frames, column in ordered:
        label = frames[0].whole
        if column is not None:
            before, behind = frames[0].around(column)
            parts = (before.rstrip(_SEPARATORS), behind.lstrip(_SEPARATORS))
            label = "_".join(part for part in parts if part) or label
        ways = (f"{label}_{number}" if number > 1 else label for number in count(1))
        labels.append(next(way for way in ways if way not in taken))
        taken.add(labels[-1])
    return labels


def _cut(frames: Sequence[_Name], column: int | None, scene: str) -> list[FrameRun]:
    """Return the runs of a scene whose frames are in order."""
    positions = tuple(frame.position for frame in frames)
    if column is None:
        return [FrameRun(positions, None, scene)]
    numbers = tuple(frame.numbers[column] for frame in frames)
    steps = [b - a for a, b in pairwise(numbers)]
    limit = GAP * usual_step(steps) if steps else 0.0
    cuts = [place for place, step in enumerate(steps, start=1) if step >= limit]
    return [
        FrameRun(positions[first:end], numbers[first:end], scene, after_gap=first > 0)
        for first, end in zip([0, *cuts], [*cuts, len(positions)], strict=True)
    ]
