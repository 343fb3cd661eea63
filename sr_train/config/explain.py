"""Why a config does not compose: every override at fault, in words for people."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sr_train.api.errors import ConfigError, Problems, SRTrainError, did_you_mean
from sr_train.config.aliases import known_as
from sr_train.config.compose import is_leaf, lenient
from sr_train.config.loader import ComposeError, Loader
from sr_train.config.preflight import run_problems
from sr_train.config.schema import SCHEMAS, RunConfig
from sr_train.config.schema_keys import default_groups, entry_of, hint_at, keys_of
from sr_train.config.signatures import expected
from sr_train.config.words import Prepared, Word
from sr_train.config.yaml_files import first_line

_EXTRAS = {"optuna": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm"}
"""Choices of Hydra's own groups that a package brings, and the extra with that package."""

_SWEEPS = re.compile(r"Ambiguous value|requires --multirun")
_NO_KEY = re.compile(r"not in (struct|')|Could not (override|append|delete)")


_IN_WORDS = (
    (r"^Error merging override \S+ ", ""),
    (r"Cannot merge DictConfig with ListConfig", "expected a mapping, found a list"),
    (r"Cannot merge ListConfig with DictConfig", "expected a list, found a mapping"),
    (r"Invalid type assigned: .* is not a subclass of \w+\. value: .*", "expected a mapping"),
    (r"\bDictConfig\b|\b[A-Z]\w+Config\b", "a mapping"),
    (r"\bListConfig\b", "a list"),
    (r"\bNoneType\b", "null"),
    (r" reference_type=.*", ""),
)
"""What libraries say, without their classes."""


