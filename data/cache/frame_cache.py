"""FrameCache: decoded frames in memory, one copy for all processes of a machine."""

import functools
import hashlib
import itertools
import os
import sys
import threading
import weakref
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.cache.sharing import SharedBytes
from sr_train.api import errors
from sr_train.api.errors import DataError
from sr_train.utils.memory import available_bytes
from sr_train.utils.threads import for_each

_ALIGN = 64
_GIB = 1 << 30
# The memory begins with the budget that its layout follows and the note that memory got short.
_BUDGET = slice(0, 8)
_SHORT = 8
_HEAD = 64
# Free memory is looked up once in so many bytes.
_CHECK_BYTES = 16 << 20
_MAX_RESERVE = 512 << 20

_FRAMEWORK = Path(errors.__file__).parents[1]
_PROGRAM = (Path(__file__).parents[1], *(_FRAMEWORK / room for room in ("api", "io", "ops")))
"""Folders of the code that makes records."""

Part = tuple[tuple[int, ...], np.dtype]
"""Shape and dtype of one array of a record."""
Record = tuple[np.ndarray, ...]


class _Place(NamedTuple):
    """Where an array of a record lies."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    """Distance from the record's start in bytes."""
    strides: tuple[int, ...]


class _Layout(NamedTuple):
    """What all records of a kind have in common."""

    places: tuple[_Place, ...]
    span: int
    """Bytes that the whole record takes."""


