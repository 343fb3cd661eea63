"""Dispatch, exit codes, and what reaches a person."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from sr_train import __version__
from sr_train.api.errors import ConfigError, Problems
from sr_train.cli import entry
from sr_train.cli.reporting import is_environment_error, report
from tests.toys import ROOT, broken_loss, no_validation, toy_words


def test_the_version(command):
    assert command("--version").succeeds().out == f"sr_train {__version__}\n"


def test_a_defect_keeps_its_traceback_and_ends_with_one(command, in_folder, monkeypatch):
    monkeypatch.setattr("sr_train.engine.trainer.save_state", None)
    done = command("train", *no_validation(*toy_words(in_folder)))
    assert done.code == 1
    assert "TypeError: 'NoneType' object is not callable" in done.err
    assert "Traceback" in done.err


def test_a_failing_part_of_the_users_own_is_named(command, in_folder):
    words = [broken_loss(in_folder), "objective.l1.loss={_target_: broken.loss.Loss}"]
    done = command("train", *no_validation(*toy_words(in_folder)), *words)
    done.fails_with(
        "objective.l1.loss: Loss failed on pred: a tensor (2, 3, 32, 32) float32",
        "ZeroDivisionError",
        "broken/loss.py:4",
    )


def test_a_traceback_on_request(command, monkeypatch):
    monkeypatch.setattr("sr_train.cli.reporting.WANTS_TRACEBACK", True)
    done = command("train", "+experiment=quickstart", "scale=-2")
    assert done.code == 2
    assert "Traceback" in done.err
    assert "scale=-2" in done.err


@pytest.mark.parametrize(
    ("error", "outside"),
    [
        (FileNotFoundError(errno.ENOENT, "no such file", "here"), True),
        (OSError(errno.ENOSPC, "no space"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EBADF, "bad descriptor"), False),
    ],
)
def test_which_os_errors_are_the_users(error, outside):
    assert is_environment_error(error) is outside


def test_reports_are_lines_for_people(capsys):
    assert report(Problems(["a=1: too small", "b: missing"])) == 2
    assert report(PermissionError(errno.EACCES, "Permission denied", "/there")) == 2
    assert capsys.readouterr().err == (
        "error: 2 problems:\n  - a=1: too small\n  - b: missing\nerror: /there: Permission denied\n"
    )


def test_errors_of_composition_are_explained_once(command):
    done = command("train", "+experiment=quickstart", "arch.num_feat=8", "trian.steps=1")
    done.fails_with("1 problem:\n  - trian.steps: no such key; did you mean 'train.steps'?")
    assert done.err.count("error:") == 1


def test_config_errors_are_a_users(command, monkeypatch):
    def fail(request):
        raise ConfigError("x=1: wrong")

    monkeypatch.setattr("sr_train.cli.entry.run_job", fail)
    command("train").fails_with("error: x=1: wrong")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (
            ["+experiment=quickstart"],
            "for example: python -m sr_train train +experiment=quickstart",
        ),
        (["--experiment", "x"], "no command before '--experiment'"),
        (["-opt", "x.yml"], "no command before '-opt'"),
        (["train", "--experiment=x"], "settings are written without dashes: experiment=x"),
        (["train", "quickstart"], "to choose an experiment: +experiment=quickstart"),
        (["overfit", "search=lr"], "search=lr: overfit takes no such group; it is for train"),
    ],
)
def test_what_people_type_is_answered(command, words, says):
    command(*words).fails_with(says)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        pytest.param(["train", "--help"], marks=pytest.mark.slow),
        pytest.param(["train", "--cfg", "job"], marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_has_gone_is_no_defect(words):
    """As `--help | head -1`: the pipe is closed before all is written."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sr_train", *words],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize(
    "closed",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in (">&-", ">&- 2>&-")), "<&- >&- 2>&-"],
)
def test_streams_may_be_closed(in_folder, closed):
    """As a service is started: what is printed goes nowhere, and into no file."""
    seen = (
        "import os, sys; from sr_train.cli import entry; sys.argv[1:] = ['--version']; "
        f"code = entry.main(); found = os.open({str(in_folder / 'f')!r}, os.O_RDWR | os.O_CREAT); "
        "sys.exit(code if found > 2 else 3)"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", seen],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0
    assert (in_folder / "f").read_bytes() == b""


@pytest.mark.parametrize(
    ("which", "shown"),
    [
        ("all", "experiment/quickstart"),
        ("config", "num_feat: 8"),
        ("defaults", "experiment/quickstart"),
        ("defaults-tree", "experiment: quickstart"),
        ("searchpath", "configs://"),
    ],
)
def test_info_takes_settings(command, which, shown):
    done = command("train", f"--info={which}", "experiment=quickstart", "arch.num_feat=8")
    assert shown in done.succeeds().out


def test_the_config_that_a_run_would_have(command):
    done = command("train", "experiment=quickstart", "data.train.exclude=[a]", "--cfg", "job")
    assert "exclude:\n    - a\n" in done.succeeds().out
    done = command("train", "experiment=quickstart", "seed=${nope}", "--cfg=job", "--resolve")
    done.fails_with("--resolve: ", "nope")


def test_hydras_own_help(command):
    assert "Hydra" in command("train", "--hydra-help").succeeds().out


def test_plug_ins_are_told_once(command, in_folder):
    words = no_validation(*toy_words(in_folder), broken_loss(in_folder), "train.steps=1")
    done = command("check", *words, "step=false").succeeds()
    assert done.out.count(f"plug-in broken: {in_folder}/broken") == 1
    done = command("train", *words, "seed=1,2", "-m").succeeds()
    assert done.out.count("plug-in broken: ") == 1
    without = [word for word in words if not word.startswith("plugins")]
    assert "plug-in" not in command("check", *without, "step=false").succeeds().out
    gone = command("check", *words, "plugins=[no_such_package]", "step=false").succeeds()
    assert "plug-in no_such_package: not found" in gone.out


def test_ctrl_c_after_the_end_is_ignored(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(entry, "main", lambda: 2)
    try:
        with pytest.raises(SystemExit) as end:
            entry.program()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 2
