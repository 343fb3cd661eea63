"""Ending a run from outside: by signal, at the end of a step."""

import signal
from types import FrameType, TracebackType
from typing import Any


class GracefulStop:
    """Turn SIGINT and SIGTERM into a request that the loop honours between steps.

    The second SIGINT raises KeyboardInterrupt at once. Usable as a context manager in the main
    thread; handlers that stood before are put back.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the signal, once one came."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "GracefulStop":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
