"""What files say beside their pixels: colour profile, EXIF, resolution; checked, in bounds."""

import struct
import zlib
from dataclasses import dataclass

from sr_train.io.formats import exif
from sr_train.io.formats.exif import Tree

Density = tuple[float, float, bool]
"""Across, down, and whether they count pixels per inch; else only their ratio means something."""

_MOST_ICC = 4 << 20
_ICC_HEADER = 128
_ICC_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
_ICC_SPACES = {b"RGB ": 3, b"GRAY": 1}
_MOST_DENSITY = 100_000


@dataclass(frozen=True)
class RawMetadata:
    """What a file says beside its pixels, as found."""

    icc: bytes | None = None
    icc_is_compressed: bool = False
    exif: bytes | None = None
    """From its byte order mark on."""
    tree: Tree | None = None
    """Instead of `exif`, where the file itself is made of such directories."""
    density: Density | None = None
    png_colour: tuple[tuple[bytes, bytes], ...] = ()
    """Chunks of a PNG that say what its colours mean: (kind, content)."""
    left_out: tuple[str, ...] = ()
    """What is not read at all, by name."""


@dataclass(frozen=True)
class Metadata:
    """What an image takes along when it is written again."""

    icc: bytes | None = None
    """Colour profile."""
    exif: Tree | None = None
    """Without thumbnail, maker's note, orientation and size in pixels."""
    density: Density | None = None
    png_colour: tuple[tuple[bytes, bytes], ...] = ()
    """What a PNG without a profile says about its colours; only PNG holds it."""
    left_out: tuple[str, ...] = ()
    """What the file has and this has not, by name."""

    @property
    def icc_channels(self) -> int | None:
        """Colours of the images that the profile is for, 1 or 3."""
        return None if self.icc is None else _ICC_SPACES[self.icc[16:20]]


def checked(raw: RawMetadata) -> Metadata:
    """Return what can be passed on; what is damaged or too large is named as left out."""
    left_out = list(raw.left_out)
    icc = raw.icc
    if icc is not None and raw.icc_is_compressed:
        icc = _inflated(icc)
    if icc is not None:
        icc = _sound_icc(icc)
    if raw.icc is not None and icc is None:
        left_out.append("a colour profile that is damaged or too large")
    tree = raw.tree
    if raw.exif is not None:
        tree = exif.parse(raw.exif.removeprefix(b"Exif\0\0"))
        if tree is None:
            left_out.append("EXIF that is damaged or too large")
    if tree is not None:
        left_out += tree.left_out
    density = raw.density
    if density is not None and not all(0 < each <= _MOST_DENSITY for each in density[:2]):
        density = None
    colour = _sound_colour(raw.png_colour)
    if icc is not None:
        # A profile stands above all of them but cICP.
        colour = tuple(each for each in colour if each[0] == b"cICP")
    return Metadata(icc, tree, density, colour, tuple(dict.fromkeys(left_out)))


def _inflated(profile: bytes) -> bytes | None:
    try:
        found = zlib.decompressobj().decompress(profile, _MOST_ICC + 1)
    except zlib.error:
        return None
    return found


def _sound_icc(profile: bytes) -> bytes | None:
    """Return a profile cut to its own length; None where it is none for RGB or grey images."""
    if not _ICC_HEADER + 4 <= len(profile) <= _MOST_ICC:
        return None
    size, tags = int.from_bytes(profile[:4], "big"), int.from_bytes(profile[128:132], "big")
    is_known = (
        profile[36:40] == b"acsp"
        and profile[12:16] in _ICC_CLASSES
        and profile[16:20] in _ICC_SPACES
        and profile[20:24] in (b"XYZ ", b"Lab ")
    )
    if not is_known or not _ICC_HEADER + 4 + 12 * tags <= size <= len(profile) or tags > 100:
        return None
    for number in range(tags):
        start, length = struct.unpack_from(">II", profile, _ICC_HEADER + 8 + 12 * number)
        if start + length > size:
            return None
    return profile[:size]


def _sound_colour(chunks: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    sizes = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
    return tuple(each for each in chunks if len(each[1]) == sizes.get(each[0]))
