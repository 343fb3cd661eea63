"""A command line made ready for Hydra: text quoted, and no `+` that a person has to know about.

Hydra wants `+` before whatever a config does not list yet: groups that no default chooses, entries
of an open mapping, arguments of a component. Where it is clear what is meant, none is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sr_train.api.errors import ConfigError
from sr_train.config.loader import ComposeError, Loader
from sr_train.config.schema import SCHEMAS
from sr_train.config.schema_keys import default_groups, entry_of, hint_at, is_open
from sr_train.config.signatures import hints_of, options_of, takes_text, takes_texts
from sr_train.config.targets import kind_of, resolve_target
from sr_train.config.words import Kind, Prepared, Word, of_first_run, quoted

_PARSER = OverridesParser.create()


class Preparation:
    """What a command line means, seen with what its groups choose.

    Args:
        command: whose words they are.
        config_name: of the primary config; the command's own, or a stored run's.
        loader: composes.
        words: overrides as typed.
        many: whether they are those of a sweep.
    """

    def __init__(
        self, command: str, config_name: str, loader: Loader, words: Sequence[str], many: bool
    ) -> None:
        self._schema = SCHEMAS[command]
        self._loader = loader
        self._groups = default_groups(config_name)
        self._typed = list(words)
        self._words = [self._with_plus_for_group(Word.of(word)) for word in words]
        self._refuse_lost_choices()
        self.config = self._composed(config_name, many)
        """What only the groups compose to; None where nothing does."""
        self._many = many or self._asks_for_many()
        self._nodes = self._with_values()

    @property
    def many(self) -> bool:
        """Whether the words, or a config that they choose, ask for several runs."""
        return self._many

    @property
    def plugins(self) -> list[str]:
        """The user's packages that the config opens."""
        found = _select(self._nodes, "plugins")
        return [str(name) for name in found] if isinstance(found, ListConfig) else []

    def prepared(self) -> list[Prepared]:
        """Return each word as typed and as Hydra is to read it."""
        done: list[Prepared] = []
        added: set[str] = set()
        for text, word in zip(self._typed, self._words, strict=True):
            if not self._is_group(word):
                word = self._with_plus(quoted(word, self._kind_at, many=self._many), added)
                added.add(word.key)
            else:
                word = quoted(word, lambda _: None, many=self._many)
            done.append(Prepared(text, str(word)))
        return done

    def _refuse_lost_choices(self) -> None:
        """Raise where one word adds to a group whose choices another sets: Hydra drops the first.

        Raises:
            ConfigError: naming both, and the one word that says what is meant.
        """
        groups = [word for word in self._words if word.value and self._is_group(word)]
        chosen = {word.key: word for word in groups if word.prefix == ""}
        for word in groups:
            other = chosen.get(word.key)
            if word.prefix != "+" or other is None or not self._groups.get(word.group):
                continue
            names = [each.strip("[] ") for each in (other.value or "", word.value or "")]
            both = ",".join(name for name in names if name)
            raise ConfigError(
                f"{word}: beside {other} it would be dropped; write {word.key}=[{both}]"
            )

    def _is_group(self, word: Word) -> bool:
        """Whether a word chooses from a group, rather than to set what the group holds."""
        is_mapping = word.value is not None and word.value.lstrip().startswith("{")
        return not is_mapping and self._loader.repository.group_exists(word.group)

    def _with_plus_for_group(self, word: Word) -> Word:
        if not self._is_group(word) or word.value is None or word.group.startswith("hydra/"):
            return word
        if word.prefix == "" and word.group not in self._groups:
            return replace(word, prefix="+")
        if word.prefix == "+" and self._groups.get(word.group) is False:
            return replace(word, prefix="")
        return word

    def _with_plus(self, word: Word, added: set[str]) -> Word:
        """Add a `+` to what may be added, and drop one before what is there already."""
        if self.config is None or word.value is None or word.key.startswith("hydra."):
            return word
        there = _has(self.config, word.key) or word.key in added
        # An entry that another word begins has its fields at once.
        plus = "++" if self._is_field_of_entry(word.key) else "+"
        if word.prefix == "" and not there and self._may_add(word.key, added):
            return replace(word, prefix=plus)
        if word.prefix == "+" and there and not _holds_more(self.config, word.key):
            return replace(word, prefix="")
        return replace(word, prefix=plus) if word.prefix == "+" else word

    def _is_field_of_entry(self, key: str) -> bool:
        """Whether a key lies below an entry with fields, as objective.mine.weight does."""
        entry = entry_of(self._schema, key)
        hint = None if entry is None else hint_at(self._schema, entry)
        return entry != key and hint is not None and is_dataclass(hint[0])

    def _may_add(self, key: str, added: set[str]) -> bool:
        """Whether a key may be added; not below an entry with fields that is not there itself."""
        if self._is_field_of_entry(key):
            entry = entry_of(self._schema, key) or key
            return self.config is not None and (_has(self.config, entry) or entry in added)
        return is_open(self._schema, key)

    def _composed(self, config_name: str, many: bool) -> DictConfig | None:
        words = [word for word in self._words if self._is_group(word)]
        typed = [str(word) for word in words]
        firsts = map(of_first_run, typed) if many else typed
        groups = [first for first in firsts if first is not None]
        found = self._try(config_name, groups)
        if found is not None or not groups:
            return found
        accepted: list[str] = []  # those at fault are reported when all of it is composed
        for group in groups:
            if self._try(config_name, [*accepted, group]) is not None:
                accepted.append(group)
        return self._try(config_name, accepted)

    def _try(self, config_name: str, groups: list[str]) -> DictConfig | None:
        try:
            return self._loader.load_configuration(
                config_name, groups, RunMode.MULTIRUN, validate_sweep_overrides=False
            )
        except ComposeError:
            return None

    def _asks_for_many(self) -> bool:
        for word in self._words:
            if word.key == "hydra.mode":
                return word.value == "MULTIRUN"
        return self.config is not None and self.config.hydra.mode == RunMode.MULTIRUN

    def _with_values(self) -> DictConfig | None:
        """Return the config with the values that can be read put in, to see its components."""
        if self.config is None:
            return None
        nodes = OmegaConf.create(
            OmegaConf.to_container(self.config, resolve=False, enum_to_str=True)
        )
        assert isinstance(nodes, DictConfig)
        for word in self._words:
            if word.value is None or word.prefix == "~" or self._is_group(word):
                continue
            try:
                value = _PARSER.parse_override(f"key={word.value}").value()
                OmegaConf.update(nodes, word.key, value, merge=True, force_add=True)
            except Exception:  # whatever OmegaConf trips over is reported when all is composed
                continue
        return nodes

    def _kind_at(self, key: str) -> Kind | None:
        """Return whether a setting is text, by the schema or by what a component's class says."""
        found = hint_at(self._schema, key)
        if found is None:
            return None
        hint, below = found
        if hint is Any:
            hint = self._hint_below(key, below)
        return _kind_of_hint(hint)

    def _hint_below(self, key: str, below: Sequence[str]) -> Any:
        """Return the annotation of a component's argument, or of what lies in it."""
        if self._nodes is None or not below:
            return Any
        parts = key.split(".")
        for count in range(len(parts) - 1, len(parts) - len(below) - 1, -1):
            path = ".".join(parts[:count])
            node = _select(self._nodes, path)
            if not isinstance(node, DictConfig) or "_target_" not in node:
                continue
            hints = self._hints_of(node, path)
            return _inside(hints.get(parts[count], Any), parts[count + 1 :])
        return Any

    def _hints_of(self, node: DictConfig, path: str) -> Mapping[str, Any]:
        kind = kind_of(path) or "part"
        target: Any = node._get_node("_target_")
        try:
            return hints_of(resolve_target(target._value(), path, self.plugins, kind))
        except (ConfigError, OmegaConfBaseException):
            return {}  # it is reported when all of it is checked


