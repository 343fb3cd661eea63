"""Files that turn out to be damaged while a set is in use, and which samples stand in for them.

A sample whose file cannot be decoded is made from another image or clip, chosen by numbers that
its (seed, epoch, index) give: workers, ranks and resumed runs agree without a word, with and
without a cache. Each draw is as likely to meet any other image, so that none is seen more often
than its neighbours because those are damaged.
"""

import errno
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from sr_train.api.errors import MOST_SHOWN, DataError
from sr_train.api.text import one_line
from sr_train.utils.splitmix import splitmix64

log = logging.getLogger(__name__)

_DRAWS = 64
_OF_THE_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})


class BadFileError(DataError):
    """A file that cannot be used, as shows only now: damaged, changed, or gone since indexing."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path


def skip_advice(usable: Sequence[object]) -> str | None:
    """Return what may be done about files that cannot be used, where others can."""
    return "on_bad=skip continues without what cannot be used" if usable else None


def reason(error: DataError, path: str) -> str:
    """Return why a file cannot be used, from an error that may name it first."""
    return str(error).removeprefix(f"{one_line(path)}: ")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Let what goes wrong with a file in the block name the file, unless the machine is at fault.

    Raises:
        BadFileError: in place of a `DataError`.
    """
    try:
        yield
    except BadFileError:
        raise
    except DataError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError) and cause.errno in _OF_THE_MACHINE:
            raise
        raise BadFileError(path, str(error)) from None


class Damage:
    """What was found damaged in a set: remembered by number, and reported once by file.

    Numbers are those of images or of frames. That of a set with `on_bad=error` remembers
    nothing: training ends, and whoever asks again may have fixed the file.
    """

    def __init__(self, is_skipped: bool) -> None:
        self.is_skipped = is_skipped
        """Whether training continues without damaged files."""
        self._known: dict[int, tuple[str, str]] = {}
        self._told: set[str] = set()
        self._untold: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> bool:
        return self.is_skipped

    def __setstate__(self, state: bool) -> None:
        self.__init__(state)  # type: ignore[misc]

    @contextmanager
    def watched(self, number: int) -> Iterator[None]:
        """Remember a file that proves damaged in the block; what is known to be is not read again.

        Raises:
            BadFileError: from the block, or what it raised before for this number.
        """
        self.check((number,))
        try:
            yield
        except BadFileError as error:
            if self.is_skipped:
                self._remember(number, error)
            raise

    def check(self, numbers: Iterable[int]) -> None:
        """Raise where one of these is known to be damaged.

        Raises:
            BadFileError: for the first of them.
        """
        for number in numbers:
            if number in self._known:
                raise BadFileError(*self._known[number])

    def take(self) -> list[tuple[str, str]]:
        """Return (path, why) of each file found since the last call; no file comes twice."""
        with self._lock:
            untold, self._untold = self._untold, []
        return untold

    def replace(self, candidates: Iterable[int], make: Callable[[int], None]) -> None:
        """Make a sample from the first of some candidates whose files are whole.

        Args:
            candidates: what `stand_ins` yields.
            make: makes the sample from the candidate that it is given.

        Raises:
            BadFileError: the first candidate's, where damage is not skipped.
            DataError: all candidates are damaged.
        """
        first: BadFileError | None = None
        for candidate in candidates:
            try:
                make(candidate)
                return
            except BadFileError as error:
                if not self.is_skipped:
                    why = f"{error}; on_bad=skip continues without such files"
                    raise BadFileError(error.path, why) from None
                first = first or error
        raise DataError(f"nothing is left to train on, every file is damaged, such as {first}")

    def _remember(self, number: int, error: BadFileError) -> None:
        self._known[number] = (error.path, str(error))
        with self._lock:
            if error.path not in self._told:
                self._told.add(error.path)
                self._untold.append((error.path, str(error)))


def stand_ins(seed: int, epoch: int, index: int, size: int) -> Iterator[int]:
    """Yield an index, then those that stand in for it one after the other, at last every one.

    Args:
        seed: of the set.
        epoch: of the sample.
        index: of the sample.
        size: of the set.
    """
    yield index
    bits = splitmix64(splitmix64(splitmix64(~seed) ^ epoch) ^ index)
    for _ in range(_DRAWS):
        bits = splitmix64(bits)
        yield ((bits >> 32) * size) >> 32
    yield from ((index + step) % size for step in range(1, size))


class DamageLog:
    """Names each damaged file once in the log, the first ones in full, and counts all."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._counted = 0

    def add(self, found: Iterable[tuple[str, str]]) -> None:
        """Name files as (path, why), but for those that were named before."""
        for path, why in found:
            if path in self._paths:
                continue
            self._paths.add(path)
            if len(self._paths) <= MOST_SHOWN:
                log.warning("damaged, other samples stand in (on_bad=skip): %s", why)
            elif len(self._paths) == MOST_SHOWN + 1:
                log.warning("more files are damaged; `check decode=true` names all of them")

    def close(self) -> None:
        """Tell how many there were, if that is news."""
        if len(self._paths) > self._counted:
            self._counted = len(self._paths)
            files = (
                "1 damaged file was"
                if self._counted == 1
                else f"{self._counted} damaged files were"
            )
            log.warning("%s met and left out (on_bad=skip)", files)
