"""Ending a run from outside: by signal, at the end of a step, on all ranks at the same one."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from types import FrameType, TracebackType

from sr_train.engine.distributed import World
from sr_train.utils.launch import announcement
from sr_train.utils.signals import ENDING, Handlers, say

_SECONDS_APART = 2.0
_MOST_STEPS_APART = 1000
_SAME_KEY_PRESS = 2.0

_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)


class GracefulStop:
    """Turn SIGINT, SIGTERM and SIGHUP into a request that the loop honours between steps.

    So it does with the signal by which a cluster announces the end of a job. What will happen is
    said at once, on stderr. The second SIGINT raises KeyboardInterrupt at once. A signal that is
    ignored, as nohup ignores SIGHUP, stays so. Usable as a context manager in the main thread;
    handlers that stood before are put back.

    Several ranks must leave at the same step, or those that stay would wait for the others. They
    ask each other about every two seconds, at steps that all of them know from what they
    exchanged the time before; the steps between cost nothing.

    Args:
        world: ranks that stop together; None: only this process.
    """

    def __init__(self, world: World | None = None) -> None:
        self.requested: str | None = None
        """Name of the signal, once one came to this process."""
        self._world = World() if world is None else world
        self._handlers = Handlers()
        self._requested_at = 0.0
        self._steps_left = 0
        self._interval = 1
        self._asked_at = time.perf_counter()
        self._terminals: list[int] = []
        self.busy_with = "step"
        """What is under way, at whose end the loop looks for a request."""

    def __enter__(self) -> "GracefulStop":
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        announced = announcement()
        self._handlers.put((*ENDING, *([] if announced is None else [announced])), self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handlers.put_back()

    def agreed(self) -> str | None:
        """Return the signal that ends the run, the same on all ranks; call it once per step."""
        if self._world.size == 1:
            return self.requested
        if self._steps_left > 0:
            self._steps_left -= 1
            return None
        now = time.perf_counter()
        answers = self._world.gather((self.requested, (now - self._asked_at) / self._interval))
        self._asked_at = time.perf_counter()
        seconds = max(sum(pace for _, pace in answers) / len(answers), 1e-6)
        self._interval = max(1, min(_MOST_STEPS_APART, round(_SECONDS_APART / seconds)))
        self._steps_left = self._interval - 1
        return next((name for name, _ in answers if name is not None), None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT and not self._echo():
            raise KeyboardInterrupt
        if self.requested is None:
            self._requested_at = time.perf_counter()
            if number == _HANGUP:
                _write_nowhere(self._terminals)
            elif self._world.is_main:
                self._announce(number)
        self.requested = signal.Signals(number).name

    def _announce(self, number: int) -> None:
        """Say what will happen."""
        again = "; again: at once" if number == signal.SIGINT else ""
        name = signal.Signals(number).name
        say(f"{name}: stops after this {self.busy_with}, with the state saved{again}")

    def _echo(self) -> bool:
        """Tell whether a SIGINT is the first one again, which torchrun hands on."""
        return self._world.size > 1 and time.perf_counter() - self._requested_at < _SAME_KEY_PRESS


def _write_nowhere(streams: Sequence[int]) -> None:
    """Write into nothing from now on where a terminal was, since that is gone."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        for stream in streams:
            os.dup2(nothing, stream)
        os.close(nothing)
