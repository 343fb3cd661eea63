"""What a callback is: code that accompanies a training run, with no line of it in the loop.

A run, and where each event lies in it:

    build everything; restore what a resume finds             # load_state_dict(state)
    on_run_start(run)
    while run.step < run.steps and not stopped:
        on_step_start(run)
        take a batch, run forward and backward, update the weights
        on_step_end(run)
        if this step is logged:
            write the scalars; on_log(run, window)
        if this step is validated:
            save; on_validation_start(run); score; on_validation_end(run, scores); save
        else if this step is saved:
            save                                              # each save: state_dict(), on_save
        if a callback called run.stop(reason):
            log, validate and save, as after the last step; stopped
    on_run_end(run, outcome)                                  # whatever ended it, an error too
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sr_train.api.logger import Logger


@dataclass
class Run:
    """What a callback sees of a run, and what it may ask of it."""

    model: Any
    """The `sr_train.engine.model.SRModel`: `generator.net`, `learners`, `net_for_use()`, ..."""
    steps: int
    """Steps of the whole run."""
    folder: Path
    """The run's folder. Only the main rank may write into it."""
    log: Callable[[Mapping[str, float]], None]
    """Writes scalars of the current step to metrics.csv and the loggers; call it on all ranks."""
    loggers: Mapping[str, Logger] = field(default_factory=dict)
    """The loggers by which the run reports, by config path; none on ranks other than the main."""
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    """Whether more is better, by the names that scores have: METRIC, SET/METRIC; empty without a
    validation."""
    rank: int = 0
    """Of this process."""
    num_ranks: int = 1
    """Processes that train as one; each of them has all callbacks."""
    is_rehearsal: bool = False
    """Whether `check` tries the callback out: nothing may leave this machine then."""
    stop_reason: str | None = None
    """Why a callback asked for a stop, if one did."""

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.model.generator.steps)

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that logs and writes files."""
        return self.rank == 0

    def stop(self, reason: str) -> None:
        """Ask for the end of the run; it ends as after its last step, with exit code 0.

        It ends with the step under way. Several ranks agree on it at the next step that is logged
        or validated; one of them suffices.

        Args:
            reason: in words, for the log and for whoever resumes the run.
        """
        if self.stop_reason is None:
            self.stop_reason = reason


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    kind: Literal["complete", "stopped", "signal", "error"]
    """`stopped`: a callback asked for it."""
    reason: str = ""
    """Why it was stopped, the name of the signal, or the words of the error."""
    error: Exception | None = None


class Callback:
    """The base class of every callback; each event does nothing unless it is overridden.

    A callback runs on every rank. Events between two log intervals must not wait for the device
    (`.item()`, `.cpu()`, `bool(tensor)`); what is not overridden is not called and costs nothing.
    What an event raises ends the run, with the state saved and the callback named.
    """

    def on_run_start(self, run: Run) -> None:
        """Look at the run before its first step; a ConfigError here ends it at once.

        Ranks do not wait for each other in here, so call no collective.
        """

    def on_step_start(self, run: Run) -> None:
        """Act before the batch of a step is taken; `run.step` does not count it yet."""

    def on_step_end(self, run: Run) -> None:
        """Act after the weights of a step were updated."""

    def on_log(self, run: Run, window: Any) -> None:
        """Look at a log interval, once its scalars are written.

        Args:
            run: at the step that ends the interval.
            window: `means`, `counts` and `non_finite` of each scalar by name, the same on every
                rank, see `sr_train.monitoring.meter`.
        """

    def on_validation_start(self, run: Run) -> None:
        """Act before a validation."""

    def on_validation_end(self, run: Run, scores: Mapping[str, float]) -> None:
        """Look at the scores of a validation, the same on every rank.

        Args:
            run: at the step whose weights were scored.
            scores: by METRIC the mean over all sets, by SET/METRIC that of one set.
        """

    def on_save(self, run: Run, path: Path) -> None:
        """Act after a training state was written.

        Args:
            run: at the step whose state it is.
            path: of the state, which the main rank wrote.
        """

    def on_run_end(self, run: Run, outcome: Outcome) -> None:
        """Clean up, report; called once, whatever ended the run, except a second Ctrl-C.

        After an error the other ranks may be gone: wait for none of them then.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs: tensors, numbers, text, and lists and dicts of those."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, before `on_run_start`."""


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))
"""Names of all events, in the order of a run."""
