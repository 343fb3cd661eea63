"""Where the time of a run goes."""

import time


class Clock:
    """Time of a log window and of the whole launch, without what validation and saving took."""

    def __init__(self) -> None:
        self.training = 0.0
        """Seconds of all closed windows."""
        self.waiting = 0.0
        """Seconds of them in which the loop waited for data."""
        self.steps = 0
        """Steps taken in them."""
        self.beside: dict[str, float] = {}
        """Seconds beside training, by what they were for."""
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin a window after a step; what was measured since the last one is forgotten."""
        self._step = step
        self._started = time.perf_counter()

    def leave_out(self, what: str, seconds: float) -> None:
        """Take time out of the window that is open."""
        self.beside[what] = self.beside.get(what, 0.0) + seconds
        self._started += seconds

    def close(self, step: int, waited: float) -> dict[str, float]:
        """Count the open window and begin a new one; return its pace, nothing without a step.

        Args:
            step: the last one done.
            waited: seconds that the loop waited for data.
        """
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        steps = step - self._step
        self.restart(step)
        if steps == 0:
            return {}
        self.training += elapsed
        self.waiting += min(waited, elapsed)
        self.steps += steps
        return {
            "time/steps_per_sec": steps / elapsed,
            "time/data_wait_fraction": min(1.0, waited / elapsed),
        }

    def left(self, steps: int) -> float | None:
        """Return the seconds that so many more steps will take, with what is done beside them.

        They are taken to continue as in all closed windows; None where there was none yet.
        """
        if self.steps == 0:
            return None
        return steps * (self.training + sum(self.beside.values())) / self.steps

    def totals(self) -> dict[str, float]:
        """Return the pace over all closed windows; nothing where there was none."""
        if self.steps == 0:
            return {}
        return {
            "steps_per_sec": self.steps / self.training,
            "data_wait_fraction": self.waiting / self.training,
        }
