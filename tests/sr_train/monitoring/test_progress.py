"""Progress where there is no terminal: few lines, the time left, and one at the end."""

import io
import logging

import pytest

from sr_train.monitoring import console as module
from sr_train.monitoring.console import LineBar, progress_bar


@pytest.fixture
def now(monkeypatch, caplog):
    """Return a list whose last number is what the clock shows."""
    caplog.set_level(logging.INFO)
    times = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: times[-1])
    return times


def test_a_line_at_most_every_half_minute(now, caplog):
    bar = LineBar("infer", 100)
    for number in range(1, 101):
        now.append(now[-1] + 1.0)
        bar.advance(f"{number}.png")
    bar.say()
    assert caplog.messages == [
        "infer: 30 of 100, left 0:01:10 (30.png)",
        "infer: 60 of 100, left 0:00:40 (60.png)",
        "infer: 90 of 100, left 0:00:10 (90.png)",
        "infer: 100 of 100 in 0:01:40",
    ]


def test_what_was_done_before_is_no_pace(now, caplog):
    bar = LineBar("infer", 100, done=90)
    now.append(now[-1] + 40.0)
    bar.advance()
    assert caplog.messages == ["infer: 91 of 100, left 0:06:00"]


def test_a_new_count_begins_a_new_clock(now, caplog):
    """Each clip of several counts its own frames."""
    bar = LineBar("infer", 0)
    bar.show(0, 10, "a.mp4")
    now.append(now[-1] + 20.0)
    bar.show(10, 10, "a.mp4")
    bar.show(0, 100, "b.mp4")
    now.append(now[-1] + 20.0)
    bar.show(5, 100, "b.mp4")
    assert caplog.messages == ["infer: 5 of 100, left 0:06:20 (b.mp4)"]


def test_nothing_done_says_nothing(now, caplog):
    LineBar("infer", 10).say()
    bar = LineBar("infer", 10)
    now.append(now[-1] + 90.0)
    bar.show(0, 10, "a.mp4")
    bar.say()
    assert caplog.messages == []


@pytest.mark.parametrize(("lines", "terminal"), [(True, False), (False, False), (True, True)])
def test_lines_are_for_where_there_is_no_terminal(monkeypatch, caplog, lines, terminal):
    caplog.set_level(logging.INFO)
    shown = module._PlainConsole(file=io.StringIO(), force_terminal=terminal, width=80)
    monkeypatch.setattr(module, "console", shown)
    with progress_bar("validate", 1, lines=lines) as bar:
        bar.advance()
    assert (len(caplog.messages) == 1) == (lines and not terminal)


def test_the_last_line_is_said_where_an_error_ends_the_work(now, caplog):
    def work():
        with progress_bar("infer", 5, lines=True) as bar:
            bar.advance("a.png")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert len(caplog.messages) == 1
