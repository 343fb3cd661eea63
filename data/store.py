"""FrameStore: decoded pictures in memory that all processes of a training run share."""

import mmap
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np

from sr_train.ops.errors import DataError

_ALIGN = 64
_GIB = 1 << 30

Shape = tuple[int, ...]
Record = tuple[np.ndarray, ...]


def available_bytes() -> int:
    """Return the memory that this process may still use: the machine's and its group's limit."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return min([free, *_group_limits()])


def _group_limits() -> list[int]:
    """Return what is left under each memory limit of the control groups we are in."""
    left = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.strip("/")
        while True:
            limit, used = (_lines(folder / name) for name in names[:2])
            if limit and used and limit[0] != "max":
                stat = dict(line.split() for line in _lines(folder / "memory.stat"))
                # File cache that the kernel would give back counts as used there.
                left.append(max(0, int(limit[0]) - int(used[0]) + int(stat.get(names[2], 0))))
            if folder == root:
                break
            folder = folder.parent
    return left


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


class _SharedBytes:
    """Zeroed memory that forked and spawned children see too, and that dies with them.

    Pages take memory once they are written. There is no name in any file system, so nothing
    stays behind after a kill, and the size of /dev/shm does not matter.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size = size
        if sys.platform == "linux":
            if descriptor is None:
                descriptor = os.memfd_create("sr_train-frames")
                os.ftruncate(descriptor, size)
            self._descriptor = descriptor
            self.map = mmap.mmap(descriptor, size)
            weakref.finalize(self, os.close, descriptor)
        else:
            self.map = mmap.mmap(-1, size)

    def __reduce__(self) -> tuple[Any, ...]:
        if sys.platform != "linux":
            return _SharedBytes, (self.size,)
        return _attach, (self.size, reduction.DupFd(self._descriptor))


def _attach(size: int, duplicate: Any) -> _SharedBytes:
    return _SharedBytes(size, duplicate.detach())


class FrameStore:
    """Records of frames by number, kept in shared memory as far as a budget goes.

    A record is read when it is first asked for, in whichever process that is; from then on all
    processes have it. Two that read the same record at once write the same bytes. What found no
    place is read again at every access. Which records have a place depends on the sizes alone.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[Shape, ...]],
        dtype: type[np.uint8] | type[np.uint16],
        budget_bytes: int,
        load: Callable[[int], Record],
    ) -> None:
        """Give each record its place; reads nothing.

        Args:
            shapes: of the frames of each record.
            dtype: of all frames.
            budget_bytes: upper limit of the memory; 0: keep nothing.
            load: returns a record, with the announced shapes and dtype; picklable.
        """
        self._shapes = list(shapes)
        self._dtype = np.dtype(dtype)
        self._load = load
        self._offsets = np.full(len(self._shapes), -1, np.int64)
        end = 0
        for number, record in enumerate(self._shapes):
            size = sum(self._span(shape) for shape in record)
            if end + size <= budget_bytes:
                self._offsets[number] = end
                end += size
        self.num_bytes = end
        """Memory that all records with a place will take."""
        self.num_held = int((self._offsets >= 0).sum())
        """How many records have a place."""
        self._memory = _SharedBytes(end + len(self._shapes)) if end else None
        self._open()
        _stores.add(self)

    def _open(self) -> None:
        if self._memory is None:
            return
        whole = np.frombuffer(self._memory.map, np.uint8)
        self._bytes = whole[: self.num_bytes]
        self._frozen = self._bytes[:]
        self._frozen.flags.writeable = False
        self._is_ready = whole[self.num_bytes :]

    def __getstate__(self) -> dict[str, Any]:
        views = ("_bytes", "_frozen", "_is_ready")
        return {key: value for key, value in self.__dict__.items() if key not in views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._shapes)

    def holds(self, number: int) -> bool:
        """Return whether a record has a place in memory, read or not."""
        return bool(self._offsets[number] >= 0)

    def is_ready(self, number: int) -> bool:
        """Return whether a record is in memory now."""
        return self.holds(number) and bool(self._is_ready[number])

    def num_empty_bytes(self) -> int:
        """Return how much of `num_bytes` waits for records that nobody has asked for yet."""
        if self._memory is None:
            return 0
        return self.num_bytes - self.num_bytes * int(self._is_ready.sum()) // self.num_held

    def get(self, number: int) -> Record:
        """Return a record; from memory as read-only views, else as `load` made it."""
        if not self.holds(number):
            return self._load(number)
        if not self._is_ready[number]:
            loaded = self._load(number)
            for frame, place in zip(loaded, self._views(number, self._bytes), strict=True):
                if frame.shape != place.shape or frame.dtype != place.dtype:
                    raise ValueError(f"record {number}: {frame.shape} is not {place.shape}")
                place[...] = frame
            # Only now may another process take the bytes for whole.
            self._is_ready[number] = 1
        return self._views(number, self._frozen)

    def _views(self, number: int, memory: np.ndarray) -> Record:
        offset = int(self._offsets[number])
        views = []
        for shape in self._shapes[number]:
            views.append(np.ndarray(shape, self._dtype, memory.data, offset))
            offset += self._span(shape)
        return tuple(views)

    def _span(self, shape: Shape) -> int:
        size = self._dtype.itemsize
        for length in shape:
            size *= length
        return -(-size // _ALIGN) * _ALIGN


_stores: "weakref.WeakSet[FrameStore]" = weakref.WeakSet()
"""All stores of this process, so that together they do not promise more than there is."""


def budget(cache_gib: float | str) -> int:
    """Return a number of bytes for a setting of `cache_gib`.

    What is available is divided among the ranks that torchrun started on this machine, after
    deducting what other stores of this process have promised and not yet filled.

    Args:
        cache_gib: GiB, 0 for no cache, or `auto` for half of what is available. More than nine
            tenths of what is available is never given.

    Raises:
        DataError: another word, or a negative number.
    """
    promised = sum(store.num_empty_bytes() for store in _stores)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    available = max(0, available_bytes() // ranks - promised)
    if isinstance(cache_gib, str):
        if cache_gib != "auto":
            raise DataError(f"cache_gib must be a number of GiB or 'auto', got {cache_gib!r}")
        return available // 2
    if not cache_gib >= 0:
        raise DataError(f"cache_gib must not be negative, got {cache_gib}")
    return min(int(cache_gib * _GIB), available * 9 // 10)
