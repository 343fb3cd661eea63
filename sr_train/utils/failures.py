"""Exceptions of parts that a config names: whose code failed, where, and with what it was given."""

import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sr_train.api.errors import PluginError, SRTrainError
from sr_train.utils.memory import is_out_of_memory

_ROOT = Path(__file__).resolve().parents[2]
_PARTS = tuple(f"{_ROOT / name}/" for name in ("archs", "losses", "data"))
_OWN = (*_PARTS, f"{_ROOT / 'sr_train'}/", f"{_ROOT / 'scripts'}/")
_LIBRARIES = tuple(
    f"{path}/"
    for path in dict.fromkeys(
        [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, sys.exec_prefix]
    )
)


def users_place(err: BaseException) -> str | None:
    """Return `FILE:LINE, in FUNCTION` of the innermost code of a user's own; None: there is none.

    It is neither this program's nor that of an installed library.
    """
    return _innermost(err, lambda file: not file.startswith((*_OWN, *_LIBRARIES, "<")))


def is_not_users(err: BaseException) -> bool:
    """Return whether no code of a user's own has a part in an exception; see `naming`."""
    return users_place(err) is None


def in_words(err: BaseException) -> str:
    """Return an exception in one line: its kind, its words, and the place it comes from."""
    text = " ".join(str(err).split())
    text = text[:400] + (" ..." if len(text) > 400 else "")
    place = users_place(err) or _innermost(err, lambda file: file.startswith(_PARTS))
    return f"{type(err).__name__}{f': {text}' if text else ''}{f' ({place})' if place else ''}"


@contextmanager
def naming(
    where: str,
    part: object,
    given: Callable[[], str],
    passes: Callable[[Exception], bool] = lambda _: False,
) -> Iterator[None]:
    """Let what a part raises in the block end as an error that names it.

    Errors that say themselves what is wrong, and those that somebody can still do something
    about, go through as they are.

    Args:
        where: config path of the part.
        part: the object; its class is named.
        given: returns what it was called with, in words.
        passes: says which further exceptions go through.

    Raises:
        PluginError: in the place of any other exception.
    """
    try:
        yield
    except SRTrainError:
        raise
    except Exception as err:
        if is_out_of_memory(err) or passes(err):
            raise
        raise PluginError(
            f"{where}: {type(part).__name__} failed on {given()}: {in_words(err)}"
        ) from err


def _innermost(err: BaseException, belongs: Callable[[str], bool]) -> str | None:
    """Return the last place on an exception's way that lies in a file of a kind."""
    found = None
    for frame, line in traceback.walk_tb(err.__traceback__):
        if belongs(frame.f_code.co_filename):
            found = f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
    return found
