"""The one family of errors that a user can cause.

A command that meets an `SRTrainError` prints its message and exits with code 2, without a
traceback. Everything else is a defect of ours: it keeps its traceback and exits with code 1.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from sr_train.api.text import one_line, printable

MOST_SHOWN = 20
"""Lines of a list of problems that are shown; the others are counted."""

_MOST_COMPARED = 2000
"""Choices beyond which a word is only compared with those of the same first letter."""


class SRTrainError(Exception):
    """Something a user can fix: what is wrong, where, what was expected, what to do.

    Names from outside may be part of the words: what would steer a terminal is written out.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class ConfigError(SRTrainError):
    """A config value that is unknown, of the wrong type, missing or impossible."""


class DataError(SRTrainError):
    """An image, folder or pair that cannot be used; one line, whatever a file is called."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class CheckpointError(SRTrainError):
    """A file of weights or of training state that cannot be used."""


class PluginError(SRTrainError):
    """A network, loss, metric or other part of a user's own failed inside a run."""


class Problems(SRTrainError):
    """Several errors found in one pass, reported together.

    Args:
        problems: all of them; the first ones are shown.
        heading: said before their number is; None: how many problems there are.
        advice: what may be done about all of them, said at the end.
    """

    def __init__(
        self, problems: Sequence[str], heading: str | None = None, advice: str | None = None
    ) -> None:
        self.problems = list(problems)
        self.advice = advice
        count = len(self.problems)
        lines = [heading or ("1 problem:" if count == 1 else f"{count} problems:")]
        lines += [f"  - {problem}" for problem in self.problems[:MOST_SHOWN]]
        if count > MOST_SHOWN:
            lines.append(f"  ... and {count - MOST_SHOWN} more")
        super().__init__("\n".join([*lines, *([advice] if advice else [])]))


def raise_all(problems: Iterable[str]) -> None:
    """Raise `Problems` where there are any."""
    found = list(problems)
    if found:
        raise Problems(found)


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` or, without a near match, `; valid: a, b, c`.

    The comparison ignores case, so that `Train` finds `train`.
    """
    choices = sorted({str(choice) for choice in valid})
    if len(choices) > _MOST_COMPARED:
        first = word[:1].lower()
        choices = [choice for choice in choices if choice[:1].lower() == first][:_MOST_COMPARED]
    by_lower = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_lower[close[0]]!r}?"
    if not choices:
        return ""
    shown = ", ".join(choices[:12])
    return f"; valid: {shown}{', ...' if len(choices) > 12 else ''}"
