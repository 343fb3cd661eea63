"""Words from outside, such as names of files, on their way to a terminal, a log or a table."""

import re
from collections.abc import Sequence

_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""What steers a terminal, turns the direction of writing, or cannot be encoded, without line breaks
and tabs."""

_MOST_BITS = 4096

_UNPRINTABLE = re.compile(f"[{_CONTROL}]")
_BREAKING = re.compile(f"[{_CONTROL}\t\n]")
_FORMULA = re.compile(r"[=+\-@\t\r]")
_UNDECODED = range(0xDC80, 0xDD00)
"""What Python makes of bytes 0x80 to 0xff in names of files that are no UTF-8."""


def printable(text: str) -> str:
    r"""Return text with control characters written out, `\x1b` for ESC; line breaks stay."""
    return _UNPRINTABLE.sub(_written_out, text)


def one_line(text: object) -> str:
    r"""Return text with all control characters written out, line breaks as `\n`: for names."""
    return _BREAKING.sub(_written_out, str(text))


def brief(text: object, most: int = 80) -> str:
    """Return text as `one_line` does; of more than `most` characters the first, and their number.

    For words out of a file that nobody has checked, in a message.
    """
    # Python refuses to write whole numbers of thousands of digits in decimal.
    long = isinstance(text, int) and text.bit_length() > _MOST_BITS
    words = f"{text:#x}" if long else str(text)
    if len(words) <= most:
        return one_line(words)
    return f"{one_line(words[:most])}... ({len(words):,} characters)"


def first_few(texts: Sequence[str], most: int = 5) -> str:
    """Return the first of some texts, with `...` after them where there are more."""
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")


def csv_cell(text: object) -> str:
    """Return text for a cell of a CSV file, which no spreadsheet takes for a formula."""
    line = one_line(text)
    return f"'{line}" if _FORMULA.match(line) else line


def duration(seconds: float) -> str:
    """Return a time in words: `12.5 s`, `3 min 12 s`, `5 h 40 min`, `2 d 3 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, left = divmod(hours, 24)
    if days:
        return f"{days} d {left} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code in _UNDECODED:
        return f"\\x{code - 0xDC00:02x}"
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    )
