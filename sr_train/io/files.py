"""Files that appear complete or not at all, and what interrupted writes leave.

A file is written beside its place, under a short random name, and takes its own name when it is
complete. The temporary file is locked as long as somebody writes it, so that what a killed process
left over can be distinguished from what another process is writing now.
"""

import contextlib
import errno
import itertools
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_OF_A_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS}

_NAME = re.compile(r"\.sr_[0-9a-f]{8}\.tmp")


def read_ends(path: str, count: int) -> bytes | None:
    """Return the first and the last bytes of a file; None where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(count)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - count))
            return head + file.read(count)
    except OSError:
        return None


class TemporaryFile:
    """A file that is being written, and takes the name of its target by `commit`.

    Args:
        target: whose folder must exist.

    Raises:
        OSError: naming `target`, if nothing can be written there.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        while True:
            self.path = target.with_name(f".sr_{secrets.token_hex(4)}.tmp")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
            try:
                self._descriptor = os.open(self.path, flags, 0o666)
            except FileExistsError:
                continue
            except OSError as err:
                raise OSError(err.errno, err.strerror, str(target)) from None
            # Somebody who cleans up may have come in between.
            if _lock(self._descriptor) is not False and os.fstat(self._descriptor).st_nlink > 0:
                return
            os.close(self._descriptor)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            OSError: naming the target.
        """
        left = memoryview(data).cast("B")
        with self._named():
            while left:
                left = left[os.write(self._descriptor, left) :]

    def commit(self, *, sync: bool = True) -> None:
        """Let the file take its target's place, also that of a link.

        Args:
            sync: make sure first that its bytes are on the disk.

        Raises:
            OSError: naming the target; the temporary file is gone then.
        """
        try:
            with self._named():
                if sync:
                    os.fsync(self._descriptor)
                self.path.replace(self.target)
                if sync:
                    _sync_folder(self.target.parent)
        except BaseException:
            self.discard()
            raise
        os.close(self._descriptor)

    def discard(self) -> None:
        """Remove the temporary file; nothing is at its target that was not there before."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise OSError(err.errno, err.strerror or str(err), str(self.target)) from err


def write_atomically(path: Path, data: bytes | memoryview, *, sync: bool = True) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    Args:
        path: its folder must exist.
        data: all of it.
        sync: make sure that the bytes are on the disk before the file takes its name.

    Raises:
        OSError: naming `path`; nothing is left over.
    """
    temporary = TemporaryFile(path)
    try:
        temporary.write(data)
    except BaseException:
        temporary.discard()
        raise
    temporary.commit(sync=sync)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove temporary files that lie directly in a folder and that nobody writes any more.

    Returns:
        What was removed.
    """
    removed: list[Path] = []
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
    except OSError:
        return removed
    for path in found:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if _lock(descriptor):
                    path.unlink()
                    removed.append(path)
            finally:
                os.close(descriptor)
    return removed


def set_aside(path: Path, why: str) -> Path:
    """Give a file or folder that cannot be used another name, and warn; nothing is lost.

    Args:
        path: must exist.
        why: it cannot be used.

    Returns:
        Where it is now.
    """
    names = (f"{path.name[:200]}.bad{number or ''}" for number in itertools.count())
    target = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    path.replace(target)
    log.warning("warning: %s: %s; set aside as %s", path, why, target.name)
    return target


def _lock(descriptor: int) -> bool | None:
    """Lock an open file; False: somebody else has, None: there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def naming_path(path: Callable[[], str | Path]) -> Iterator[None]:
    """Give the errors of a disk a path that have none, as those of a write or a close."""
    try:
        yield
    except OSError as err:
        if err.filename is None and err.errno in _OF_A_DISK:
            err.filename = str(path())
        raise
