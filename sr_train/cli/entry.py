"""The frame around every command: dispatch, error messages, exit codes."""

import errno
import importlib
import os
import sys
import traceback

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from sr_train import __version__
from sr_train.ops.errors import SRTrainError, did_you_mean

COMMANDS = {
    "train": "train a network, or go on with a run (resume=auto)",
    "validate": "score a network on test sets",
    "infer": "use a network on a picture or a folder",
    "export": "write a network's weights as .safetensors",
    "check": "look for every problem of a run before it starts",
    "overfit": "prove that a network can learn a handful of samples",
}

USAGE = """\
usage: python -m sr_train COMMAND [+experiment=NAME] [key=value ...]

{commands}

python -m sr_train COMMAND --help      what a command reads
python -m sr_train COMMAND --cfg job   the config it would run with
"""

USER_ERROR = 2
INTERRUPTED = 130


def main() -> int:
    """Run one command; return the exit code (0 done, 2 a user's error, 1 a defect of ours)."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in {"--help", "-h", "help"}:
        _say(usage(), sys.stdout)
        return 0
    if command == "--version":
        _say(f"sr_train {__version__}\n", sys.stdout)
        return 0
    if command not in COMMANDS:
        _say(f"unknown command {command!r}{did_you_mean(command, COMMANDS)}\n\n{usage()}")
        return USER_ERROR
    del sys.argv[1]
    return run(command)


def usage() -> str:
    """Return the text of `python -m sr_train --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return USAGE.format(commands="\n".join(lines))


def run(command: str) -> int:
    """Call the command's own Hydra entry point and turn its errors into messages."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to this frame
    try:
        result = importlib.import_module(f"sr_train.cli.{command}").main()
    except SRTrainError as err:
        return _user_error(err, wants_traceback)
    except (HydraException, OmegaConfBaseException) as err:
        return _user_error(_explained(command, err), wants_traceback)
    except OSError as err:
        if _is_outside(err):
            return _user_error(_os_error(err), wants_traceback)
        traceback.print_exc()
        return 1
    except KeyboardInterrupt:
        _say("interrupted\n")
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        return 1
    return int(result or 0)


def _explained(command: str, err: Exception) -> Exception:
    from sr_train.config.compose import explain

    if isinstance(err.__cause__, SRTrainError):
        return err.__cause__
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    return explain(command, overrides, err)


def _is_outside(err: OSError) -> bool:
    """Tell a full disk or an unusable path from a defect of ours."""
    return err.filename is not None or err.errno in {errno.ENOSPC, errno.EDQUOT}


def _os_error(err: OSError) -> SRTrainError:
    return SRTrainError(f"{err.filename}: {err.strerror}" if err.filename else f"{err.strerror}")


def _user_error(err: Exception, wants_traceback: bool) -> int:
    if wants_traceback:
        traceback.print_exception(err)
    _say(f"error: {err}\n")
    return USER_ERROR


def _say(text: str, stream: object = None) -> None:
    out = sys.stderr if stream is None else stream
    out.write(text)  # type: ignore[attr-defined]
