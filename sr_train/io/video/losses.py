"""What of a video could not be read: how many frames, which, and why."""

from dataclasses import dataclass, field
from fractions import Fraction

_MOST_SPANS = 5


@dataclass
class Span:
    """Frames that follow each other."""

    first: int
    last: int
    start: Fraction
    """Seconds."""
    end: Fraction
    """Seconds, of the last frame."""

    def __str__(self) -> str:
        if self.first == self.last:
            return f"frame {self.first} at {seconds(self.start)}"
        return f"frames {self.first} to {self.last} at {seconds(self.start)} to {seconds(self.end)}"


@dataclass
class Frames:
    """A set of frames, in the order in which they are shown."""

    spans: list[Span] = field(default_factory=list)

    def add(self, number: int, time: Fraction, count: int = 1, end: Fraction | None = None) -> None:
        """Add frames after those that are there.

        Args:
            number: of the first.
            time: of the first, in seconds.
            count: of frames.
            end: time of the last; None if there is one.
        """
        last, end = number + count - 1, time if end is None else end
        if self.spans and self.spans[-1].last == number - 1:
            self.spans[-1].last, self.spans[-1].end = last, end
        else:
            self.spans.append(Span(number, last, time, end))

    def __len__(self) -> int:
        return sum(span.last - span.first + 1 for span in self.spans)

    def __str__(self) -> str:
        shown = "; ".join(str(span) for span in self.spans[:_MOST_SPANS])
        more = len(self.spans) - _MOST_SPANS
        return f"{shown}; and {more} places more" if more > 0 else shown


@dataclass
class Losses:
    """What was lost of a video while its frames were read; false if nothing was."""

    given: int = 0
    """Frames that were read."""
    missing: Frames = field(default_factory=Frames)
    """Frames between them that could not be decoded."""
    flawed: Frames = field(default_factory=Frames)
    """Frames that were given though parts of them are made up."""
    early_end: str | None = None
    """Where and how the file ends before it should."""
    cut_off: int = 0
    """Frames missing there, as far as the file says."""
    undecodable_start: int = 0
    """Frames that need others from before the start of the file; these are no damage."""

    def __bool__(self) -> bool:
        return bool(self.missing.spans or self.flawed.spans or self.early_end)

    @property
    def total(self) -> int:
        """Return how many frames there should be."""
        return self.given + len(self.missing) + self.cut_off

    def clear(self) -> None:
        """Forget all, for a file that is read anew."""
        self.__init__()  # type: ignore[misc]

    def __str__(self) -> str:
        """Return what was lost in one line, or nothing."""
        parts = []
        if self.missing.spans:
            parts.append(
                f"{self._fraction(len(self.missing))} damaged and missing ({self.missing})"
            )
        if self.early_end:
            count = f", {self._fraction(self.cut_off)} missing" if self.cut_off else ""
            parts.append(f"{self.early_end}{count}")
        if self.flawed.spans:
            parts.append(f"{self._fraction(len(self.flawed))} damaged in parts ({self.flawed})")
        return "; ".join(parts)

    def _fraction(self, count: int) -> str:
        return f"{count} of {self.total} frames {'is' if count == 1 else 'are'}"

    @property
    def notes(self) -> list[str]:
        """Return a line for what is left out without being damaged."""
        if not self.undecodable_start:
            return []
        count = self.undecodable_start
        return [
            f"it starts in the middle: {count} frame{'s' * (count > 1)} at its start cannot be "
            "decoded without what was before, and left out"
        ]


def seconds(time: Fraction) -> str:
    """Return a time as people read it."""
    return f"{float(time):.3f} s"
