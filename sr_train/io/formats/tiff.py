"""TIFF: what the tags of the first page say, and which of them cannot be followed."""

from dataclasses import dataclass
from typing import BinaryIO

from sr_train.io.formats import exif
from sr_train.io.formats.ifd import Directory, start_of
from sr_train.io.formats.layout import Dtype, Layout, UnusableError
from sr_train.io.formats.metadata import Density, RawMetadata

NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 7, 8, 32946, 32773
LZMA = 34925
FAX = (2, 3, 4)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6

_COMPRESSIONS = {NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, *FAX}
_COMPRESSION_NAMES = {
    6: "old JPEG",
    32766: "NeXT",
    32771: "word aligned fax",
    32809: "ThunderScan",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_PHOTOMETRICS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, YCBCR: 3}
"""Samples that hold the colour, by what they mean."""
_PHOTOMETRIC_NAMES = {
    -1: "missing",
    4: "transparency mask",
    5: "CMYK",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_FORMAT_NAMES = {
    2: "signed numbers",
    3: "floating point",
    4: "undefined",
    5: "complex numbers",
    6: "",
}
_DEFAULT_BLACK_WHITE = ((0, 255) * 3, (0, 65535) * 3)
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MOST_STRIPS = 1 << 21
_MOST_PROFILE = 8 << 20


@dataclass(frozen=True, kw_only=True)
class TiffLayout(Layout):
    """What the tags of a TIFF's first page say about its pixels."""

    order: str
    """`<` or `>`."""
    bits: int
    """Of a sample as stored: 1, 2, 4, 8 or 16."""
    samples: int
    """Of a pixel as stored."""
    photometric: int
    compression: int
    predictor: int
    is_planar: bool
    """Each sample has a plane of its own."""
    alpha_sample: int | None
    is_premultiplied: bool
    reverses_bits: bool
    tile: tuple[int, int]
    """Rows and columns of a strip or tile."""
    is_tiled: bool


def parse(file: BinaryIO) -> TiffLayout:
    """Return the layout of the first page.

    Raises:
        UnusableError: damaged, or a tag that cannot be followed, by its name.
    """
    page = first_page(file)
    _check_subject(page)
    compression = page.integer(259, NONE)
    if compression not in _COMPRESSIONS:
        raise _refused("Compression", compression, _COMPRESSION_NAMES)
    photometric = page.integer(262, -1)
    if photometric not in _PHOTOMETRICS:
        raise _refused("PhotometricInterpretation", photometric, _PHOTOMETRIC_NAMES)
    if photometric == YCBCR and compression != JPEG:
        raise _refused("PhotometricInterpretation", photometric, {YCBCR: "YCbCr without JPEG"})
    samples = page.integer(277, 1)
    bits = _bits(page, photometric, compression, samples)
    colours = _PHOTOMETRICS[photometric]
    planar = page.integer(284, 1)
    if planar not in (1, 2):
        raise _refused("PlanarConfiguration", planar, {})
    together = samples if planar == 1 else 1
    packed = {JPEG: (1, 3), **dict.fromkeys(FAX, (1,))}.get(compression, range(65))
    if not colours <= samples <= 64 or together not in packed:
        raise _refused("SamplesPerPixel", samples, {})
    alpha, is_premultiplied = _alpha(page, colours, samples)
    width, height = page.integer(256, 0), page.integer(257, 0)
    dtype: Dtype = "uint16" if bits == 16 else "uint8"
    is_tiled = 322 in page
    return TiffLayout(
        height=height,
        width=width,
        channels=3 if photometric in (RGB, PALETTE, YCBCR) else 1,
        has_alpha=alpha is not None,
        dtype=dtype,
        orientation=exif.valid_orientation(page),
        order=page.order,
        bits=bits,
        samples=samples,
        photometric=photometric,
        compression=compression,
        predictor=_predictor(page, compression, bits),
        is_planar=planar == 2 and samples > 1,
        alpha_sample=alpha,
        is_premultiplied=is_premultiplied,
        reverses_bits=_reverses_bits(page, compression),
        tile=_tile(page, is_tiled, height, width),
        is_tiled=is_tiled,
    )


def first_page(file: BinaryIO) -> Directory:
    """Return the directory of the first page.

    Raises:
        UnusableError: damaged.
    """
    file.seek(0)
    return Directory(file, *start_of(file.read(16)))


def places(page: Directory, is_tiled: bool, count: int, size: int) -> list[tuple[int, int]]:
    """Return (offset, length in bytes) of every strip or tile.

    Args:
        page: the directory.
        is_tiled: tiles, not strips.
        count: how many there must be.
        size: of a part in bytes, where the page does not say it.

    Raises:
        UnusableError: damaged.
    """
    offsets_tag, lengths_tag = (324, 325) if is_tiled else (273, 279)
    offsets = page.integers(offsets_tag, _MOST_STRIPS)
    lengths = page.integers(lengths_tag, _MOST_STRIPS)
    if lengths_tag not in page and page.integer(259, NONE) == NONE:
        lengths = (size,) * min(count, len(offsets))
    if len(offsets) < count or len(lengths) < count:
        found = min(len(offsets), len(lengths))
        raise UnusableError(f"damaged: {found} strips or tiles, expected {count}")
    return list(zip(offsets[:count], lengths[:count], strict=True))


def metadata(file: BinaryIO) -> RawMetadata:
    """Return what the tags say beside the pixels."""
    page = first_page(file)
    others = []
    profile = None
    try:
        found = page.value(34675, _MOST_PROFILE)
        profile = None if found is None else found.data
    except UnusableError:
        others.append("a colour profile that is damaged or too large")
    if page.has_next:
        others.append("further pages")
    layout = parse(file)
    extra = layout.samples - _PHOTOMETRICS[layout.photometric]
    if extra > (layout.alpha_sample is not None):
        others.append("further channels")
    return RawMetadata(
        icc=profile,
        tree=exif.of_directory(page, file),
        density=_density(page),
        left_out=tuple(others),
    )


def _refused(name: str, found: int, names: dict[int, str]) -> UnusableError:
    word = names.get(found, "")
    shown = f"{found} ({word})" if word else str(found)
    return UnusableError(
        f"TIFF with {name}={shown} is not supported; convert to 8 or 16 bit grey or RGB"
    )


def _check_subject(page: Directory) -> None:
    """Raise where the first page is no image of its own, or has a depth in space."""
    kind, old_kind = page.integer(254, 0), page.integer(255, 1)
    if kind & 0b101 or old_kind == 2:
        raise UnusableError(
            f"its first page is a reduced copy or a mask (NewSubfileType={kind}), no image"
        )
    for tag, name in ((32997, "ImageDepth"), (32998, "TileDepth")):
        if page.integer(tag, 1) != 1:
            raise _refused(name, page.integer(tag, 1), {})
    levels = page.value(532, 4096)
    if levels is not None and levels.rationals(page.order) not in _DEFAULT_BLACK_WHITE:
        is_jpeg = page.integer(262, -1) == YCBCR
        if not is_jpeg:
            raise UnusableError("TIFF with a ReferenceBlackWhite of its own is not supported")


def _bits(page: Directory, photometric: int, compression: int, samples: int) -> int:
    """Return the bits of each sample."""
    found = set(page.integers(258)[:samples]) or {1}
    formats = set(page.integers(339)[:samples]) or {1}
    if formats != {1}:
        raise _refused("SampleFormat", max(formats), _FORMAT_NAMES)
    if len(found) > 1:
        raise UnusableError(f"TIFF with BitsPerSample={sorted(found)} is not supported")
    bits = found.pop()
    depths = {1, 2, 4, 8, 16}
    if photometric in (RGB, YCBCR) or samples > 1:
        depths = {8, 16}
    if photometric == PALETTE:
        depths -= {16}
    if compression == JPEG:
        depths = {8}
    if compression in FAX:
        depths = {1}
    if bits not in depths:
        raise _refused("BitsPerSample", bits, {})
    return bits


def _alpha(page: Directory, colours: int, samples: int) -> tuple[int | None, bool]:
    """Return which sample is alpha, and whether the colours are multiplied by it."""
    kinds = page.integers(338)[: samples - colours]
    if samples > colours and not kinds:
        # Who does not say what the fourth sample is means alpha.
        return (colours, False) if samples == colours + 1 else (None, False)
    for number, kind in enumerate(kinds):
        if kind not in (0, _ASSOCIATED, _UNASSOCIATED):
            raise _refused("ExtraSamples", kind, {})
        if kind:
            return colours + number, kind == _ASSOCIATED
    return None, False


def _predictor(page: Directory, compression: int, bits: int) -> int:
    predictor = page.integer(317, 1)
    if compression not in (LZW, DEFLATE, OLD_DEFLATE, LZMA):
        return 1
    if predictor not in (1, 2) or (predictor == 2 and bits < 8):
        raise _refused("Predictor", predictor, {3: "floating point"})
    return predictor


def _reverses_bits(page: Directory, compression: int) -> bool:
    """Return whether the bits of each stored byte stand in reverse; those of JPEG never do."""
    order = page.integer(266, 1)
    if order not in (1, 2):
        raise _refused("FillOrder", order, {})
    return order == 2 and compression != JPEG


def _tile(page: Directory, is_tiled: bool, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of a strip or tile."""
    if not is_tiled:
        return max(1, min(page.integer(278, height), height)), width
    columns, rows = page.integer(322, 0), page.integer(323, 0)
    most = 1 << 16
    if not (0 < columns <= most and 0 < rows <= most):
        raise UnusableError(f"damaged: tiles of {columns}x{rows} pixels")
    return rows, columns


def _density(page: Directory) -> Density | None:
    unit = page.integer(296, 2)
    sides = []
    for tag in (282, 283):
        value = page.value(tag, 64)
        numbers = () if value is None else value.rationals(page.order)
        if not numbers or numbers[0] <= 0:
            return None
        sides.append(numbers[0])
    if unit == 1:
        return None if sides[0] == sides[1] else (sides[0], sides[1], False)
    per_inch = 2.54 if unit == 3 else 1.0
    return sides[0] * per_inch, sides[1] * per_inch, True
