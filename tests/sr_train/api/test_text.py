"""Names from outside: nothing in them steers a terminal, forges a line or becomes a formula."""

import csv
import io

import pytest

from sr_train.api.errors import DataError, Problems, SRTrainError, did_you_mean
from sr_train.api.text import brief, csv_cell, duration, first_few, one_line, printable

ESCAPE = "\x1b]0;title\x07\x1b[2J"


def test_control_characters_are_written_out():
    assert printable(ESCAPE) == r"\x1b]0;title\x07\x1b[2J"
    assert printable("a\rb\x9bc\u202ed") == r"a\rb\x9bc\u202ed"


def test_lines_of_a_message_stay_and_letters_of_all_scripts():
    text = "two problems:\n\t- gr\u00fc\u00dfe, \u65e5\u672c\u8a9e, \U0001f600"
    assert printable(text) == text


def test_names_that_are_no_utf8_show_their_bytes():
    assert one_line(b"bad\xff\xfe.png".decode("utf-8", "surrogateescape")) == r"bad\xff\xfe.png"


def test_a_name_cannot_begin_a_line():
    assert one_line("x.png\nWARNING forged\ty") == r"x.png\nWARNING forged\ty"


@pytest.mark.parametrize("name", ["=cmd|' calc'!A1", "+1", "-1", "@x"])
def test_no_cell_is_a_formula(name):
    table = io.StringIO(newline="")
    csv.writer(table).writerow([csv_cell(name), csv_cell("a,b\nc")])
    (row,) = csv.reader(io.StringIO(table.getvalue(), newline=""))
    assert row == [f"'{name}", r"a,b\nc"]


def test_errors_hold_nothing_that_steers_a_terminal():
    assert str(SRTrainError(f"{ESCAPE}\nsecond line")) == printable(ESCAPE) + "\nsecond line"
    assert "\n" not in str(DataError("a\nb.png: damaged"))


def test_a_long_list_of_problems_is_cut_and_counted():
    many = Problems([f"{n}.png: damaged" for n in range(200_000)], advice="try on_bad=skip")
    lines = str(many).splitlines()
    assert lines[0] == "200000 problems:"
    assert lines[-2:] == ["  ... and 199980 more", "try on_bad=skip"]
    assert len(lines) == 23
    assert len(many.problems) == 200_000


def test_a_word_is_found_among_many():
    assert did_you_mean("p19999.pgn", (f"p{n}.png" for n in range(20_000))).startswith("; did you")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (192.4, "3 min 12 s"),
        (3600, "1 h 0 min"),
        (3725, "1 h 2 min"),
        (86_399, "23 h 59 min"),
        (183_600, "2 d 3 h"),
    ],
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_long_words_are_cut_and_counted():
    assert brief("x" * 80) == "x" * 80
    assert brief("x" * 81) == "x" * 80 + "... (81 characters)"
    assert brief("ab\x1b\ncd", 3) == r"ab\x1b... (6 characters)"
    assert brief(12345) == "12345"


def test_a_number_too_long_to_write_is_cut_too():
    with pytest.raises(ValueError, match="limit"):
        str(10**5000)
    assert brief(10**5000, 6).startswith("0x")
    assert len(brief(-(10**5000))) < 120


@pytest.mark.parametrize(
    ("texts", "shown"), [([], ""), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b, ...")]
)
def test_the_first_few_of_many(texts, shown):
    assert first_few(texts, 2) == shown