class Explanation:
    """Composing again, in parts, to find what keeps a config from composing.

    Composing stops at the first fault, so the overrides are tried in ever smaller parts, those
    that choose a group's option first.

    Args:
        command: whose config it is.
        config_name: of the primary config.
        loader: composes.
    """

    def __init__(self, command: str, config_name: str, loader: Loader) -> None:
        self.command, self._config_name, self._loader = command, config_name, loader
        self._accepted: list[str] = []

    def of(self, words: Sequence[Prepared], err: Exception) -> SRTrainError:
        """Return what a person reads.

        Args:
            words: the overrides of one run.
            err: what composing raised.

        Returns:
            `Problems` with one message per fault, or `err` reworded where no override is at fault.
        """
        problems: list[str] = []
        failed_choices: list[str] = []
        if self._failure([]) is None:
            for word, failure in self._at_fault(sorted(words, key=_is_value)):
                group = Word.of(word.given).group.split(".")[0]
                if not {group, "experiment"} & set(failed_choices):
                    problems += self._reworded(word, failure)
                    if self._loader.repository.group_exists(group):
                        failed_choices.append(group)
            problems += self._further(whole=not failed_choices)
        if problems:
            return Problems(list(dict.fromkeys(problems)))
        cause = err.cause if isinstance(err, ComposeError) else err
        return cause if isinstance(cause, SRTrainError) else ConfigError(_told(cause))

    def _at_fault(self, words: Sequence[Prepared]) -> Iterator[tuple[Prepared, Exception]]:
        """Yield the overrides at fault, by what the errors name and, where they do not, by trying.

        Keeps the others.
        """
        left = list(words)
        while (failure := self._failure([word.given for word in left])) is not None:
            named = [word for word in left if _is_named(word, failure)]
            if len(named) != 1:
                yield from self._sift(left)
                return
            left.remove(named[0])
            yield named[0], failure
        self._accepted += [word.given for word in left]

    def _sift(self, words: Sequence[Prepared]) -> Iterator[tuple[Prepared, Exception]]:
        """Yield the overrides at fault, halving the list; keep the others."""
        failure = self._failure([word.given for word in words])
        if failure is None:
            self._accepted += [word.given for word in words]
        elif len(words) == 1:
            yield words[0], failure
        else:
            middle = len(words) // 2
            yield from self._sift(words[:middle])
            yield from self._sift(words[middle:])

    def _failure(self, words: Sequence[str]) -> Exception | None:
        try:
            self._composed(words)
        except ComposeError as err:
            return err.cause
        return None

    def _composed(self, words: Sequence[str] = ()) -> DictConfig:
        every = [*self._accepted, *words]
        cfg = self._loader.load_configuration(self._config_name, every, RunMode.RUN)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    def _further(self, whole: bool) -> list[str]:
        """Look at what is left of a config after its unusable overrides are taken out.

        Only where the config is `whole` are values reported as missing: a choice may bring them.
        """
        schema = SCHEMAS[self.command]
        if self._failure([]) is not None or not issubclass(schema, RunConfig):
            return []
        cfg = self._composed()
        try:
            config, problems = lenient(cfg, schema)
        except Problems as err:
            return err.problems if whole else []
        absent = tuple(p.split(":")[0] for p in problems if ": no value;" in p)
        if not whole:
            problems = [problem for problem in problems if ": no value;" not in problem]
        return problems + [p for p in run_problems(config) if not p.startswith(absent)]

    def _reworded(self, word: Prepared, err: Exception) -> list[str]:
        """Say what is wrong with an override, or with the file that it chose."""
        if isinstance(err, Problems):
            return err.problems
        if isinstance(err, SRTrainError):
            return [str(err)]
        return [self._in_words(word, err)]

    def _in_words(self, word: Prepared, err: Exception) -> str:
        text = _text(err)
        found = self._of_a_choice(word, text) or self._of_a_key(word, text)
        if found is not None:
            return found
        if isinstance(err, OverrideParseException):
            return f"{word.typed}: {self._unreadable(word.typed)}"
        return f"{word.typed}: {_told(err)}"

    def _of_a_choice(self, word: Prepared, text: str) -> str | None:
        """Say what is wrong with an option of a group, or with several values."""
        typed, group = word.typed, Word.of(word.given).group
        twice = re.search(r"Multiple values for (\S+)\. .*: (\S+)'", text)
        if twice:
            return f"{typed}: {twice[1]} is chosen already, {twice[2]}; expected one of them"
        choice = re.search(r"Could not (?:find|load) '([^']+)'", text)
        if choice:
            return self._no_choice(typed, choice[1])
        if "Config group override" in text or "Unsupported item value" in text:
            return f"{typed}: expected the name of a choice{self._options(group)}"
        if "possible interpolation keys" in text:
            return f"{typed}: no such choice{self._options(group)}"
        if _SWEEPS.search(text):
            several = Word.of(typed).value
            return (
                f"{typed}: several values; add -m for one run of each, or write "
                f"{Word.of(typed).key}=[{several}] for a list"
            )
        return None

    def _of_a_key(self, word: Prepared, text: str) -> str | None:
        """Say that there is no such key, or what its value should be."""
        typed, key = word.typed, Word.of(word.given).key
        if typed.startswith("~"):
            if not _NO_KEY.search(text):
                return f"{typed}: cannot be taken out"
            if default_groups(self.command).get(key):
                return (
                    f"{typed}: takes several choices; to take out all: {key}=[], "
                    f"or one: ~{key}.NAME"
                )
            if key in _keys(self._composed()):
                return f"{typed}: is null already; there is nothing to take out"
        full_key = re.search(r"full_key: (\S+)", text)
        inside = full_key[1] if full_key and not key.startswith(f"{full_key[1]}.") else key
        where = f"in {typed}: " if inside != key else ""
        if _NO_KEY.search(text):
            return f"{where}{self._no_key(inside)}"
        hint = hint_at(SCHEMAS[self.command], inside)
        if full_key is None or hint is None or hint[0] is Any:
            return None
        found = re.search(r"(?:Invalid )?[Vv]alue '(.*?)'", text)
        shown = f"{inside}={found[1]}" if where and found else inside if where else typed
        return f"{where}{shown}: expected {expected(hint[0])}"

    def _unreadable(self, typed: str) -> str:
        """Say why Hydra's grammar has no reading for a word."""
        word = Word.of(typed)
        if word.value is None:
            return "expected key=value"
        if not re.fullmatch(r"[\w./@:$-]+", word.key) or not word.key.isascii():
            return f"{word.key or 'nothing'} is no key; expected key=value"
        if word.value[:1] in "[{":
            return "brackets, quotes or commas do not match"
        return f"cannot be read as a value; in quotes, it is text: {word.key}=\"'...'\""

    def _no_choice(self, typed: str, choice: str) -> str:
        group, _, wanted = choice.rpartition("/")
        extra = _EXTRAS.get(wanted)
        if extra is not None:
            return f'{typed}: needs a package that is missing; pip install "sr_train[{extra}]"'
        valid = self._loader.get_group_options(group) if group else []
        return f"{typed}: no such choice{did_you_mean(wanted, valid)}"

    def _how_to_add(self, group: str, there: Sequence[str]) -> str:
        """Say which entries a mapping has, and how it gets another."""
        found = f"; {group} has {', '.join(there)}" if there else f"; {group} is empty"
        groups = {"data.val": "dataset"}
        choose = groups.get(group, group)
        is_group = self._loader.repository.group_exists(choose)
        return f"{found}; add one by +{choose}=NAME" if is_group else found

    def _options(self, group: str) -> str:
        valid = self._loader.get_group_options(group)
        return f"; valid: {', '.join(valid[:12])}{', ...' if len(valid) > 12 else ''}"

    def _no_key(self, key: str) -> str:
        config = self._composed()
        entry = entry_of(SCHEMAS[self.command], key)
        if entry is not None:
            group, _, name = entry.rpartition(".")
            there = OmegaConf.select(config, group)
            if isinstance(there, DictConfig) and name not in there:
                known_names = list(map(str, there))
                return f"{entry}: there is none of that name{self._how_to_add(group, known_names)}"
        known = [*_keys(config), *keys_of(self.command)]
        alias = known_as(key, known)
        if alias is None or "." in key:
            return f"{key}: no such key{did_you_mean(key, known)}"
        note = f" ({alias[1]})" if alias[1] else ""
        return f"{key}: no such key; write {alias[0]}=...{note}"


