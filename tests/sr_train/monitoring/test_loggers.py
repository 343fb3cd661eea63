"""All loggers as one: everything reaches each of them, and what one raises names it."""

import errno

import numpy as np
import pytest

from sr_train.api.errors import PluginError
from sr_train.api.logger import Logger
from sr_train.monitoring.loggers import Loggers


class Kept(Logger):
    """A logger that keeps what it is given, and raises what it is told to."""

    def __init__(self, **raised):
        self.calls = []
        self.raised = raised

    def take(self, name, *given):
        self.calls.append((name, *given))
        if name in self.raised:
            raise self.raised[name]

    def scalars(self, values, step):
        self.take("scalars", dict(values), step)

    def config(self, config):
        self.take("config", config)

    def image(self, name, pixels, step):
        self.take("image", name, pixels.shape, step)

    def text(self, name, text):
        self.take("text", name, text)

    def histogram(self, name, values, step):
        self.take("histogram", name, values.size, step)

    def close(self):
        self.take("close")


class OnlyScalars(Logger):
    def scalars(self, values, step): ...


def all_of(loggers):
    loggers.config({"scale": 2})
    loggers.scalars({"a": 1.0}, 3)
    loggers.image("x", np.zeros((4, 6, 3), np.uint8), 3)
    loggers.text("note", "words")
    loggers.histogram("w", np.zeros((2, 5)), 3)
    loggers.close()


def test_everything_reaches_each_logger(tmp_path):
    first, second = Kept(), Kept()
    all_of(Loggers({"logger.a": first, "logger.b": OnlyScalars(tmp_path), "logger.c": second}))
    assert first.calls == second.calls
    assert first.calls == [
        ("config", {"scale": 2}),
        ("scalars", {"a": 1.0}, 3),
        ("image", "x", (4, 6, 3), 3),
        ("text", "note", "words"),
        ("histogram", "w", 10, 3),
        ("close",),
    ]


def test_a_run_without_loggers_logs_nothing():
    all_of(Loggers())


def test_one_logger_cannot_change_what_the_next_is_given():
    class Greedy(Kept):
        def scalars(self, values, step):
            values.clear()

    second = Kept()
    Loggers({"logger.a": Greedy(), "logger.b": second}).scalars({"a": 1.0}, 3)
    assert second.calls == [("scalars", {"a": 1.0}, 3)]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("config", "the config"),
        ("scalars", "the scalars of step 3"),
        ("image", "the image x of step 3, 6x4"),
        ("text", "the text note"),
        ("histogram", "the histogram w of step 3, 10 numbers"),
        ("close", r"close\(\)"),
    ],
)
def test_what_fails_is_named_with_its_config_path(name, given):
    loggers = Loggers({"logger.a": Kept(), "logger.b": Kept(**{name: ConnectionError("gone")})})
    expected = rf"^logger\.b: Kept failed on {given}: ConnectionError: gone"
    with pytest.raises(PluginError, match=expected):
        all_of(loggers)


def test_an_error_of_a_disk_stays_what_it_is():
    full = OSError(errno.ENOSPC, "No space left on device", "runs/x/own.txt")
    with pytest.raises(OSError, match=r"runs/x/own\.txt") as err:
        Loggers({"logger.a": Kept(scalars=full)}).scalars({}, 1)
    assert err.value is full


def test_all_loggers_are_closed_where_one_cannot_be():
    last = Kept()
    loggers = Loggers({"logger.a": Kept(close=ValueError("stuck")), "logger.b": last})
    with pytest.raises(PluginError, match=r"^logger\.a: Kept failed on close\(\)"), loggers:
        pass
    assert last.calls == [("close",)]


def test_the_error_that_ends_a_run_is_not_hidden_by_one_of_closing(caplog):
    loggers = Loggers({"logger.a": Kept(close=ValueError("stuck"))})
    with pytest.raises(KeyError, match="cause"), loggers:
        raise KeyError("cause")
    assert "warning: logger.a: Kept failed on close(): ValueError: stuck" in caplog.text
