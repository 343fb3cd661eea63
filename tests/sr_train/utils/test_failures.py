"""Whose code failed: a user's own, an installed library's, or the program's."""

import functools
import types

import pytest

import archs.compact
from sr_train.api.errors import ConfigError, PluginError
from sr_train.engine import trainer
from sr_train.utils.failures import in_words, naming, users_place


def raised(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        function()
    # Without the frame of this test, which is nobody's.
    return caught.value.with_traceback(caught.tb.tb_next)


def fails():
    return {}["nothing"]


def within(file, inner=fails):
    """Return a function that passes for one of a file, and calls another."""

    def outer():
        return inner()

    code = outer.__code__.replace(co_filename=file)
    return types.FunctionType(code, outer.__globals__, "outer", None, outer.__closure__)


def test_a_users_own_file_is_told_with_its_line():
    error = raised(within("/home/anna/mine/nets.py"))
    assert users_place(error) == f"{__file__}:{fails.__code__.co_firstlineno + 1}, in fails"


FILES = [trainer.__file__, pytest.__file__, types.__file__, "<string>"]


@pytest.mark.parametrize("file", FILES)
def test_the_programs_files_and_libraries_are_not_the_users(file):
    assert users_place(raised(within(file, int_of_nothing))) is None


int_of_nothing = functools.partial(int, "x")  # written in C: it has no frame


def test_a_shipped_part_is_told_with_its_line():
    text = in_words(raised(within(archs.compact.__file__, within(pytest.__file__, int_of_nothing))))
    assert text.startswith("ValueError: invalid literal")
    assert f"({archs.compact.__file__}:" in text


def test_words_are_one_line_and_not_too_long():
    text = in_words(RuntimeError("a\nb" + "x" * 1000))
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("said already"), ConfigError),
        (MemoryError(), MemoryError),
        (RuntimeError("CUDA out of memory"), RuntimeError),
        (KeyError("passes"), KeyError),
        (ValueError("named"), PluginError),
    ],
)
def test_what_goes_through_and_what_is_named(error, kind):
    with (
        pytest.raises(kind) as caught,
        naming("arch", [], lambda: "an input", lambda err: isinstance(err, KeyError)),
    ):
        raise error
    assert (caught.type is PluginError) == (kind is PluginError)
    if kind is PluginError:
        assert str(caught.value).startswith("arch: list failed on an input: ValueError: named (")