def _kind_of_hint(hint: Any) -> Kind | None:
    text, texts = takes_text(hint), takes_texts(hint)
    if text and texts:
        return "either"
    return "text" if text else "texts" if texts else None


def _inside(hint: Any, parts: Sequence[str]) -> Any:
    """Return the annotation of what lies in a mapping, for the rest of a key."""
    for _ in parts:
        mappings = [option for option in options_of(hint) if len(get_args(option)) == 2]
        if not mappings or not issubclass(get_origin(mappings[0]) or object, Mapping):
            return Any
        hint = get_args(mappings[0])[1]
    return hint


def _select(config: DictConfig | None, key: str) -> Any:
    try:
        return None if config is None else OmegaConf.select(config, key)
    except (OmegaConfBaseException, ValueError):
        return None


def _has(config: DictConfig, key: str) -> bool:
    """Whether a key stands in a config, whatever its value is."""
    node: Any = config
    for part in key.split("."):
        if isinstance(node, ListConfig):
            if not part.isdigit() or int(part) >= len(node):
                return False
            node = node._get_node(int(part))
        elif isinstance(node, DictConfig) and not (node._is_none() or node._is_missing()):
            if node._is_interpolation() or part not in list(node):  # `in` leaves out ???
                return False
            node = node._get_node(part)
        else:
            return False
    return True


def _holds_more(config: DictConfig, key: str) -> bool:
    """Whether a mapping or list stands at a key, to which `+` adds."""
    return isinstance(_select(config, key), DictConfig | ListConfig)
