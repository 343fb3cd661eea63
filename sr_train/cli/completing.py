"""Completion of a command line by the TAB key: the shell's part, and what it asks for."""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sr_train.api.errors import ConfigError
from sr_train.cli.flags import NAMES, is_override
from sr_train.commands.config import ACTIONS
from sr_train.config.listing import groups
from sr_train.config.loader import Loader
from sr_train.config.prepare import Preparation
from sr_train.config.schema import SCHEMAS
from sr_train.config.schema_keys import hint_at, keys_of
from sr_train.config.signatures import options_of

_PROGRAMS = ("sr_train", "sr-train")
"""The module that `python -m` runs, and the console script."""

_SCRIPT = """\
_sr_train_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
    case "$line" in
        *python*" -m sr_train "*|*sr-train" "*) ;;
        *) return 0 ;;
    esac
    COMPREPLY=($(COMP_LINE="$line" %(program)s -sc query=bash 2>/dev/null))
}
complete -o nospace -o default -F _sr_train_complete sr-train python python3
"""

_SCRIPTS = {
    "bash": _SCRIPT,
    "zsh": "autoload -U +X bashcompinit && bashcompinit\n" + _SCRIPT,
}

_GONE = "complete -r sr-train python python3\nunset -f _sr_train_complete\n"


def complete(words: Sequence[str], commands: Sequence[str]) -> str:
    """Return what the words after `-sc` ask for.

    Args:
        words: install=SHELL, uninstall=SHELL, or query=SHELL, which the shell asks with the line
            in COMP_LINE.
        commands: of the program.

    Raises:
        ConfigError: for anything else.
    """
    wanted, _, shell = (words[0] if len(words) == 1 else "").partition("=")
    if wanted not in {"install", "uninstall", "query"} or shell not in _SCRIPTS:
        raise ConfigError(
            '-sc: expected install=bash or install=zsh: eval "$(python -m sr_train -sc '
            'install=bash)"'
        )
    if wanted == "install":
        return _SCRIPTS[shell] % {"program": f"{shlex.quote(sys.executable)} -m sr_train"}
    if wanted == "uninstall":
        return _GONE
    try:
        found = set(candidates(os.environ.get("COMP_LINE", ""), commands))
    except Exception:  # a line that is only half typed; the shell completes files instead
        found = set()
    return "".join(f"{word}\n" for word in sorted(found))


def candidates(line: str, commands: Sequence[str]) -> Iterator[str]:
    """Yield what may stand for the last word of a line, as far as the shell replaces it.

    Shells take `=` for the end of a word, so that only what follows it is given.
    """
    *before, word = _words(line)
    place = next((n for n, each in enumerate(before) if Path(each).name in _PROGRAMS), None)
    if place is None:
        return
    given = before[place + 1 :]
    if not given:
        yield from (f"{name} " for name in commands if name.startswith(word))
    elif given[0] == "config":
        yield from (f"{each} " for each in _of_config(given[1:]) if each.startswith(word))
    elif given[0] in commands:
        yield from _of_command(given[0], given[1:], word)


def _of_config(given: Sequence[str]) -> Iterable[str]:
    if not given:
        return ACTIONS
    return groups(_config_dir(given)) if given[0] == "list" else SCHEMAS


def _of_command(command: str, given: Sequence[str], word: str) -> Iterator[str]:
    if word.startswith("-"):
        yield from (f"{flag} " for flag in NAMES if flag.startswith(word))
        return
    key, equals, value = word.lstrip("+~").partition("=")
    loader = Loader(_config_dir(given))
    groups = [name for name in keys_of(command) if loader.repository.group_exists(name)]
    if equals:
        yield from _values(loader, command, key, value, groups)
        return
    yield from (f"{name}=" for name in groups if name.startswith(key))
    words = [each for each in given if is_override(each) and not each.startswith("-")]
    yield from _keys(Preparation(command, command, loader, words, many=True).config, key)


def _values(
    loader: Loader, command: str, key: str, value: str, groups: Sequence[str]
) -> Iterator[str]:
    head, _, last = value.rpartition(",")
    head = f"{head}," if head else "[" if value.startswith("[") else ""
    last = last.removeprefix("[")
    hint = hint_at(SCHEMAS[command], key)
    options = options_of(hint[0]) if hint is not None else ()
    choices = loader.get_group_options(key) if key in groups else []
    choices += ["true", "false"] if bool in options else []
    for option in options:
        if isinstance(option, type) and issubclass(option, Enum):
            choices += list(option.__members__)
    yield from (f"{head}{choice}" for choice in choices if choice.startswith(last))


def _keys(config: DictConfig | None, key: str) -> Iterator[str]:
    """Yield the keys that continue a dotted one by a part."""
    parent, _, part = key.rpartition(".")
    node = config if not parent or config is None else OmegaConf.select(config, parent)
    if not isinstance(node, DictConfig):
        return
    prefix = f"{parent}." if parent else ""
    for name in map(str, node):
        if name.startswith(part) and name not in {"_target_", "hydra"}:
            child = node._get_node(name)
            joint = "." if isinstance(child, DictConfig) and len(child) else "="
            yield f"{prefix}{name}{joint}"


def _config_dir(given: Sequence[str]) -> Path | None:
    for word, following in pairwise([*given, ""]):
        if word in {"--config-dir", "-cd"} and Path(following).is_dir():
            return Path(following)
    return None


def _words(line: str) -> list[str]:
    """Return the words of a line that may end in the middle of a quote; the last may be empty."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        return words if line and not line[-1].isspace() else [*words, ""]
    return [*line.split(), ""]
