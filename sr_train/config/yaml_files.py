"""Reading a config file that may be damaged, mistyped or hostile: plain values, or a message."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from sr_train.api.errors import ConfigError
from sr_train.api.text import one_line

_MOST_BYTES = 2**20
_MOST_VALUES = 20_000
"""Values of one file, what anchors repeat counted as often as they do."""

_DEEPEST = 40

_PLAIN = ("str", "int", "float", "bool", "null", "map", "seq", "merge")
_TAGS = {f"tag:yaml.org,2002:{name}" for name in _PLAIN}
_TEXTS = {
    *("name", "out_dir", "resume", "pretrained", "checkpoint", "root", "gt", "lq"),
    *("include", "exclude"),
}
"""Keys whose values are names and paths, as typed: `name: 2024_01_15` is no number."""

_WORDS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "null"}


def read_yaml(path: Path) -> DictConfig:
    """Return the config that a YAML file holds.

    Raises:
        ConfigError: naming file and line, for whatever is wrong with it.
    """
    text = _text_of(path)
    loader = None
    try:
        loader = _loader_of(text)
        node = loader.get_single_node()
        if node is None:
            return OmegaConf.create({})
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}: expected keys and values, `key: value`")
        _Checked(path).whole(node)
        values = loader.construct_document(node)
        config = OmegaConf.create(values)
    except yaml.YAMLError as err:
        raise ConfigError(f"{path}: {_told(err)}") from err
    except OmegaConfBaseException as err:
        raise ConfigError(f"{path}: {_place(err)}{first_line(err)}") from err
    except RecursionError as err:
        raise ConfigError(f"{path}: values lie too deep in each other") from err
    except (ValueError, TypeError, OverflowError) as err:  # such as a number of 5,000 digits
        raise ConfigError(f"{path}: cannot be read: {first_line(err)}") from err
    finally:
        if loader is not None:
            loader.dispose()
    assert isinstance(config, DictConfig)
    return config


def header_of(path: Path) -> dict[str, str | None]:
    """Return what the lines `# @key value` at the head of a config file say.

    Raises:
        ConfigError: if one of them is not written like that.
    """
    found: dict[str, str | None] = {"package": None}
    for line in _text_of(path).splitlines():
        words = line.strip().lstrip("#").split()
        if not line.strip():
            continue
        if not line.strip().startswith("#") or not words or not words[0].startswith("@"):
            break
        if len(words) != 2:
            raise ConfigError(f"{path}: {line.strip()!r}: expected for example # @package _global_")
        found[words[0][1:]] = words[1]
    return found


_CLASSES = re.compile(
    r"\b\w*(?:Error|Exception|Value)(?: raised)? while [\w ]+: ?|^\w+Exception: ?"
)
"""What OmegaConf and Hydra put before their words."""


def first_line(err: BaseException) -> str:
    """Return the part of a library's message that a person needs."""
    lines = _CLASSES.sub("", str(err).strip()).splitlines()
    return one_line(lines[0])[:500] if lines else "no reason given"


def _text_of(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{path}: is no file")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ConfigError(f"{path}: has {size:,} bytes; no config is that large")
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw[: err.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}: line {line}: is no UTF-8 text (byte 0x{raw[err.start]:02x}); save it as UTF-8"
        ) from err


def _loader_of(text: str) -> Any:
    """Return OmegaConf's loader, which gives up early where values lie deep in each other."""

    class Loader(get_yaml_loader()):  # type: ignore[misc]
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > _DEEPEST:
                raise RecursionError
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    return Loader(text)


class _Checked:
    """A walk through a file's nodes before anything is made of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def whole(self, node: yaml.Node) -> None:
        if self._size(node) > _MOST_VALUES:
            raise ConfigError(f"{self._path}: holds more than {_MOST_VALUES:,} values")

    def _size(self, node: yaml.Node) -> int:
        """Return how many values a node holds, anchors repeated."""
        key = id(node)
        if key in self._open:
            raise self._fault(node, "refers to itself")
        if key not in self._sizes:
            if node.tag not in _TAGS:
                tag = one_line(node.tag.replace("tag:yaml.org,2002:", "!!"))
                raise self._fault(node, f"the tag {tag} is not allowed; expected a plain value")
            self._open.add(key)
            inner = sum(self._size(each) for each in self._children(node))
            self._open.discard(key)
            self._sizes[key] = 1 + inner
        return self._sizes[key]

    def _children(self, node: yaml.Node) -> Iterator[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            yield from node.value
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                self._check_key(name)
                if name.value in _TEXTS:
                    _take_as_text(value)
                yield value
        elif any(0xD800 <= ord(letter) < 0xE000 for letter in node.value):
            raise self._fault(node, "holds half a character")

    def _check_key(self, node: yaml.Node) -> None:
        if not isinstance(node, yaml.ScalarNode):
            raise self._fault(node, "a list or mapping cannot be a key")
        read_as = _WORDS.get(node.tag.rpartition(":")[2])
        if read_as is not None:
            text = one_line(node.value)[:50]
            raise self._fault(node, f"the key {text} is read as {read_as}; write '{text}'")
        if len(node.value) > 200 or not node.value.isprintable() or not node.value:
            raise self._fault(node, "expected a key of 1 to 200 printable characters")

    def _fault(self, node: yaml.Node, why: str) -> ConfigError:
        mark = node.start_mark
        return ConfigError(f"{self._path}: line {mark.line + 1}, column {mark.column + 1}: {why}")


def _take_as_text(node: yaml.Node) -> None:
    """Let a value, or those of a list, be the text that stands in the file."""
    for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        is_plain = isinstance(each, yaml.ScalarNode) and each.style is None
        if is_plain and each.tag.rpartition(":")[2] in {"int", "float", "bool"}:
            each.tag = "tag:yaml.org,2002:str"


def _told(err: yaml.YAMLError) -> str:
    """Return a YAML error in one line: where, and what is wrong."""
    mark = getattr(err, "problem_mark", None)
    place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    problem = getattr(err, "problem", None) or first_line(err)
    context = getattr(err, "context", None) or ""
    problem = f"{context} {problem}" if context.startswith("expected") else problem
    hint = "; indent with spaces" if "'\\t'" in str(problem) else ""
    return f"{place}{one_line(problem)}{hint}"


def _place(err: OmegaConfBaseException) -> str:
    return f"{err.full_key}: " if err.full_key else ""
