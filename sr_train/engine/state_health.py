"""Which saved states are known to be good, and what becomes of those that are not."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from sr_train.engine.checkpoint import move_states
from sr_train.io.files import write_atomically
from sr_train.monitoring.meter import LogWindow

DIVERGED = "diverged"
"""Folder beside the states for those that a run saved on its way to losses that are not finite."""

_NOTE = "healthy_step.txt"


class StateHealth:
    """Tell good states from those that a diverging run saved.

    The step before the first NaN may have blown the weights up already, so nothing that is seen up
    to a state vouches for it. It counts as healthy once a whole log window after it was finite.

    Args:
        saved: steps of the states that are there.
        healthy: the newest of them that is known to be healthy; None: none is.
        step: at which the first log window begins.
    """

    def __init__(
        self, saved: Iterable[int] = (), healthy: int | None = None, step: int = 0
    ) -> None:
        self.saved: set[int] = set(saved)
        """Steps whose states are there."""
        self.healthy = healthy
        self._window_start = step

    def add(self, step: int, keep_last: int) -> None:
        """Take note of a state that is saved, and of those that are dropped for it.

        Args:
            step: whose state it is.
            keep_last: the newest ones stay, and `healthy` and `awaiting`.
        """
        self.saved.add(step)
        self.saved = {*sorted(self.saved)[-keep_last:], *(self.saved & self.needed)}

    @property
    def awaiting(self) -> int | None:
        """The newest state that the log window under way began after, which it may confirm."""
        return max((step for step in self.saved if step <= self._window_start), default=None)

    @property
    def needed(self) -> set[int | None]:
        """The states that are not dropped, however old they are."""
        return {self.healthy, self.awaiting}

    def close_window(self, step: int, window: LogWindow) -> bool:
        """Look at a log window; return whether another state is known to be healthy now.

        Args:
            step: at which it ended, and the next begins.
            window: what was measured in it.
        """
        before = self.healthy
        if _is_finite(window) and self.awaiting is not None:
            self.healthy = self.awaiting
        self._window_start = step
        return self.healthy != before


def _is_finite(window: LogWindow) -> bool:
    """Whether every loss of a window was finite, and some gradient of each network.

    Single gradients overflow in half precision as a matter of course: the loss scale is found so.
    """
    names = {*window.counts, *window.non_finite}
    if any(name.startswith(("loss/", "loss_d/")) for name in window.non_finite):
        return False
    norms = [name for name in names if name.startswith("grad_norm/")]
    return bool(window.counts) and all(window.counts.get(name, 0) > 0 for name in norms)


def write_healthy(folder: Path, step: int) -> None:
    """Note the newest healthy state beside the states; a state itself cannot know it.

    Where that fails, the states give the one before.
    """
    with contextlib.suppress(OSError):
        write_atomically(folder / _NOTE, f"{step}\n".encode(), sync=False)


def read_healthy(folder: Path) -> int | None:
    """Return what `write_healthy` noted; None where nothing is, or nothing that makes sense."""
    with contextlib.suppress(OSError, ValueError):
        return int((folder / _NOTE).read_bytes()[:20])
    return None


def set_aside_diverged(folder: Path, healthy: int | None, weights: Iterable[Path]) -> None:
    """Move the states after the newest healthy one, and weights of the same time, aside.

    Args:
        folder: of the states.
        healthy: step of the newest healthy state; None: all are moved.
        weights: files that hold the weights of the end.
    """
    move_states(folder, -1 if healthy is None else healthy, DIVERGED)
    for path in weights:
        if path.is_file():
            target = folder / DIVERGED / path.name
            target.parent.mkdir(exist_ok=True)
            path.replace(target)


def way_back(folder: Path, healthy: int | None, kept: int | None) -> str:
    """Say how a run that diverged resumes.

    Args:
        folder: of the states.
        healthy: step of the newest healthy state; None: there is none.
        kept: step of a state that was set aside though it may be sound; None: none may be.
    """
    if healthy is None:
        way = "No state was followed by finite steps: start as before, resume=auto begins anew"
    else:
        way = f"resume=auto resumes from step {healthy}, the newest state before it went wrong"
    way = f"{way}; what was saved since is in checkpoints/{DIVERGED}"
    if kept is None:
        return way
    return f"{way}\n  {_if_sound(folder / DIVERGED / f'step_{kept:08d}.pt')}"


def only_state(folder: Path, step: int) -> str:
    """Say how a run resumes whose first state makes predictions that are not finite."""
    state = folder / f"step_{step:08d}.pt"
    return (
        f"{_if_sound(state)}\n  if its weights are, start anew with a smaller learning rate, under "
        "another name=..."
    )


def _if_sound(state: Path) -> str:
    return (
        "if that image or the network's own code is at fault and not the weights, fix it and "
        f"type the same with resume={state}"
    )


def went_back(folder: Path, step: int) -> bool:
    """Tell whether states of later steps than one were set aside as diverged."""
    later = (folder / DIVERGED).glob("step_*.pt")
    return any(int(path.stem.removeprefix("step_")) > step for path in later)
