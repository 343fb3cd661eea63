"""Whatever help, README, comments and errors tell people to type can be typed."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sr_train.api.errors import ConfigError
from sr_train.cli.entry import COMMANDS
from sr_train.cli.flags import is_override, parse
from sr_train.config.loader import ComposeError, Loader
from sr_train.config.prepare import Preparation, _has
from sr_train.config.schema import SCHEMAS
from sr_train.config.schema_keys import entry_of, hint_at, keys_of
from sr_train.config.targets import kind_of, resolve_target

ROOT = Path(__file__).resolve().parent.parent

COMMAND = re.compile(r"(?:python|torchrun \S+) -m sr_train ([a-z]+)((?: +[^\s`#][^\s`]*)*)")
SETTING = re.compile(
    r"(?<![\w.=/'-])([+~]?[a-z_]+(?:[./][a-zA-Z_]+)*=(?:\[[^\]]*\]|[^\s;,:()\"`']*))"
)

OWN = ("faces",)
"""What people are told to write themselves."""

PLACEHOLDERS = {
    "...": "x",
    "NAME": "x",
    "FILE": "x",
    "FOLDER": "x",
    "FOLDER_OF_DATA_SETS": "x",
    "DATA_SETS": "x",
    "PIXELS": "8",
    "FRAMES": "8",
    "CRF": "8",
}


def texts() -> Iterator[tuple[str, str]]:
    """Yield (place, text) of all that people read."""
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        yield name, (ROOT / name).read_text()
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        text = path.read_text()
        lines = [line[1:] for line in text.splitlines() if line.startswith("#")]
        comment = "\n".join(line.removeprefix(" ") for line in lines)
        yield _place(path), comment.replace("\n    ", " ")  # a command goes on in such a line
        if path.parent.name == "configs":
            hydra = OmegaConf.load(path).get("hydra")
            yield _place(path), "" if hydra is None else hydra.help.get("header") or ""
    for path in sorted((ROOT / "sr_train").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield _place(path), node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "X" for p in node.values]
                yield _place(path), "".join(map(str, parts))


def _place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (place, command, words) of every whole line that somebody is told to type."""
    found = {}
    for place, text in texts():
        for command, rest in COMMAND.findall(text):
            if command in COMMANDS:
                words = [word for word in _split(rest) if _is_typed(word)]
                found[command, *words] = (place, command, tuple(words))
    return list(found.values())


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _is_typed(word: str) -> bool:
    return (is_override(word) and word[0] in "+~abcdefghijklmnopqrstuvwxyz") or word.startswith("-")


def settings() -> list[tuple[str, str]]:
    """Return (place, setting) of every setting that is named anywhere."""
    tops = {key.split(".")[0] for command in SCHEMAS for key in keys_of(command)}
    found: dict[str, str] = {}
    for place, text in texts():
        for setting in SETTING.findall(text):
            key = setting.lstrip("+~").split("=")[0]
            if re.split(r"[./]", key)[0] in tops | {"hydra"} and not {"X"} & {*key}:
                found.setdefault(setting, place)
    return [(place, setting) for setting, place in found.items()]


CONTEXTS = {
    "an image network": ("train", ["experiment=quickstart"]),
    "a GAN": (
        "train",
        ["experiment=esrgan_x4", "objective=[l1,perceptual,gan,ldl]", "discriminator=unet_sn"],
    ),
    "a data set of folders": ("train", ["dataset=[folder]", "arch=compact", "metrics=[lpips]"]),
    "clips": ("train", ["experiment=vrt_spike_deblur", "objective=[temporal_consistency]"]),
    "clips of folders": ("train", ["experiment=basicvsr_x4", "dataset=[clips]"]),
    "clips of GoPro": ("train", ["experiment=basicvsr_x4", "dataset=[gopro]"]),
    "SPAN": ("export", ["arch=span"]),
    "a search": ("train", ["experiment=quickstart", "search=lr"]),
    "a cluster": ("train", ["experiment=quickstart", "cluster=slurm"]),
    **{command: (command, []) for command in COMMANDS},
    "a test set": ("validate", ["dataset=main", "metrics=[lpips]"]),
}


@cache
def context(name: str) -> tuple[str, Loader, DictConfig]:
    command, words = CONTEXTS[name]
    loader = Loader()
    config = Preparation(command, command, loader, words, many=False).config
    assert config is not None, name
    return command, loader, config


def takes(name: str, key: str, value: str) -> bool:
    """Whether a setting can be typed in a context."""
    command, loader, config = context(name)
    if loader.repository.group_exists(key) and value != "null":
        options = loader.get_group_options(key)
        chosen = [
            each for each in re.split(r"[\[\],|]", value) if each and each not in PLACEHOLDERS
        ]
        return all(each in options or each == "X" for each in chosen)
    if _has(config, key):
        return True
    schema = SCHEMAS[command]
    hint = hint_at(schema, key)
    if hint is not None and not hint[1] and entry_of(schema, key) is not None:
        return True
    return _is_argument(config, key)


def _is_argument(config: DictConfig, key: str) -> bool:
    parts = key.split(".")
    for count in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:count])
        node = OmegaConf.select(config, path)
        if isinstance(node, DictConfig) and "_target_" in node:
            try:
                target = resolve_target(node._target_, path, [], kind_of(path) or "part")
            except ConfigError:
                return False
            return parts[count] in inspect.signature(target).parameters
    return False


def test_commands_and_settings_are_found():
    lines = {(command, *words) for _, command, words in commands()}
    assert ("train", "+experiment=quickstart") in lines
    assert ("infer", "checkpoint=runs/NAME", "input=clip.mp4", "output=big.mp4") in lines
    assert len(lines) > 40
    names = {setting for _, setting in settings()}
    assert {"extra.spikes=FOLDER", "discriminator=unet_sn", "optimizer.fused=false"} <= names
    assert len(names) > 120


def test_every_line_composes():
    faults = []
    for place, command, words in commands():
        filled = [re.sub(r"^(.*?=)(.*)$", _filled, word) for word in words]
        overrides, flags = parse(command, [w for w in filled if not w.startswith("--config-dir")])
        overrides = [
            word
            for word in overrides
            if is_override(word) and not word.endswith(("experiment=x", *OWN))
        ]
        preparation = Preparation(command, command, Loader(), overrides, flags.multirun)
        given = [word.given for word in preparation.prepared()]
        mode = RunMode.MULTIRUN if preparation.many else RunMode.RUN
        try:
            Loader().load_configuration(command, given, mode)
        except ComposeError as err:
            faults.append(f"{place}: {command} {' '.join(words)}: {err}")
    assert faults == []


def _filled(word: re.Match[str]) -> str:
    return word[1] + PLACEHOLDERS.get(word[2], word[2])


def test_every_setting_can_be_typed():
    faults = []
    for place, setting in settings():
        key, _, value = setting.lstrip("+~").partition("=")
        first = value.strip(".").split("|")[0].replace("%s", "X")
        if first not in OWN and not any(takes(name, key, first) for name in CONTEXTS):
            faults.append(f"{place}: {setting}")
    assert faults == []


def test_a_setting_that_there_is_none_of_would_be_seen():
    assert not any(takes(name, "train.stepz", "3") for name in CONTEXTS)
    assert not any(takes(name, "optimizer.lrr", "3") for name in CONTEXTS)
    assert not any(takes(name, "optimizer", "adamm") for name in CONTEXTS)
