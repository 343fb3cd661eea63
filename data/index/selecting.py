"""Which images or sequences of a folder a config selects: by patterns, and by a list of names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from data.index.arguments import Texts, texts
from data.index.folders import expanded
from sr_train.api.errors import DataError, did_you_mean
from sr_train.api.text import first_few


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Patterns and a list of names.

    What is selected has a name, and maybe others that mean it too, such as that with its suffix.
    """

    include: Sequence[str] | None = None
    """Patterns of which one must match; None: all. `*` crosses `/` too, and case matters."""
    exclude: Sequence[str] = ()
    """Patterns of which none may match."""
    list_file: str | None = None
    """Where the list came from; None: no list."""
    lines: Sequence[str] = field(default=(), repr=False)
    """Of the list; each begins with a name."""

    def selects(self, names: Sequence[str]) -> bool:
        """Return whether the patterns let in what has these names."""
        wanted = self.include is None or matches(names, self.include)
        return wanted and not matches(names, self.exclude)

    def listed(self, everything: Mapping[str, Sequence[str]]) -> tuple[set[str], list[str]]:
        """Return what the list names, and the lines that name nothing.

        Args:
            everything: what there is; key -> its names.
        """
        by_name: dict[str, list[str]] = {}
        for key, names in everything.items():
            for name in names:
                by_name.setdefault(name, []).append(key)
        chosen: set[str] = set()
        missing: list[str] = []
        for line in self.lines:
            # Other programs' lists give a size after the name.
            ways = (line, line.split()[0])
            found = next((by_name[way] for way in ways if way in by_name), None)
            if found is None:
                missing.append(line)
            else:
                chosen.update(found)
        return chosen, missing

    def chosen(
        self, everything: Mapping[str, Sequence[str]], kind: str
    ) -> tuple[set[str], list[tuple[str, str]]]:
        """Return the keys of what is selected, and (path, why) of what the list lacks.

        Args:
            everything: what there is; key -> its names, the one to show first.
            kind: what it is, in the plural, for messages.

        Raises:
            DataError: an include pattern that matches nothing, or nothing is left.
        """
        shown = [names[0] for names in everything.values()]
        for pattern in self.include or ():
            if not any(matches(names, [pattern]) for names in everything.values()):
                one = "sequence" if kind == "sequences" else "image"
                hint = did_you_mean(pattern, shown)
                raise DataError(f"include: no {one} matches {pattern!r}{hint}")
        left = {key for key, names in everything.items() if self.selects(names)}
        lacking: list[tuple[str, str]] = []
        if self.list_file is not None:
            listed, missing = self.listed(everything)
            lacking = [(self.list_file, f"names {line!r}, which is not there") for line in missing]
            left &= listed
        if not left:
            raise DataError(
                f"none of {len(everything)} {kind} is left by {self._described()}; patterns and "
                f"lists are held against names such as {some(shown)}"
            )
        return left, lacking

    def _described(self) -> str:
        parts = [f"include={list(self.include or ['*'])} exclude={list(self.exclude)}"]
        return " ".join([*parts, *([f"list_file={self.list_file}"] if self.list_file else [])])


def make_selection(
    include: Texts | None, exclude: Texts | None, list_file: str | None
) -> Selection:
    """Return what arguments of a data set select.

    Args:
        include: one or several patterns; None: all.
        exclude: likewise; None: none.
        list_file: text file with a name on each line; None: all.

    Raises:
        DataError: what is no text, or a list that cannot be read.
    """
    path = None if list_file is None else expanded("list_file", list_file)
    return Selection(
        include=None if include is None else texts("include", include),
        exclude=() if exclude is None else texts("exclude", exclude),
        list_file=None if path is None else str(path),
        lines=() if path is None else _lines(path),
    )


def matches(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Return whether some name fits some pattern."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def some(names: Sequence[str]) -> str:
    """Return the first few names for a message."""
    return first_few([repr(name) for name in names], 3)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"list_file: {path}: cannot be read: {error.strerror or error}") from None
    if "\0" in text:
        raise DataError(f"list_file: {path}: is no text")
    lines = [line.strip().replace("\\", "/").strip("/") for line in text.splitlines()]
    if not any(lines):
        raise DataError(f"list_file: {path}: names nothing; expected a name on each line")
    return list(dict.fromkeys(line for line in lines if line))