def _is_named(word: Prepared, failure: Exception) -> bool:
    """Whether an error says that it comes from a word."""
    text, parts = _text(failure), Word.of(word.given)
    if isinstance(failure, OverrideParseException):
        return word.given == failure.override
    lines = [line.strip() for line in text.splitlines()]
    heads = (f"Error merging override {word.given}", f"To append to your config use +{word.given}")
    quoted = (
        f"argument '{word.given}'",
        f"parameters '{word.given}'",
        f"override '{parts.key}'.",
        f"find '{parts.group}/{parts.value}'",
    )
    return any(line.startswith(heads) for line in lines) or any(each in text for each in quoted)


def _is_value(word: Prepared) -> tuple[bool, bool]:
    key = word.given.split("=", 1)[0]
    return "." in key, not key.startswith("+")


def _text(err: BaseException) -> str:
    cause = err.__cause__ if isinstance(err.__cause__, OmegaConfBaseException) else None
    return "\n".join(str(part).strip() for part in (err, cause) if part is not None)


def _told(err: BaseException) -> str:
    """Return an error of a library in one line that names none of its classes."""
    if isinstance(err, RecursionError):
        return "refers to itself, or lies too deep"
    lines = [line.strip() for line in _text(err).splitlines() if line.strip()]
    informative = [
        line for line in lines if not line.startswith(("full_key", "object_type", "See "))
    ]
    text = first_line(ConfigError(" ".join(informative[:2]) if informative else str(err)))
    for pattern, words in _IN_WORDS:
        text = re.sub(pattern, words, text)
    return text


def _keys(node: DictConfig | ListConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    if isinstance(node, ListConfig):
        return keys
    for name in map(str, node):
        keys.append(f"{prefix}{name}")
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not is_leaf(child):
            keys += _keys(child, f"{prefix}{name}.")
    return keys
