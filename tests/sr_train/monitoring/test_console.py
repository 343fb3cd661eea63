"""What people see of log records, at a terminal and in a job's log."""

import io
import logging
import re

import pytest

from sr_train.monitoring import console as module
from sr_train.monitoring.console import ConsoleHandler


@pytest.fixture
def told(monkeypatch):
    """Return a function that logs a warning and gives what a file or a terminal shows of it."""

    def tell(*, terminal: bool, text: str = "step 300/2500") -> str:
        file = io.StringIO()
        shown = module._PlainConsole(
            file=file, force_terminal=terminal, width=80, soft_wrap=True, highlight=False
        )
        monkeypatch.setattr(module, "console", shown)
        record = logging.LogRecord("a", logging.INFO, __file__, 1, text, None, None)
        ConsoleHandler().emit(record)
        return file.getvalue()

    return tell


def test_without_a_terminal_each_record_has_the_time_of_day(told):
    assert re.fullmatch(r"\d\d:\d\d:\d\d step 300/2500\n", told(terminal=False))


def test_at_a_terminal_the_bar_tells_the_time(told):
    assert told(terminal=True) == "step 300/2500\n"
