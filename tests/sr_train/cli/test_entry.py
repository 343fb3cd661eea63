"""Dispatch, exit codes, and what reaches a person."""

import errno

import pytest

from sr_train import __version__
from sr_train.cli.reporting import is_outside, report
from sr_train.ops.errors import ConfigError, Problems
from tests.toys import broken_loss, no_validation, toy_words


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
    assert is_outside(error) is outside


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

    monkeypatch.setattr("sr_train.cli.train.main", fail)
    command("train").fails_with("error: x=1: wrong")
