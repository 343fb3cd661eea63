"""The one family of errors that a user can cause.

A command that meets an `SRTrainError` prints its message and exits with code 2, without a
traceback. Everything else is a defect of ours: it keeps its traceback and exits with code 1.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class SRTrainError(Exception):
    """Something a user can mend: what is wrong, where, what was expected, what to do."""


class ConfigError(SRTrainError):
    """A config value that is unknown, of the wrong type, missing or impossible."""


class DataError(SRTrainError):
    """A picture, folder or pair that cannot be used."""


class CheckpointError(SRTrainError):
    """A file of weights or of training state that cannot be used."""


class Problems(SRTrainError):
    """Several errors found in one pass, reported together."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        heading = "1 problem:" if count == 1 else f"{count} problems:"
        super().__init__("\n".join([heading, *(f"  - {problem}" for problem in self.problems)]))


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` or, without a near match, `; valid: a, b, c`.

    The comparison ignores case, so that `Train` finds `train`.
    """
    choices = sorted({str(choice) for choice in valid})
    by_lower = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_lower[close[0]]!r}?"
    if not choices:
        return ""
    shown = ", ".join(choices[:12])
    return f"; valid: {shown}{', ...' if len(choices) > 12 else ''}"
