"""TIFF directories: lists of tagged values, in TIFF files and in EXIF blocks; read and written."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from sr_train.io.formats.layout import UnusableError

TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8,
    18: 8,
}  # fmt: skip
"""Bytes of a value by its type."""

SHORT, LONG, RATIONAL, UNDEFINED = 3, 4, 5, 7

_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_UNIT_BYTES = {5: 4, 10: 4}
"""Bytes of what a byte order turns round, where a value is made of several."""
_MOST_ENTRIES = 4096
_MOST_OFFSET = 1 << 50


@dataclass(frozen=True, slots=True)
class Value:
    """A tag's value."""

    type: int
    count: int
    data: bytes
    """In the byte order of the directory."""

    def integers(self, order: str) -> tuple[int, ...]:
        """Return whole numbers; none where the type is another.

        Args:
            order: `<` or `>`.
        """
        if self.type not in _INTEGERS:
            return ()
        return struct.unpack(f"{order}{self.count}{_INTEGERS[self.type]}", self.data)

    def swapped(self) -> "Value":
        """Return the value in the other byte order."""
        size = _UNIT_BYTES.get(self.type, TYPE_BYTES[self.type])
        words = np.frombuffer(self.data, np.uint8).reshape(-1, size)
        return Value(self.type, self.count, words[:, ::-1].tobytes())

    def rationals(self, order: str) -> tuple[float, ...]:
        """Return fractions or whole numbers as floats; 0 for a division by zero."""
        if self.type not in (5, 10):
            return tuple(map(float, self.integers(order)))
        code = "I" if self.type == 5 else "i"
        parts = struct.unpack(f"{order}{2 * self.count}{code}", self.data)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return tuple(above / below if below else 0.0 for above, below in pairs)


@dataclass(frozen=True)
class _Place:
    """Where a value stands; its bytes are read when they are asked for."""

    type: int
    count: int
    offset: int


class Directory:
    """A directory of a file: its tags, whose values are read when they are asked for."""

    def __init__(self, file: BinaryIO, order: str, is_big: bool, offset: int) -> None:
        """Read the list of tags.

        Args:
            file: seekable; offsets count from its position 0.
            order: `<` or `>`.
            is_big: BigTIFF, with 64-bit offsets.
            offset: of the directory.

        Raises:
            UnusableError: it lies beyond the end, or is absurdly long.
        """
        self.order = order
        self.is_big = is_big
        self._file = file
        self._places: dict[int, _Place] = {}
        head, size, value_bytes = ("Q", 20, 8) if is_big else ("H", 12, 4)
        (count,) = struct.unpack(f"{order}{head}", self._read(offset, struct.calcsize(head)))
        if count > _MOST_ENTRIES:
            raise UnusableError(f"damaged: a directory of {count} tags")
        start = offset + struct.calcsize(head)
        entries = self._read(start, count * size)
        for number in range(count):
            tag, kind, length = struct.unpack_from(
                f"{order}HH{'Q' if is_big else 'I'}", entries, number * size
            )
            inline = start + (number + 1) * size - value_bytes
            if kind not in TYPE_BYTES or tag in self._places:
                continue
            if length * TYPE_BYTES[kind] > value_bytes:
                at = entries[(number + 1) * size - value_bytes : (number + 1) * size]
                inline = int.from_bytes(at, "little" if order == "<" else "big")
            self._places[tag] = _Place(kind, length, inline)
        # Cut off, it is none.
        file.seek(start + count * size)
        after = file.read(value_bytes)
        self.has_next = any(after)

    def __contains__(self, tag: int) -> bool:
        return tag in self._places

    def tags(self) -> list[int]:
        """Return the tags there are."""
        return list(self._places)

    def value(self, tag: int, most_bytes: int) -> Value | None:
        """Return a tag's value; None where there is none.

        Raises:
            UnusableError: it is longer than `most_bytes`, or lies beyond the end.
        """
        place = self._places.get(tag)
        if place is None:
            return None
        size = place.count * TYPE_BYTES[place.type]
        if size > most_bytes:
            raise UnusableError(f"damaged or not supported: tag {tag} has {place.count} values")
        return Value(place.type, place.count, self._read(place.offset, size))

    def integers(self, tag: int, most: int = 4096) -> tuple[int, ...]:
        """Return a tag's whole numbers; none where it is missing or of another type.

        Raises:
            UnusableError: they are more than `most`, or lie beyond the end.
        """
        value = self.value(tag, most * 8)
        return () if value is None else value.integers(self.order)

    def integer(self, tag: int, default: int) -> int:
        """Return a tag's first whole number."""
        return next(iter(self.integers(tag)), default)

    def _read(self, offset: int, size: int) -> bytes:
        data = b""
        if offset < _MOST_OFFSET:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) < size:
            raise UnusableError("damaged or truncated: a directory lies beyond the file's end")
        return data


def start_of(head: bytes) -> tuple[str, bool, int]:
    """Return byte order, whether it is a BigTIFF, and the first directory's offset.

    Args:
        head: the first 16 bytes.

    Raises:
        UnusableError: it is no start of a TIFF.
    """
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is not None and len(head) >= 8:
        (version,) = struct.unpack_from(f"{order}H", head, 2)
        if version == 42:
            return order, False, *struct.unpack_from(f"{order}I", head, 4)
        if (
            version == 43
            and len(head) >= 16
            and struct.unpack_from(f"{order}HH", head, 4) == (8, 0)
        ):
            return order, True, *struct.unpack_from(f"{order}Q", head, 8)
    raise UnusableError("damaged: it does not start as a TIFF does")


def written(
    directory: Mapping[int, Value], order: str, at: int, below: Mapping[int, Mapping[int, Value]]
) -> bytes:
    """Return a directory of classic TIFF, those that it points to after it, and their values.

    Args:
        directory: values by tag.
        order: `<` or `>`, that of the values.
        at: the offset at which the result will stand; even.
        below: directories by the tag that points to them.
    """
    pointers = {tag: Value(LONG, 1, bytes(4)) for tag in below}
    entries = dict(sorted({**directory, **pointers}.items()))
    after = at + 2 + 12 * len(entries) + 4
    table, tail = [struct.pack(f"{order}H", len(entries))], b""
    for tag, value in entries.items():
        data = value.data
        if tag in below:
            inner = written(below[tag], order, after + len(tail), {})
            data = struct.pack(f"{order}I", after + len(tail))
            tail += inner
        elif len(data) > 4:
            data = struct.pack(f"{order}I", after + len(tail))
            tail += value.data + bytes(len(value.data) % 2)
        table.append(
            struct.pack(f"{order}HHI", tag, value.type, value.count) + data.ljust(4, b"\0")
        )
    return b"".join([*table, bytes(4), tail])


def short(order: str, *numbers: int) -> Value:
    """Return a value of 16-bit numbers."""
    return Value(SHORT, len(numbers), struct.pack(f"{order}{len(numbers)}H", *numbers))


def long(order: str, number: int) -> Value:
    """Return a value of one 32-bit number."""
    return longs(order, [number])


def longs(order: str, numbers: Sequence[int]) -> Value:
    """Return a value of 32-bit numbers."""
    return Value(LONG, len(numbers), struct.pack(f"{order}{len(numbers)}I", *numbers))


def rational(order: str, number: float) -> Value:
    """Return a value of one fraction, to a ten thousandth."""
    return Value(RATIONAL, 1, struct.pack(f"{order}II", round(number * 10000), 10000))
