"""The frame around every command: dispatch, Hydra's errors, exit codes."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from sr_train import __version__
from sr_train.cli.reporting import INTERRUPTED, USER_ERROR, is_outside, report
from sr_train.ops.errors import ConfigError, SRTrainError, did_you_mean
from sr_train.ops.launch import Launch, adopt_srun, end_with_launcher

COMMANDS = {
    "train": "train a network, or go on with a run (resume=auto)",
    "validate": "score a network on test sets",
    "infer": "use a network on a picture, a video or a folder",
    "export": "write a network's weights as .safetensors",
    "check": "look for every problem of a run before it starts",
    "overfit": "prove that a network can learn a handful of samples",
}

USAGE = """\
usage: python -m sr_train COMMAND [+experiment=NAME] [key=value ...]

{commands}

python -m sr_train COMMAND --help      what a command reads
python -m sr_train COMMAND --cfg job   the config it would run with
torchrun --nproc-per-node=N -m sr_train train ...   one run on N GPUs, or N processes on CPUs
"""

_WRITES_NOTHING = "hydra.output_subdir=null"
"""Keeps Hydra of a rank above 0 from writing the config into the run's folder."""

_RUNS_ONCE = "hydra.mode=RUN"
"""Lets `check` take the line of a search or of a cluster's job."""

_MANY = ("+search=", "+cluster=")
"""Groups that turn one run into a sweep."""


def main() -> int:
    """Run one command; return the exit code (0 done, 2 a user's error, 1 a defect of ours)."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in {"--help", "-h", "help"}:
        sys.stdout.write(usage())
        return 0
    if command == "--version":
        sys.stdout.write(f"sr_train {__version__}\n")
        return 0
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        sys.stderr.write(f"unknown command {command!r}{hint}\n\n{usage()}")
        return USER_ERROR
    words = sys.argv[2:]
    many = next(filter(_makes_many, words), None)
    if many is not None and command != "train":
        if command != "check":
            return report(ConfigError(f"{many}: {command} takes no such group; it is for train"))
        words.append(_RUNS_ONCE)
    adopt_srun()
    launch = Launch.from_environment()
    end_with_launcher()
    if launch.several:
        fault = _fault_of_several(command, words)
        if fault is not None:
            return report(fault)
        if launch.rank > 0:
            words.append(_WRITES_NOTHING)
    # Hydra's parser wants all overrides in one piece; people put flags between and behind them.
    sys.argv[1:] = sorted(words, key=_is_override)
    return run(command)


def _fault_of_several(command: str, words: Sequence[str]) -> ConfigError | None:
    if command not in {"train", "validate"}:
        return ConfigError(f"{command}: runs in one process; call it without torchrun")
    if {"-m", "--multirun"} & {*words}:
        return ConfigError("--multirun: runs in one process; start torchrun once for each value")
    return None


def usage() -> str:
    """Return the text of `python -m sr_train --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return USAGE.format(commands="\n".join(lines))


def run(command: str) -> int:
    """Call the command's own Hydra entry point and turn its errors into messages."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to this frame
    try:
        importlib.import_module(f"sr_train.cli.{command}").main()
    except SRTrainError as err:
        return report(err)
    except (HydraException, OmegaConfBaseException) as err:
        return report(_explained(command, err))
    except YAMLError as err:
        return report(ConfigError(f"a config file is no YAML: {err}"))
    except OSError as err:
        if is_outside(err):
            return report(err)
        return _defect()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception:
        return _defect()
    return 0


def _defect() -> int:
    rank = Launch.from_environment().rank
    if rank > 0:
        sys.stderr.write(f"rank {rank}:\n")
    traceback.print_exc()
    return 1


def _explained(command: str, err: Exception) -> Exception:
    from sr_train.config.compose import explain, of_first_run

    added = {_WRITES_NOTHING, _RUNS_ONCE}
    overrides = [word for word in sys.argv[1:] if _is_override(word) and word not in added]
    if {"-m", "--multirun"} & {*sys.argv} or any(map(_makes_many, overrides)):
        overrides = of_first_run(overrides)
    return explain(command, overrides, err, _config_dir(sys.argv[1:]))


def _config_dir(words: list[str]) -> Path | None:
    """Return the value of Hydra's own flag --config-dir."""
    for flag, value in pairwise([*words, ""]):
        if flag in {"--config-dir", "-cd"}:
            return Path(value)
        if flag.startswith("--config-dir="):
            return Path(flag.split("=", 1)[1])
    return None


def _makes_many(word: str) -> bool:
    return word.startswith(_MANY)


def _is_override(word: str) -> bool:
    return not word.startswith("-") and ("=" in word or word.startswith("~"))
