"""Ending a run from outside: by signal, at the end of a step, on all ranks at the same one."""

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from sr_train.engine.distributed import World
from sr_train.ops.launch import announcement

_SECONDS_APART = 2.0
_MOST_STEPS_APART = 1000
_SAME_KEY_PRESS = 2.0


class GracefulStop:
    """Turn SIGINT and SIGTERM into a request that the loop honours between steps.

    So it does with the signal by which a cluster announces the end of a job. The second SIGINT
    raises KeyboardInterrupt at once. Usable as a context manager in the main thread; handlers that
    stood before are put back.

    Several ranks must leave at the same step, or those that stay would wait for the others. They
    ask each other about every two seconds, at steps that all of them know from what they
    exchanged the time before; the steps between cost nothing.

    Args:
        world: ranks that stop together; None: this process alone.
    """

    def __init__(self, world: World | None = None) -> None:
        self.requested: str | None = None
        """Name of the signal, once one came to this process."""
        self._world = World() if world is None else world
        self._before: dict[signal.Signals, Any] = {}
        self._requested_at = 0.0
        self._steps_left = 0
        self._interval = 1
        self._asked_at = time.perf_counter()

    def __enter__(self) -> "GracefulStop":
        announced = announcement()
        for number in (signal.SIGINT, signal.SIGTERM, *([announced] if announced else [])):
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
        self.requested = signal.Signals(number).name

    def _echo(self) -> bool:
        """Tell whether a SIGINT is the first one again, which torchrun hands on."""
        return self._world.size > 1 and time.perf_counter() - self._requested_at < _SAME_KEY_PRESS
