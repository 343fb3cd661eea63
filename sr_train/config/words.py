"""Words of a command line on their way to Hydra: text stays the text that was typed.

Hydra reads values by a grammar of its own, in which `my pic (1).png` is an error, `2024_01_15` a
number and `a,b` a sweep. Where a setting is text, the typed words are quoted for it. What is
written in Hydra's way already stays as it is: quotes, references, null, sweeps.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Quote, QuotedString, Sweep
from hydra.errors import HydraException
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse as parse_reference

Kind = Literal["text", "texts", "either"]
"""What a setting takes: one text, a list of them, or both."""

_WORD = re.compile(r"(\+\+|\+|~)?([^=]*)(?:(=)(.*))?", re.DOTALL)
_CAST = re.compile(r"(int|float|str|bool|json_str|sort|shuffle|tag|extend_list)\(.*\)", re.DOTALL)

_PARSER = OverridesParser.create()


class Prepared(NamedTuple):
    """A word as it was typed, and as Hydra is given it."""

    typed: str
    given: str


@dataclass(frozen=True)
class Word:
    """One override."""

    prefix: str
    key: str
    value: str | None
    """None: there is no `=`."""

    @classmethod
    def of(cls, text: str) -> "Word":
        """Take a typed word apart."""
        found = _WORD.fullmatch(text)
        assert found is not None
        prefix, key, equals, value = found.groups()
        return cls(prefix or "", key, None if equals is None else value)

    @property
    def group(self) -> str:
        """The key without the package that may follow it."""
        return self.key.split("@")[0]

    def __str__(self) -> str:
        return f"{self.prefix}{self.key}" + ("" if self.value is None else f"={self.value}")


def quoted(word: Word, kind_of: Callable[[str], Kind | None], *, many: bool) -> Word:
    """Return a word whose value Hydra reads as it was meant.

    Args:
        word: as typed.
        kind_of: says for a key what its setting takes; only asked where it matters.
        many: whether a list without brackets is one of runs.
    """
    value = word.value
    if not value or word.prefix == "~":
        return word
    read = _read(value)
    if isinstance(read, QuotedString) or (isinstance(read, str) and read == value):
        return word
    if value == "null" or _CAST.fullmatch(value) or _is_written_sweep(read):
        return word
    if read is not _Unread and "${" in value:
        return word
    kind = kind_of(word.key)
    if kind is None:
        # What cannot be read and is no list or mapping can only be text.
        return word if read is not _Unread or value[0] in "[{" else _with(word, literal(value))
    is_list = kind == "texts" or read is _Unread or isinstance(read, list)
    if kind != "text" and is_list and _in_brackets(value):
        return _with(word, _list(value))
    if many and "," in value and (read is _Unread or isinstance(read, Sweep)):
        lists = kind != "text"
        return _with(word, ",".join(_choice(part.strip(), lists) for part in split(value)))
    return word if kind == "texts" else _with(word, literal(value))


def literal(text: str) -> str:
    """Return text in Hydra's quotes; references stay references, and nothing else is one."""
    return QuotedString(text=without_false_references(text), quote=Quote.single).with_quotes()


def without_false_references(text: str) -> str:
    """Return text in which `${` that begins no reference is no reference."""
    if "${" not in text:
        return text
    try:
        parse_reference(text)
    except GrammarParseError:
        return text.replace("${", r"\${")
    return text


def unquoted(word: str) -> str:
    """Return a word as it may have been typed, for a comparison: no prefix, no quotes."""
    plain = Word.of(word)
    read = _read(plain.value) if plain.value else None
    value = read.text if isinstance(read, QuotedString) else plain.value
    return str(replace(plain, prefix="", value=value)).replace(" ", "")


def of_first_run(text: str) -> str | None:
    """Return an override as the first run of a sweep has it; None: only a search can choose it."""
    try:
        override = _PARSER.parse_override(text)
    except HydraException:
        return text  # reported when all of it is composed
    if not override.is_sweep_override():
        return text
    if override.is_choice_sweep() or override.is_range_sweep():
        return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
    return None


def split(text: str) -> Iterator[str]:
    """Yield the items of a list without its brackets: commas in quotes or brackets part nothing."""
    start, depth, quote = 0, 0, ""
    fresh = True
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote and text[position - 1] != "\\" else quote
        elif fresh and letter in "'\"":
            quote = letter
        elif letter in "[{" and (fresh or depth):
            depth += 1
        elif letter in "]}" and depth:
            depth -= 1
        elif letter == "," and not depth:
            yield text[start:position]
            start, fresh = position + 1, True
            continue
        fresh = fresh and letter.isspace()
    yield text[start:]


def _in_brackets(text: str) -> bool:
    """Whether one pair of brackets holds all of a text: not so in `[Group] Show [1080p]`."""
    if not (text.startswith("[") and text.endswith("]")):
        return False
    depth, quote = 0, ""
    for position, letter in enumerate(text[:-1]):
        if quote:
            quote = "" if letter == quote and text[position - 1] != "\\" else quote
        elif letter in "'\"" and text[:position].rstrip()[-1:] in "[,":
            quote = letter
        else:
            depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth == 0:
            return False
    return True


class _Unread:
    """Stands for a value that Hydra's grammar refuses."""


def _read(value: str) -> Any:
    """Return what Hydra makes of a value."""
    try:
        return _PARSER.parse_override(f"key={value}")._value
    except (HydraException, RecursionError):
        return _Unread


def _is_written_sweep(read: Any) -> bool:
    """Whether a value is a sweep by its own words, such as choice(1,2)."""
    return isinstance(read, Glob | Sweep) and not getattr(read, "simple_form", False)


def _list(text: str) -> str:
    """Return a list of texts in its brackets, each as it was meant."""
    return f"[{','.join(map(_item, split(text[1:-1])))}]"


def _choice(text: str, lists: bool) -> str:
    """Return what one run of a sweep takes: a text or, where there may be `lists`, a list."""
    return _list(text) if lists and _in_brackets(text) else _item(text)


def _item(text: str) -> str:
    """Return one item of a list of texts, quoted where Hydra would not read it as that text."""
    plain = text.strip()
    read = _read(plain) if plain else None
    reference = read is not _Unread and "${" in plain
    if not plain or plain == "null" or reference or isinstance(read, QuotedString | dict | list):
        return plain
    return plain if isinstance(read, str) and read == plain else literal(plain)


def _with(word: Word, value: str) -> Word:
    return replace(word, value=value)
