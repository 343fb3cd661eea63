"""The callbacks of a run: who hears of which event, who asked for a stop, what they keep."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor

from sr_train.api.callback import EVENTS, Callback, Outcome, Run
from sr_train.api.errors import ConfigError, PluginError, SRTrainError
from sr_train.engine.distributed import World
from sr_train.utils.failures import in_words, naming

log = logging.getLogger(__name__)


class Callbacks:
    """Call the callbacks of a run, in their order; see `sr_train.api.callback` for the events.

    Args:
        parts: callbacks by config path, the same on every rank.
        run: what they see.
        world: the ranks that agree on a stop.
    """

    def __init__(self, parts: Mapping[str, Callback], run: Run, world: World) -> None:
        self.parts = dict(parts)
        self.run = run
        self.stopped: str | None = None
        """Which callback ended the run and why, agreed among the ranks."""
        self.signal: str | None = None
        """Name of the signal that ended the run."""
        self._world = world
        self._asked: str | None = None
        self._listeners = {
            event: [(path, part) for path, part in self.parts.items() if _overrides(part, event)]
            for event in EVENTS
        }
        self._is_muted = False

    def call(self, event: str, *given: Any) -> None:
        """Call an event of every callback that overrides it.

        Raises:
            PluginError: naming the callback that failed; no other event is called after it.
            ConfigError: naming the callback that something is wrong with.
        """
        if self._is_muted:
            return
        for path, part in self._listeners[event]:
            try:
                self._call(path, part, event, *given)
            except Exception:
                self._is_muted = True
                raise

    def _call(self, path: str, part: Callback, event: str, *given: Any) -> None:
        with named(path, part, f"{event}, step {self.run.step}"):
            getattr(part, event)(self.run, *given)
        if self._asked is None and self.run.stop_reason is not None:
            self._asked = f"{path}: {self.run.stop_reason}"

    def agree(self, *, at_once: bool) -> None:
        """Learn whether a callback asked for a stop, on whichever rank; a collective.

        Args:
            at_once: whether all ranks are at the same event; elsewhere only a single rank learns
                of its own callbacks.
        """
        if self._world.size == 1:
            self.stopped = self._asked
        elif at_once and self.parts and self.stopped is None:
            asked = self._world.gather(self._asked)
            self.stopped = next((reason for reason in asked if reason is not None), None)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Call `on_run_start` before the block and `on_run_end` after it, whatever ended it."""
        try:
            if self._listeners["on_run_start"]:
                with self._world.together():
                    self.call("on_run_start")
            self.agree(at_once=True)
            yield
        except Exception as err:
            outcome = Outcome("error", str(err) or type(err).__name__, err)
            for fault in self.end(outcome):
                log.warning("warning: %s", fault)
            raise
        faults = self.end(self._outcome())
        if faults:
            raise PluginError("; ".join(faults))

    def _outcome(self) -> Outcome:
        if self.signal is not None:
            return Outcome("signal", self.signal)
        return Outcome("complete") if self.stopped is None else Outcome("stopped", self.stopped)

    def end(self, outcome: Outcome) -> list[str]:
        """Let every callback end; return what went wrong in that."""
        faults = []
        for path, part in self._listeners["on_run_end"]:
            try:
                self._call(path, part, "on_run_end", outcome)
            except Exception as err:  # one callback's defect keeps none from cleaning up
                faults.append(str(err) if isinstance(err, SRTrainError) else in_words(err))
        return faults

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each callback by its config path."""
        return {path: state_of(path, part) for path, part in self.parts.items()}


class Directed(Protocol):
    """A metric that knows which way is better."""

    @property
    def higher_is_better(self) -> bool: ...


def directions(metrics: Mapping[str, Directed], set_names: Sequence[str]) -> dict[str, bool]:
    """Return which way is better, under each name that a score of a validation has."""
    ways = {metric: each.higher_is_better for metric, each in metrics.items()}
    by_set = {f"{name}/{metric}": way for name in set_names for metric, way in ways.items()}
    return {**ways, **by_set} if set_names else {}


def restore_callbacks(parts: Mapping[str, Callback], stored: Mapping[str, Any]) -> list[str]:
    """Restore the state of callbacks, in place.

    Args:
        parts: callbacks by config path.
        stored: states by config path.

    Returns:
        What was dropped and what begins anew, one phrase each.
    """
    gone = [path for path, state in stored.items() if state and path not in parts]
    notes = [f"stored state of {path} dropped" for path in gone]
    for path, part in parts.items():
        if path in stored:
            with named(path, part, "its stored state"):
                part.load_state_dict(stored[path])
        elif state_of(path, part):
            notes.append(f"{path} starts anew")
    return notes


def state_of(path: str, part: Callback) -> dict[str, Any]:
    """Return the state of a callback.

    Raises:
        PluginError: if it holds what a training state cannot.
    """
    with named(path, part, "state_dict()"):
        state = part.state_dict()
    odd = _odd_value(state, "state_dict()") if isinstance(state, dict) else "state_dict()"
    if odd is not None:
        raise PluginError(
            f"{path}: {type(part).__name__}: {odd} is not what a training state can hold; expected "
            "a dict of tensors, numbers, text, None, and lists and dicts of those under text"
        )
    return state


@contextmanager
def named(path: str, part: Callback, given: str) -> Iterator[None]:
    """Let what a callback raises in the block end as an error that names it."""
    try:
        with naming(path, part, lambda: given):
            yield
    except ConfigError as err:
        raise ConfigError(f"{path}: {err}") from err
    except SystemExit as err:
        name = type(part).__name__
        raise PluginError(f"{path}: {name} called sys.exit({err.code!r}) on {given}") from err


def _odd_value(value: Any, where: str) -> str | None:
    """Return where in a state something lies that cannot be stored; None: nowhere."""
    if value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str):
        return None
    items: list[tuple[Any, Any]] = []
    if type(value) is dict and all(type(key) is str for key in value):
        items = list(value.items())
    elif type(value) in (list, tuple):
        items = list(enumerate(value))
    else:
        return f"{where}, a {type(value).__name__},"
    found = (_odd_value(item, f"{where}[{key!r}]") for key, item in items)
    return next((odd for odd in found if odd is not None), None)


def _overrides(part: Callback, event: str) -> bool:
    return getattr(type(part), event) is not getattr(Callback, event)
