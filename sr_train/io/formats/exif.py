"""EXIF blocks: read in bounds, and written again without what no longer holds of a new image."""

import io
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from sr_train.io.formats import ifd
from sr_train.io.formats.ifd import Directory, Value
from sr_train.io.formats.layout import UnusableError

ORIENTATION = 0x0112
EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 34665, 34853, 40965

_DESCRIPTIVE = frozenset({
    269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432, 40091, 40092,
    40093, 40094, 40095,
})  # fmt: skip
"""Tags of the first directory that are about the image's content and origin."""
_SETTLED = frozenset({
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, ORIENTATION, 277, 278, 279, 280,
    281, 284, 288, 289, 290, 291, 292, 293, 317, 320, 322, 323, 324, 325, 332, 333, 334, 336, 338,
    339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,
    EXIF_POINTER, GPS_POINTER, 59932,
})  # fmt: skip
"""Tags of the first directory that say how an image is stored, which its writer settles anew, or
that are padding."""
_NAMED = {
    700: "XMP",
    33723: "IPTC",
    34377: "Photoshop's resources",
    34675: "",
    37724: "Photoshop's layers",
    330: "further images",
    301: "transfer function",
    318: "white point",
    319: "primary chromaticities",
    **dict.fromkeys((33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113), "GeoTIFF"),
}
"""Other tags of a first directory by what they are called; a profile is taken elsewhere."""
_MAKER_NOTE = 37500
_RESOLUTION = {282, 283}
_OLD_PIXELS = frozenset({37396, 41486, 41487, 41488, 41492, 4097, 4098})
"""Subject areas, focal plane resolutions, related images: they count pixels of the old image."""
_WIDTH, _HEIGHT = 40962, 40963
_PADDING = 59932
_MOST_VALUE = 1 << 16
_MOST = 1 << 20


@dataclass
class Tree:
    """The directories of an EXIF block."""

    order: str
    first: dict[int, Value] = field(default_factory=dict)
    below: dict[int, dict[int, Value]] = field(default_factory=dict)
    """Of the camera, of the place and of interoperability, by the tag that points to them."""
    left_out: list[str] = field(default_factory=list)
    """What is not kept, by name."""

    @property
    def tells_resolution(self) -> bool:
        """Whether it states pixels per inch or centimetre."""
        return self.first.keys() >= _RESOLUTION

    def in_order(self, order: str) -> "Tree":
        """Return the tree in a byte order, `<` or `>`."""
        if order == self.order:
            return self

        def turned(values: dict[int, Value]) -> dict[int, Value]:
            return {tag: value.swapped() for tag, value in values.items()}

        below = {tag: turned(values) for tag, values in self.below.items()}
        return Tree(order, turned(self.first), below, self.left_out)

    def block(self, height: int, width: int) -> bytes:
        """Return the block for an upright image of a size in pixels, from its byte order on."""
        first, below = self.parts(height, width)
        magic = (b"II" if self.order == "<" else b"MM") + struct.pack(f"{self.order}HI", 42, 8)
        return magic + _with_interop(first, below, self.order, 8)

    def parts(
        self, height: int, width: int
    ) -> tuple[dict[int, Value], dict[int, dict[int, Value]]]:
        """Return the first directory and those below it, for an upright image of a size."""
        order = self.order
        first = {**self.first, ORIENTATION: ifd.short(order, 1)}
        below = {tag: dict(values) for tag, values in self.below.items() if values}
        sizes = {_WIDTH: ifd.long(order, width), _HEIGHT: ifd.long(order, height)}
        below[EXIF_POINTER] = {**below.get(EXIF_POINTER, {}), **sizes}
        return first, below


def orientation(block: bytes | memoryview) -> int:
    """Return the orientation that a block states, 1..8; 1 where it states none that is known."""
    file = io.BytesIO(bytes(block))
    try:
        directory = Directory(file, *ifd.start_of(file.read(16)))
        return valid_orientation(directory)
    except UnusableError:
        return 1