class FrameCache:
    """Records of arrays by number, kept in shared memory as far as a budget goes.

    A record is loaded when it is first asked for, in whichever process that is; from then on all
    processes have it. Two that load the same record at once write the same bytes, and one that
    dies over it leaves it to be loaded again. What found no place is loaded at every access.
    Which records have a place depends only on their sizes and the budget; where the machine
    runs short of memory nonetheless, nothing more is kept.
    """

    def __init__(
        self,
        records: Sequence[tuple[Part, ...]],
        budget_bytes: int,
        load: Callable[[int], Record],
        key: str | None = None,
    ) -> None:
        """Give each record its place; loads nothing.

        Args:
            records: shape and dtype of each array of each record.
            budget_bytes: upper limit of the memory; 0: keep nothing. Where another process has
                the memory already, that one's limit counts.
            load: returns a record with the announced shapes and dtypes; picklable.
            key: fingerprint of all that decides what `load` returns. Processes on this machine
                with the same key, records and program share one memory. None: only with children.
        """
        layouts: dict[tuple[Part, ...], int] = {}
        self._kinds = array("q", [layouts.setdefault(parts, len(layouts)) for parts in records])
        self._layouts = [_lay_out(parts) for parts in layouts]
        self._load = load
        self.shared = False
        """Whether the memory is another process's, so that it costs nothing here."""
        self._memory: SharedBytes | None = None
        self._place(budget_bytes)
        if self.num_bytes > 0:
            self._obtain(budget_bytes, key)
        self._reserve = min(_MAX_RESERVE, available_bytes() // 20)
        self._allowance = 0
        self._open()
        _stores.add(self)

    def _place(self, budget_bytes: int) -> None:
        """Choose which records have a place, and where: one after the other."""
        self._offsets = array("q")
        # Records of the same block are alike and evenly spaced.
        self._blocks = array("q")
        end, block, before = 0, 0, -1
        for kind in self._kinds:
            span = self._layouts[kind].span
            fits = 0 < span <= budget_bytes - end
            block += kind != before
            before = kind
            self._offsets.append(_HEAD + end if fits else -1)
            self._blocks.append(block if fits else -1)
            end += span if fits else 0
        self.num_bytes = end
        """Memory that all records with a place will take."""
        self.num_held = sum(offset >= 0 for offset in self._offsets)
        """How many records have a place."""

    def _obtain(self, budget_bytes: int, key: str | None) -> None:
        """Get the memory; where it is another process's, place the records as that one did."""
        size = _HEAD + self.num_bytes + len(self)
        if key is None:
            self._memory = SharedBytes(size)
            return
        head = budget_bytes.to_bytes(8, sys.byteorder)
        self._memory, self.shared = SharedBytes.by_name(self._name(key), size, head)
        if self.shared:
            self._place(int.from_bytes(self._memory.map[_BUDGET], sys.byteorder))
            assert self._memory.size == _HEAD + self.num_bytes + len(self)

    def _name(self, key: str) -> str:
        digest = hashlib.sha256(
            f"{_program()}|{key}|{self._layouts}|".encode(errors="surrogateescape")
        )
        digest.update(self._kinds)
        return digest.hexdigest()[:32]

    def _open(self) -> None:
        if self._memory is not None:
            self._map = self._memory.map
            self._writable = memoryview(self._map)
            self._frozen = self._writable.toreadonly()
        self._flags = _HEAD + self.num_bytes

    def __getstate__(self) -> dict[str, Any]:
        views = ("_map", "_writable", "_frozen")
        return {key: value for key, value in self.__dict__.items() if key not in views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._kinds)

    def holds(self, number: int) -> bool:
        """Return whether a record has a place in memory, loaded or not."""
        return self._offsets[number] >= 0

    def is_ready(self, number: int) -> bool:
        """Return whether a record is in memory now."""
        return self._offsets[number] >= 0 and self._map[self._flags + number] == 1

    def num_ready(self) -> int:
        """Return how many records are in memory now."""
        return int(self._ready().sum())

    def num_empty_bytes(self) -> int:
        """Return how much of `num_bytes` waits for records that are not loaded yet."""
        spans = np.array([layout.span for layout in self._layouts], np.int64)[self._kinds]
        return self.num_bytes - int(spans[self._ready()].sum())

    @property
    def identity(self) -> int:
        """A number that two stores have in common only if they are the same memory."""
        return self._memory.identity if self._memory is not None else id(self)

    @property
    def ran_short(self) -> bool:
        """Whether some record with a place was not kept, because memory had become short."""
        return self._memory is not None and self._map[_SHORT] == 1

    def get(self, number: int) -> Record:
        """Return a record; from memory as read-only views, else as `load` made it."""
        if not self.is_ready(number):
            record = self._load(number)
            if not self.put(number, record):
                return record
        return self._views(number, self._frozen)

    def run(self, first: int, count: int, step: int) -> Record | None:
        """Return records first, first + step, ... as one read-only view for each of their arrays.

        Args:
            first: number of the first record.
            count: how many, at least 1.
            step: between their numbers; negative: backwards; not 0.

        Returns:
            Views of (count, *shape); None if some record is not in memory now, or they are not
            all alike and evenly spaced, as those of one sequence are.
        """
        last = first + (count - 1) * step
        low, high = (first, last) if step > 0 else (last, first)
        if low < 0:
            raise IndexError(f"record {low}")
        block = self._blocks[low]
        # The records between two of one block belong to it too.
        if block < 0 or block != self._blocks[high]:
            return None
        flags = self._flags
        if 0 in self._map[flags + low : flags + high + 1 : abs(step)]:
            return None
        offset = self._offsets[first]
        places, span = self._layouts[self._kinds[first]]
        distance = step * span
        return tuple(
            np.ndarray((count, *shape), dtype, self._frozen, offset + start, (distance, *strides))
            for shape, dtype, start, strides in places
        )

    def put(self, number: int, record: Record) -> bool:
        """Keep a record that was loaded anyway, and return whether it is in memory now."""
        if self.is_ready(number):
            return True
        if not self.holds(number) or not self._has_room(self._layouts[self._kinds[number]].span):
            return False
        for part, place in zip(record, self._views(number, self._writable), strict=True):
            if part.shape != place.shape or part.dtype != place.dtype:
                raise ValueError(
                    f"record {number}: {part.shape} {part.dtype} is not {place.shape} {place.dtype}"
                )
            place[...] = part
        # Only now may another process take the bytes for whole.
        self._map[self._flags + number] = 1
        return True

    def fill(
        self,
        numbers: Iterable[int] | None = None,
        threads: int = 1,
        progress: Callable[[int, int], None] | None = None,
        stop: threading.Event | None = None,
        skipped: type[Exception] | tuple[()] = (),
    ) -> None:
        """Load what has a place and is not in memory; ends early where memory gets short.

        Args:
            numbers: of the records, in the order wanted; None: all. Of another process's memory
                from the end, so that two that fill it meet in the middle.
            threads: that load side by side.
            progress: called with (records loaded, records to load) as they arrive.
            stop: ends it, within the time of one record, once it is set.
            skipped: what `load` may raise for a record that is left out then.

        Raises:
            Exception: the first other one that `load` raised; the other threads end too.
        """
        if numbers is None:
            numbers = range(len(self))[:: -1 if self.shared else 1]
        wanted = [n for n in numbers if self.holds(n) and not self.is_ready(n)]
        done = itertools.count(1)
        lock = threading.Lock()

        def load(number: int) -> bool:
            try:
                self.get(number)
                if not self.is_ready(number):
                    return False
            except skipped:
                pass
            with lock:
                if progress is not None:
                    progress(next(done), len(wanted))
            return True

        for_each(wanted, load, threads, stop)

    def describe(self, unit: str) -> str:
        """Return in words what is in memory now, of records called `unit`."""
        taken = (self.num_bytes - self.num_empty_bytes()) / _GIB
        text = f"{self.num_ready()} of {len(self)} {unit} in memory, {taken:.2f} GiB"
        if self.shared:
            text += " of another process"
        if self.ran_short:
            text += ", no more because the machine ran short of it"
        if self.num_held < len(self):
            text += f", no place for {len(self) - self.num_held}"
        return text

    def _has_room(self, size: int) -> bool:
        """Return whether the machine has memory for a record, looking that up now and then."""
        if self._allowance < size:
            free = available_bytes() - self._reserve
            self._allowance = min(free, max(size, _CHECK_BYTES))
        if self._allowance < size:
            self._map[_SHORT] = 1
            return False
        self._allowance -= size
        return True

    def _ready(self) -> np.ndarray:
        """Return for each record whether it is in memory now."""
        if self._memory is None:
            return np.zeros(len(self), bool)
        return np.frombuffer(self._map, np.uint8, len(self), self._flags) == 1

    def _views(self, number: int, memory: memoryview) -> Record:
        offset = self._offsets[number]
        return tuple(
            np.ndarray(shape, dtype, memory, offset + start)
            for shape, dtype, start, _ in self._layouts[self._kinds[number]].places
        )


def _lay_out(parts: tuple[Part, ...]) -> _Layout:
    places, end = [], 0
    for shape, dtype in parts:
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise ValueError(f"{dtype} cannot be shared")
        empty = np.empty(shape, dtype)
        places.append(_Place(tuple(shape), dtype, end, empty.strides))
        end += -(-empty.nbytes // _ALIGN) * _ALIGN
    return _Layout(tuple(places), end)


@functools.cache
def _program() -> str:
    """Return a digest of the code that makes records: after an edit they may be others."""
    digest = hashlib.sha256(sys.prefix.encode())
    for folder in _PROGRAM:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


_stores: "weakref.WeakSet[FrameCache]" = weakref.WeakSet()
"""All stores of this process, so that together they do not promise more than there is."""


def budget(cache_gib: float | str) -> int:
    """Return a number of bytes for a setting of `cache_gib`.

    What other stores have promised and not yet filled, here or under a key in other processes, is
    not available. Where ranks cannot share a store (on all but Linux), each gets its part.

    Args:
        cache_gib: GiB, 0 for no cache, or `auto` for half of what is available. More than nine
            tenths of what is available is never given.

    Raises:
        DataError: another word, or a negative number.
    """
    promised = SharedBytes.promised_bytes()
    promised |= {store.identity: store.num_empty_bytes() for store in _stores}
    ranks = 1 if sys.platform == "linux" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    available = max(0, available_bytes() // ranks - sum(promised.values()))
    if isinstance(cache_gib, str):
        if cache_gib != "auto":
            raise DataError(f"cache_gib must be a number of GiB or 'auto', got {cache_gib!r}")
        return available // 2
    if isinstance(cache_gib, bool) or not cache_gib >= 0:
        raise DataError(f"cache_gib must be a number of GiB from 0 up, or 'auto', got {cache_gib}")
    return int(min(cache_gib * _GIB, available * 9 // 10))
