"""Typed words on their way to Hydra."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sr_train.config.words import Word, literal, quoted, split, unquoted


def through_hydra(word: Word):
    """Return the value that a config holds after an override."""
    override = OverridesParser.create().parse_override(str(word))
    config = OmegaConf.create({"a": None, "scale": 2})
    OmegaConf.update(config, "a", override.value())
    return config.a if not OmegaConf.is_list(config.a) else list(config.a)


def as_kind(kind, value, many=False):
    return quoted(Word("", "a", value), lambda key: kind, many=many)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_text_comes_out_of_hydra_as_it_was_typed(text):
    """But for what Hydra's own way of writing means: quotes, references, escapes of those."""
    if "${" in text or "\\$" in text:
        return
    assert through_hydra(Word("", "a", literal(text))) == text


@pytest.mark.parametrize(
    "value",
    [
        *("my pic (1).png", "a[b].png", "c,d", "e=f", "50%", "g#h", "i&j", "it's", 'q"r', "a$b"),
        *("back\\slash", "a\\,b", "end\\", "\\'", " lead", "trail ", "~/x", "semi;colon", "<x>"),
        *("2024_01_15", "1e3", "true", "007", "0x10", "inf", "-1", "None", "{a: 1}", "[x].png"),
        *("http://x/y?z=1&k=2", "a${b", "${", "pic(1)", "'a'b", "\u00fcml\u00e4ut", "\u65e5\u672c"),
        *("a\nb", "a\tb", "`x`", "a|b", "x!", "a^b", "*", "["),
    ],
)
def test_a_setting_that_is_text_takes_the_typed_text(value):
    assert through_hydra(as_kind("text", value)) == value


@pytest.mark.parametrize("value", ["plain", "a/b.png", "50%", "a*b", "007", "C:\\x"])
def test_what_hydra_reads_as_that_text_is_left_as_it_is(value):
    assert as_kind("text", value).value == value


@pytest.mark.parametrize(
    "value",
    [
        *("'quoted'", '"a b"', "null", "", "${scale}", "run_${scale}", "choice(a,b)", "range(1,3)"),
        *("glob(*)", "str(5)", "interval(0,1)"),
    ],
)
def test_what_is_written_in_hydras_way_stays(value):
    assert as_kind("text", value).value == value


def test_a_reference_beside_what_hydra_cannot_read_stays_a_reference():
    assert through_hydra(as_kind("text", "my (x)/${scale}")) == "my (x)/2"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[a,b]", ["a", "b"]),
        ("[my pic (1).png, 2024_01_15]", ["my pic (1).png", "2024_01_15"]),
        ("[1e3,true,007]", ["1e3", "true", "007"]),
        ("['a,b', \"c d\", null]", ["a,b", "c d", None]),
        ("[]", []),
        ("[it's]", ["it's"]),
    ],
)
@pytest.mark.parametrize("kind", ["texts", "either"])
def test_a_list_of_texts_takes_each_as_it_was_typed(kind, value, expected):
    assert through_hydra(as_kind(kind, value)) == expected


def test_one_of_several_may_stand_without_brackets():
    assert through_hydra(as_kind("either", "2024_01_15")) == "2024_01_15"
    assert through_hydra(as_kind("either", "[x].png")) == "[x].png"
    assert as_kind("texts", "a").value == "a", "a list is expected, and told"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a,b", "a,b"),
        ("my (1),2024_01_15", "'my (1)','2024_01_15'"),
        ("'x,y',z", "'x,y',z"),
    ],
)
def test_with_several_runs_a_comma_parts_values(value, expected):
    assert as_kind("text", value, many=True).value == expected
    assert "," in through_hydra(as_kind("text", value)), "one text, where there is one run"


@pytest.mark.parametrize("value", ["3", "[1,2]", "{a: 1}", "[{match: 'a'", "1,2"])
def test_a_setting_that_is_no_text_is_left_to_hydra(value):
    assert as_kind(None, value).value == value


def test_what_hydra_cannot_read_is_text_wherever_it_stands():
    assert through_hydra(as_kind(None, "5;0")) == "5;0"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a, b", ["a", " b"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("[a,b],{c: 1, d: 2}", ["[a,b]", "{c: 1, d: 2}"]),
        ("it's,b", ["it's", "b"]),
        ("a[0,1],b", ["a[0", "1]", "b"]),
        ("", [""]),
    ],
)
def test_lists_are_parted_at_their_own_commas(text, items):
    assert list(split(text)) == items


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("a=1", ("", "a", "1")),
        ("+a.b=c=d", ("+", "a.b", "c=d")),
        ("++a=", ("++", "a", "")),
        ("~a.b", ("~", "a.b", None)),
        ("a", ("", "a", None)),
        ("a=x\ny", ("", "a", "x\ny")),
    ],
)
def test_words_are_taken_apart(word, parts):
    found = Word.of(word)
    assert (found.prefix, found.key, found.value) == parts
    assert str(found) == word


def test_words_of_a_run_are_found_among_typed_ones():
    assert unquoted("+a.b='my pic'") == unquoted("a.b=my pic")
    assert unquoted("a=1") != unquoted("a=2")


@pytest.mark.parametrize("kind", ["text", "texts", "either"])
@pytest.mark.parametrize("name", ["[Group] Show [1080p]", "[a]b[c]", "[1080p] a, b [x]"])
def test_a_name_that_begins_and_ends_with_brackets_is_no_list(kind, name):
    word = quoted(Word.of(f"key={name}"), lambda _: kind, many=False)
    assert str(word) == (f"key={name}" if kind == "texts" else f"key='{name}'")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[a (1),2024_01_15],b", "['a (1)','2024_01_15'],b"),
        ("[a,b],[c (2)]", "[a,b],['c (2)']"),
        ("[a,1_0],b (1)", "[a,'1_0'],'b (1)'"),
        ("[Group] Show [1],b", "'[Group] Show [1]',b"),
    ],
)
def test_a_sweep_over_lists_of_texts_takes_each_as_a_list(value, expected):
    assert as_kind("either", value, many=True).value == expected
