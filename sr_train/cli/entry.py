"""The frame around every command: dispatch, errors, exit codes."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from sr_train import __version__
from sr_train.api.errors import ConfigError, SRTrainError, did_you_mean
from sr_train.cli.flags import Flags, is_override, parse, stray
from sr_train.cli.reporting import INTERRUPTED, USER_ERROR, is_environment_error, report
from sr_train.cli.running import Request, run_job
from sr_train.cli.table import COMMANDS, HELP
from sr_train.utils.launch import Launch, adopt_srun, end_with_launcher

USAGE = """\
usage: python -m sr_train COMMAND [+experiment=NAME] [key=value ...]
       sr-train COMMAND ...   the same

{commands}

python -m sr_train COMMAND --help      what a command reads
python -m sr_train COMMAND --cfg job   the config it would run with
eval "$(python -m sr_train -sc install=bash)"       the TAB key completes (or zsh)
torchrun --nproc-per-node=N -m sr_train train ...   one run on N GPUs, or N processes on CPUs
"""

_WRITES_NOTHING = "hydra.output_subdir=null"
"""Keeps Hydra of a rank above 0 from writing the config into the run's folder."""

_RUNS_ONCE = "hydra.mode=RUN"
"""Lets `check` take the line of a search or of a cluster's job."""

_MANY = ("search=", "cluster=")
"""Groups that turn one run into a sweep."""

_CLOSED_PIPE = 141
"""What a shell makes of SIGPIPE: the reader of our words, such as `head`, has gone."""


def program() -> NoReturn:
    """Run one command and end; a Ctrl-C that comes when all is done changes nothing."""
    try:
        code = main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def main() -> int:
    """Run one command; return the exit code (0 done, 2 a user's error, 1 a defect of ours)."""
    _replace_closed_streams()
    try:
        code = _dispatch()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python would flush at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE


def _replace_closed_streams() -> None:
    """Send what is printed nowhere where there is no such stream, as after `>&-`.

    No file that is opened later gets its number then, by which libraries would write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            os.fstat(number)
        except OSError:
            os.dup2(nowhere, number)
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, os.fdopen(nowhere, mode))


def _dispatch() -> int:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # plug-ins lie there; `python -m` does the same
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in {"--help", "-h", "help"}:
        sys.stdout.write(usage())
        return 0
    if command in {"--version", "-V"}:
        sys.stdout.write(f"sr_train {__version__}\n")
        return 0
    if command in {"-sc", "--shell-completion"}:
        return _completion(sys.argv[2:])
    if command == "config":
        return _config(sys.argv[2:])
    if command not in COMMANDS:
        sys.stderr.write(f"{_no_command(command)}\n\n{usage()}")
        return USER_ERROR
    sys.argv[1:] = sys.argv[2:]
    try:
        request = _request(command, sys.argv[1:])
        return _completion(request.words) if request.flags.shell_completion else run(request)
    except SRTrainError as err:
        return report(err)


def _completion(words: Sequence[str]) -> int:
    """Print what a shell, or its user, asks for about completion."""
    from sr_train.cli.completing import complete

    try:
        sys.stdout.write(complete(words, list(HELP)))
    except SRTrainError as err:
        return report(err)
    return 0


def _config(words: Sequence[str]) -> int:
    """Print what there is to choose from, or its shape."""
    from sr_train.commands.config import USAGE, answer

    try:
        given, flags = parse("train", words)
        if replace(flags, config_dir=None, help=False) != Flags():
            raise ConfigError("config: expected no other flag than --config-dir DIR")
        sys.stdout.write(USAGE if flags.help else answer(given, flags.config_dir))
    except SRTrainError as err:
        return report(err)
    return 0


def usage() -> str:
    """Return the text of `python -m sr_train --help`."""
    width = max(map(len, HELP))
    lines = [f"  {name:<{width}}  {text}" for name, text in HELP.items()]
    return USAGE.format(commands="\n".join(lines))


def _no_command(word: str) -> str:
    """Say what is missing where the first word is none of the commands."""
    if word.startswith("-") or is_override(word):
        rest = " ".join(sys.argv[1:4])
        return f"no command before {word!r}; for example: python -m sr_train train {rest}"
    return f"unknown command {word!r}{did_you_mean(word, HELP)}"


def _request(command: str, typed: Sequence[str]) -> Request:
    """Return what the words of a command ask for.

    Raises:
        ConfigError: if they ask for what there is not.
    """
    words, flags = parse(command, typed)
    strays = [word for word in words if not is_override(word)]
    if strays:
        raise ConfigError("\n".join(stray(command, word) for word in strays))
    added = []
    many = next(filter(_makes_many, words), None)
    if many is not None and not COMMANDS[command].sweeps:
        if command != "check":
            raise ConfigError(f"{many}: {command} takes no such group; it is for train")
        added.append(_RUNS_ONCE)
    adopt_srun()
    launch = Launch.from_environment()
    end_with_launcher()
    if launch.several:
        fault = _fault_of_several(command, flags)
        if fault is not None:
            raise fault
        if launch.rank > 0:
            added.append(_WRITES_NOTHING)
    return Request(command, words, flags, added)


def _fault_of_several(command: str, flags: Flags) -> ConfigError | None:
    if not COMMANDS[command].several:
        return ConfigError(f"{command}: runs in one process; call it without torchrun")
    if flags.multirun:
        return ConfigError("--multirun: runs in one process; start torchrun once for each value")
    return None


def run(request: Request) -> int:
    """Call the command and turn its errors into messages."""
    try:
        run_job(request)
    except SRTrainError as err:
        return report(err)
    except BrokenPipeError:
        raise
    except OSError as err:
        if is_environment_error(err):
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


def _makes_many(word: str) -> bool:
    return word.lstrip("+").startswith(_MANY)