def valid_orientation(directory: Directory) -> int:
    """Return the orientation in a directory; 1 where there is none that is known."""
    found = directory.integer(ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def parse(block: bytes) -> Tree | None:
    """Return what a block holds, within bounds; None where it is none.

    Thumbnails are left out silently: who shows images makes them anew.
    """
    if len(block) > _MOST:
        return None
    file = io.BytesIO(block)
    try:
        directory = Directory(file, *ifd.start_of(file.read(16)))
        return of_directory(directory, file)
    except UnusableError:
        return None


def of_directory(directory: Directory, file: BinaryIO) -> Tree:
    """Return what the first directory of a TIFF or of an EXIF block says about its image."""
    tree = Tree(directory.order)
    unknown = []
    for tag in directory.tags():
        if tag in _DESCRIPTIVE:
            _take(directory, tag, tree.first, tree)
        elif tag in _NAMED:
            tree.left_out.append(_NAMED[tag])
        elif tag not in _SETTLED:
            unknown.append(str(tag))
    if unknown:
        tree.left_out.append(f"unknown tags ({', '.join(unknown[:5])})")
    for pointer in (EXIF_POINTER, GPS_POINTER):
        if pointer in directory:
            _take_below(directory, pointer, tree, file)
    tree.left_out = [name for name in dict.fromkeys(tree.left_out) if name]
    return tree


def _take_below(directory: Directory, pointer: int, tree: Tree, file: BinaryIO) -> None:
    """Read the directory that a tag points to."""
    try:
        inner = Directory(file, directory.order, directory.is_big, directory.integer(pointer, 0))
    except UnusableError:
        tree.left_out.append("damaged EXIF values")
        return
    values = tree.below.setdefault(pointer, {})
    for tag in inner.tags():
        if tag == INTEROP_POINTER and pointer == EXIF_POINTER:
            _take_below(inner, INTEROP_POINTER, tree, file)
        elif tag == _MAKER_NOTE and pointer == EXIF_POINTER:
            # It points to places of the old file, and holds previews of the old image.
            tree.left_out.append("the camera maker's note")
        elif tag in _OLD_PIXELS and pointer != GPS_POINTER:
            tree.left_out.append("EXIF values that count pixels of the input")
        elif tag not in (_WIDTH, _HEIGHT, _PADDING):
            _take(inner, tag, values, tree)


def _take(directory: Directory, tag: int, values: dict[int, Value], tree: Tree) -> None:
    try:
        value = directory.value(tag, _MOST_VALUE)
    except UnusableError:
        value = None
    if value is None:
        tree.left_out.append("damaged EXIF values")
    else:
        values[tag] = value


def _with_interop(
    first: dict[int, Value], below: dict[int, dict[int, Value]], order: str, at: int
) -> bytes:
    """Return the directories in a row; that of interoperability hangs below the camera's."""
    others = {tag: values for tag, values in below.items() if tag != INTEROP_POINTER}
    interop = below.get(INTEROP_POINTER)
    if interop is None:
        return ifd.written(first, order, at, others)
    # Its place is after all others, whose length does not depend on the number put in.
    camera = others[EXIF_POINTER]
    camera[INTEROP_POINTER] = ifd.long(order, 0)
    end = at + len(ifd.written(first, order, at, others))
    camera[INTEROP_POINTER] = ifd.long(order, end)
    return ifd.written(first, order, at, others) + ifd.written(interop, order, end, {})


def written(tree: Tree, height: int, width: int, at: int, more: dict[int, Value]) -> bytes:
    """Return the directories for a TIFF file of the tree's byte order.

    Args:
        tree: what to write.
        height: of the image, pixels.
        width: of the image, pixels.
        at: offset of the result in the file; even.
        more: tags of the first directory that go before the tree's.
    """
    first, below = tree.parts(height, width)
    return _with_interop({**first, **more}, below, tree.order, at)
