"""Being asked to end from outside: said at once, honoured where nothing is lost by it."""

import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, TypeVar

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, a polite kill, a terminal that closes."""

_ECHO_SEC = 2.0

Entered = TypeVar("Entered")


Handler = Callable[[int, FrameType | None], None]


class Handlers:
    """Put a handler on signals, in the main thread; those before are back after `put_back`.

    Signals that are ignored, as nohup does, stay so.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def put(self, numbers: Iterable[int], handler: Handler) -> None:
        """Let signals call the handler."""
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, handler)

    def put_back(self) -> None:
        """Let them call what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Stopped(BaseException):
    """A signal ended what was being done; raised where that can be left off."""


class Stop:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a request to end, and the request into an exit code.

    The first signal is answered at once with a line on stderr. What follows is left to whoever asks
    for `requested`, calls `check`, or works in a `leaving_off` block; the second signal raises
    `Stopped` wherever the program is. At the end of the block, a `Stopped` that nobody caught
    becomes the exit code of the signal. In the main thread only; elsewhere nothing is changed.

    Args:
        promise: what the first signal is answered with, for example `stops after this image`;
            may change, and be empty for no answer.
        at_once: let the first signal raise `Stopped`, too.
    """

    def __init__(self, promise: str, *, at_once: bool = False) -> None:
        self.promise = promise
        self.requested: signal.Signals | None = None
        """The first signal, once there was one."""
        self._at_once = at_once
        self._interruptible = False
        self._held = 0
        self._is_due = False
        self._handlers = Handlers()
        self._requested_at = 0.0

    @property
    def exit_code(self) -> int:
        """Return 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 0 where none came."""
        return 0 if self.requested is None else 128 + self.requested

    def check(self) -> None:
        """Raise `Stopped` if a signal came."""
        if self.requested is not None:
            raise Stopped(self.requested.name)

    @contextmanager
    def leaving_off(self) -> Iterator[None]:
        """Let the first signal break off the block, and raise `Stopped` if there was one."""
        self._interruptible = True
        try:
            self.check()
            yield
        finally:
            self._interruptible = False

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let no signal break off the block; one that would have ends it after the block."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._held == 0 and self._is_due:
            self._is_due = False
            self.check()

    @contextmanager
    def shielding(self, manager: AbstractContextManager[Entered]) -> Iterator[Entered]:
        """Enter a context manager whose own end no signal breaks off, nor follows with an error."""
        entered = manager.__enter__()
        try:
            yield entered
        except BaseException as err:
            with self._ignoring():
                is_handled = manager.__exit__(type(err), err, err.__traceback__)
            if not is_handled:
                raise
        else:
            with self._ignoring():
                manager.__exit__(None, None, None)

    @contextmanager
    def _ignoring(self) -> Iterator[None]:
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._is_due = False

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._handlers.put(ENDING, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handlers.put_back()
        if isinstance(error, Stopped):
            raise SystemExit(self.exit_code) from None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = signal.Signals(number)
            self._requested_at = time.monotonic()
            if self.promise:
                say(f"{self.requested.name}: {self.promise}")
            is_again = False
        else:
            is_again = not self._is_echo(number)
        if number == getattr(signal, "SIGHUP", None):
            _let_go_of_terminal()
        if not (is_again or self._at_once or self._interruptible):
            return
        if self._held:
            self._is_due = True
        else:
            raise Stopped(self.requested.name)

    def _is_echo(self, number: int) -> bool:
        """Tell whether a signal is the first one once more: kernel and shell both send SIGHUP."""
        passed = time.monotonic() - self._requested_at
        return number == self.requested != signal.SIGINT and passed < _ECHO_SEC


def say(text: str) -> None:
    """Write a line to stderr from a signal handler, whatever the program is doing."""
    # A handler may come in the midst of Python's own buffered write, which must not be re-entered.
    with suppress(OSError):
        start = "\n" if os.isatty(2) else ""
        os.write(2, f"{start}{text}\n".encode("utf-8", "backslashreplace"))


def _let_go_of_terminal() -> None:
    """Send what is still printed nowhere, if it went to a terminal that is gone."""
    for descriptor in (1, 2):
        with suppress(OSError):
            is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
            if is_device and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
