"""Memory of several processes: of children, and by name of all others of this user."""

import contextlib
import mmap
import os
import re
import socket
import struct
import sys
import threading
import time
import weakref
from multiprocessing import reduction
from pathlib import Path
from typing import Any, Self

_PATIENCE_SEC = 10.0
_GLANCE_SEC = 0.5
_RETRY_SEC = 0.01


class SharedBytes:
    """Zeroed memory that forked and spawned children see too, and that dies with its users.

    Pages take memory once they are written. There is no name in any file system, so nothing
    stays after a kill, and the size of /dev/shm does not matter.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size = size
        if sys.platform == "linux":
            if descriptor is None:
                descriptor = os.memfd_create("sr_train-frames")
                try:
                    os.ftruncate(descriptor, size)
                except OSError as err:  # such as a limit on the size of files
                    os.close(descriptor)
                    raise OSError(err.errno, err.strerror, "the cache in shared memory") from err
            self._descriptor = descriptor
            self.map = mmap.mmap(descriptor, size)
            weakref.finalize(self, os.close, descriptor)
        else:
            self.map = mmap.mmap(-1, size)

    @classmethod
    def by_name(cls, name: str, size: int, head: bytes) -> tuple[Self, bool]:
        """Return the memory of a name, and whether another process had it already.

        Who comes first makes it and hands it to those who ask, over a socket that has a name but
        no file, as long as the memory lives in that process. When the maker is gone, the others
        keep what they have and the name is free. A maker that does not answer, or is another
        user, is not touched; then the memory is this process's own, as it is on all but Linux.

        Args:
            name: what the memory is for.
            size: in bytes, where it has to be made.
            head: what it begins with, where it has to be made; whoever gets it finds that there.
        """
        deadline = time.monotonic() + _PATIENCE_SEC
        while sys.platform == "linux" and time.monotonic() < deadline:
            address = f"{_prefix()}{name}"
            listener = _bind(address)
            if listener is not None:
                memory = cls(size)
                memory.map[: len(head)] = head
                _serve(memory, listener, memory._descriptor)
                return memory, False
            try:
                descriptor = _ask(address, _PATIENCE_SEC)
            except PermissionError:
                break
            if descriptor is not None:
                return cls(os.fstat(descriptor).st_size, descriptor), True
            time.sleep(_RETRY_SEC)
        memory = cls(size)
        memory.map[: len(head)] = head
        return memory, False

    @classmethod
    def promised_bytes(cls) -> dict[int, int]:
        """Return what the named memories of this user can still take, by their `identity`."""
        promised = {}
        for address in _addresses():
            with contextlib.suppress(PermissionError):
                descriptor = _ask(address, _GLANCE_SEC)
                if descriptor is not None:
                    about = os.fstat(descriptor)
                    os.close(descriptor)
                    promised[about.st_ino] = max(0, about.st_size - about.st_blocks * 512)
        return promised

    @property
    def identity(self) -> int:
        """A number that two objects have in common only if they are the same memory."""
        return os.fstat(self._descriptor).st_ino if sys.platform == "linux" else id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        if sys.platform != "linux":
            return SharedBytes, (self.size,)
        return _attach, (self.size, reduction.DupFd(self._descriptor))


def _attach(size: int, duplicate: Any) -> SharedBytes:
    return SharedBytes(size, duplicate.detach())


def _bind(address: str) -> socket.socket | None:
    """Return a socket that has the name; None where another has it."""
    listener = socket.socket(socket.AF_UNIX)
    _listeners.add(listener)
    try:
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        return None
    return listener


def _prefix() -> str:
    return f"\0sr_train-{os.geteuid()}-"


def _addresses() -> set[str]:
    """Return the names of memories of this user that some process hands out."""
    try:
        table = Path("/proc/net/unix").read_text(errors="replace")
    except OSError:
        return set()
    # There, the zero byte is written as @.
    found = re.findall(f"@{re.escape(_prefix()[1:])}\\w+$", table, re.MULTILINE)
    return {f"\0{name[1:]}" for name in found}


def _ask(address: str, patience_sec: float) -> int | None:
    """Return the descriptor that the maker of a name hands out; None: ask again.

    Raises:
        PermissionError: another user has taken the name.
    """
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(patience_sec)
        try:
            peer.connect(address)
            is_ours = _user(peer) == os.geteuid()
            # Flags: the descriptor shall not outlive this program in those that it starts.
            received = socket.recv_fds(peer, 1, 1, socket.MSG_CMSG_CLOEXEC) if is_ours else None
        except OSError:
            return None
    if received is None:
        raise PermissionError(f"{address!r} belongs to another user")
    return received[1][0] if received[1] else None


def _serve(memory: SharedBytes, listener: socket.socket, descriptor: int) -> None:
    """Answer those who ask for a memory until it is gone from this process."""
    thread = threading.Thread(
        target=_answer, args=(listener, os.dup(descriptor)), name="sr_train-cache", daemon=True
    )
    thread.start()
    weakref.finalize(memory, _stop, listener, thread)


def _answer(listener: socket.socket, descriptor: int) -> None:
    with listener:
        while True:
            try:
                peer = listener.accept()[0]
            except OSError:
                break
            with peer, contextlib.suppress(OSError):
                if _user(peer) == os.geteuid():
                    socket.send_fds(peer, [b"\0"], [descriptor])
    os.close(descriptor)


def _stop(listener: socket.socket, thread: threading.Thread) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    # The collector may have freed the memory while the thread itself was running.
    if thread is not threading.current_thread():
        thread.join()


def _user(peer: socket.socket) -> int:
    """Return the user of the process at the other end."""
    size = struct.calcsize("3i")
    return struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1]


_listeners: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def _close_listeners() -> None:
    """Let a forked child not keep a name that it does not answer for."""
    for listener in list(_listeners):
        listener.close()


if sys.platform == "linux":
    os.register_at_fork(after_in_child=_close_listeners)
