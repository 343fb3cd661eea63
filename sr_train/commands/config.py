"""`config`: what configs there are to choose from, and their shape for editors."""

from collections.abc import Sequence
from pathlib import Path

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.config.json_schema import json_schema, printed
from sr_train.config.listing import listed

USAGE = """\
usage: python -m sr_train config list [GROUP] [--config-dir DIR]
       python -m sr_train config schema [COMMAND] [--config-dir DIR]

list      the groups of configs, and the choices in each with what they are
schema    the JSON Schema of a command's config (train, without a word), by which editors complete
          and check experiment files
--config-dir DIR   your own configs, too
"""

ACTIONS = ("list", "schema")


def answer(words: Sequence[str], config_dir: Path | None) -> str:
    """Return what `python -m sr_train config WORDS` prints.

    Raises:
        ConfigError: for an action, a group or a command that there is none of.
    """
    if not words:
        return USAGE
    action, *rest = words
    if action not in ACTIONS:
        raise ConfigError(
            f"config {action}: expected list or schema{did_you_mean(action, ACTIONS)}"
        )
    if len(rest) > 1:
        raise ConfigError(f"config {action} {rest[0]}: expected no further word, found {rest[1]}")
    if action == "list":
        return listed(rest[0] if rest else None, config_dir)
    return printed(json_schema(rest[0] if rest else "train", config_dir))
