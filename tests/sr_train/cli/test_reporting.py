"""Which of several ranks tells an error, and that none is lost."""

import logging

import pytest

from sr_train.api.errors import ConfigError, DataError
from sr_train.cli import reporting
from sr_train.engine import rank_errors
from sr_train.monitoring.console import console, start_logging
from sr_train.utils.launch import Launch, SharedError


@pytest.fixture
def as_rank(monkeypatch):
    """Return a function that makes this process rank N of 2, with rank 0's errors as given."""

    def become(rank, told=None):
        board = dict(told or {})
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(rank_errors, "post", board.__setitem__)
        monkeypatch.setattr(rank_errors, "read", lambda key, patience_sec: board.get(key))
        return board

    return become


def test_one_process_is_no_rank(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert Launch.from_environment() == (0, 1, 0)
    assert not Launch.from_environment().several


def test_a_rank_knows_its_place(monkeypatch):
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert Launch.from_environment() == (5, 8, 1)
    assert Launch.from_environment().several


def test_rank_0_tells_its_error_and_leaves_a_notice(as_rank, capsys):
    board = as_rank(0)
    assert reporting.report(ConfigError("x=1: wrong")) == 2
    assert capsys.readouterr().err == "error: x=1: wrong\n"
    assert board == {"before": "x=1: wrong", "after": "x=1: wrong"}


@pytest.mark.parametrize(
    ("error", "told", "expected"),
    [
        (ConfigError("x=1: wrong"), {"before": "x=1: wrong"}, ""),
        (ConfigError("x=1: wrong"), {"before": "y: another"}, "rank 1: error: x=1: wrong\n"),
        (ConfigError("x=1: wrong"), {}, "rank 1: error: x=1: wrong\n"),
        (DataError("a.png: damaged"), {"before": ""}, "rank 1: error: a.png: damaged\n"),
        (SharedError("all of us"), {"before": "", "after": "all of us"}, ""),
        (SharedError("all of us"), {"before": ""}, "rank 1: error: all of us\n"),
    ],
)
def test_another_rank_tells_what_rank_0_does_not(as_rank, capsys, error, told, expected):
    as_rank(1, told)
    assert reporting.report(error) == 2
    assert capsys.readouterr().err == expected


def test_without_a_store_every_rank_tells(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    rank_errors.post(rank_errors.BEFORE, "text")
    assert rank_errors.read(rank_errors.BEFORE, 1.0) is None


@pytest.fixture
def logging_put_back():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    yield
    root.handlers, console.quiet = handlers, False
    root.setLevel(level)


@pytest.mark.usefixtures("logging_put_back")
def test_a_rank_above_0_says_nothing_but_warnings(tmp_path, capsys):
    start_logging(tmp_path / "train.log", rank=3)
    logging.getLogger("sr_train").info("on its way")
    logging.getLogger("sr_train").warning("warning: %s", "odd")
    console.print("a table")
    assert capsys.readouterr() == ("", "rank 3: warning: odd\n")
    assert not (tmp_path / "train.log").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["infer", "input=x"], "infer: runs in one process"),
        (["train", "-m", "optimizer.lr=1,2"], "--multirun: runs in one process"),
    ],
)
def test_what_several_processes_cannot_do(as_rank, command, words, told):
    as_rank(0)
    command(*words).fails_with(told)
