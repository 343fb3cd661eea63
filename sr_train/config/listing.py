"""The groups of configs and the choices in each, as files say them: nothing is composed."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.config.schema import SCHEMAS
from sr_train.config.schema_keys import default_groups
from sr_train.config.sources import SHIPPED

_COMMAND = "python -m sr_train"
_SENTENCE_END = re.compile(r"\. (?=[A-Z])")


@dataclass(frozen=True)
class Choice:
    """One file of a group."""

    name: str
    comment: str
    """What the file says of itself in one sentence; empty where it says nothing."""
    own: Path | None = None
    """The user's file; None for a shipped one."""
    hidden: bool = False
    """Whether a shipped file of the same name is the one that counts."""


def groups(config_dir: Path | None = None) -> dict[str, list[Choice]]:
    """Return every group with its choices, both in the order of their names.

    Args:
        config_dir: the user's own configs, beside the shipped ones.

    Raises:
        ConfigError: if that is no folder, or a file cannot be read.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    found: dict[str, list[Choice]] = {}
    for group, path in _files(SHIPPED):
        found.setdefault(group, []).append(Choice(path.stem, comment_of(path)))
    for group, path in _files(config_dir) if config_dir is not None else ():
        choices = found.setdefault(group, [])
        hidden = path.stem in {choice.name for choice in choices if choice.own is None}
        choices.append(Choice(path.stem, comment_of(path), path, hidden))
    return {
        group: sorted(choices, key=lambda choice: choice.name)
        for group, choices in sorted(found.items())
    }


def listed(group: str | None = None, config_dir: Path | None = None) -> str:
    """Return the choices of one group or of all, as lines for people.

    Raises:
        ConfigError: for a group that there is none of.
    """
    found = groups(config_dir)
    if group is not None:
        if group not in found:
            raise ConfigError(f"config list {group}: no such group{did_you_mean(group, found)}")
        found = {group: found[group]}
    return "\n".join(
        "".join(f"{line}\n" for line in _section(name, choices)) for name, choices in found.items()
    )


def comment_of(path: Path) -> str:
    """Return the first sentence of a file's opening comment that is no command to type.

    Raises:
        ConfigError: if the file is not readable text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read: {err}") from err
    comments = []
    for line in itertools.takewhile(lambda line: line.startswith("#"), lines):
        comment = line.removeprefix("#").removeprefix(" ")
        if not comment.startswith(("@", " ")) and _COMMAND not in comment:
            comments.append(comment.strip())
    return _opening(comments)


def _opening(comments: Sequence[str]) -> str:
    """Return what ends with the first line or, where nothing does, its sentence."""
    text = ""
    for comment in comments:
        text = f"{text} {comment}".strip()
        ends = list(_SENTENCE_END.finditer(text))
        if text != comment and ends:
            return text[: ends[0].start() + 1]
        if text.endswith(".") and not text.endswith("..."):
            return text
        if ends:
            return text[: ends[-1].start() + 1]
        if text.endswith((":", "]", "...")):
            return text
    return text


def how_to_choose(group: str) -> str:
    """Return what to type for a choice of a group."""
    several = several_of(group)
    value = "[NAME,...]" if several else "NAME"
    return f"{'' if group in _defaults() else '+'}{group}={value}"


def several_of(group: str) -> bool:
    """Whether a group takes a list of choices."""
    return group == "dataset" or _defaults().get(group, False)


@cache
def _defaults() -> dict[str, bool]:
    return {
        name: several for command in SCHEMAS for name, several in default_groups(command).items()
    }


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        if group != ".":
            yield group, path


def _section(group: str, choices: list[Choice]) -> Iterator[str]:
    yield f"{group}   {how_to_choose(group)}"
    width = max(len(choice.name) for choice in choices)
    for choice in choices:
        yours = "" if choice.own is None else f"  [yours: {choice.own}]"
        if choice.hidden:
            yours = f"  [yours, hidden by the shipped one of that name: {choice.own}]"
        yield f"  {choice.name:<{width}}  {choice.comment}{yours}".rstrip()
