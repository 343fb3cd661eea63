"""Good images of many kinds, bombs, impostors, and TIFF directories that lie."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from scripts.chaos import photographs

Tag = tuple[int, int, int, int]
"""Number, type, count and value of a TIFF tag."""


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return an image in a format of Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    """Return small valid files of many kinds by name."""
    pixels = photographs.pixels()[40:64, 40:70]
    deep = pixels[..., ::-1].astype(np.uint16) * 257
    rgb = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    modes = {"p": "P", "g": "L", "rgba": "RGBA", "one": "1"}
    files = {f"{name}.png": encoded(rgb.convert(mode), "PNG") for name, mode in modes.items()}
    packed = ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")
    files |= {f"{name}.tif": encoded(rgb, "TIFF", compression=name) for name in packed}
    return files | {
        "a.png": encoded(rgb, "PNG"),
        "profile.png": encoded(rgb, "PNG", icc_profile=b"x" * 200),
        "deep.png": cv2.imencode(".png", deep)[1].tobytes(),
        "a.jpg": encoded(rgb, "JPEG"),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(rgb.convert("L"), "JPEG"),
        "turned.jpg": encoded(rgb, "JPEG", exif=turned),
        "turned.png": encoded(rgb, "PNG", exif=turned),
        "turned.webp": encoded(rgb, "WEBP", exif=turned),
        "turned.tif": encoded(rgb, "TIFF", exif=turned),
        "a.webp": encoded(rgb, "WEBP"),
        "lossless.webp": encoded(rgb, "WEBP", lossless=True),
        "alpha.webp": encoded(rgb.convert("RGBA"), "WEBP"),
        "cmyk.tif": encoded(rgb.convert("CMYK"), "TIFF"),
        "float.tif": encoded(rgb.convert("F"), "TIFF"),
        "grey16.tif": encoded(Image.fromarray(deep[..., 0]), "TIFF"),
        "rgb16.tif": cv2.imencode(".tif", deep)[1].tobytes(),
        "a.bmp": encoded(rgb, "BMP"),
        "p.bmp": encoded(rgb.convert("P"), "BMP"),
        "grey.bmp": encoded(rgb.convert("L"), "BMP"),
    }


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    sums = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + sums


def png(
    width: int,
    height: int,
    bits: int = 8,
    colour: int = 2,
    data: bytes = zlib.compress(b"\0" * 1000),
    extra: bytes = b"",
) -> bytes:
    """Return a PNG whose header may claim anything."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), extra, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(side: int) -> bytes:
    """Return a black PNG of so many pixels a side, which packs well."""
    packer, row = zlib.compressobj(9), b"\0" * (side * 3 + 1)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return png(side, side, data=packed)


def lying_pngs() -> dict[str, bytes]:
    """Return PNGs whose headers, sizes and chunks are not what they are."""
    eight = zlib.compress(b"\0" * 25 * 8)
    blown = zlib.compress(b"\0" * 50_000_000, 9)
    signature = b"\x89PNG\r\n\x1a\n"
    return {
        "claims 60000.png": png(60000, 60000),
        "claims 45000.png": png(45000, 45000),
        "claims 32000.png": png(32000, 32000),
        "claims a row.png": png(2**31 - 1, 1),
        "claims all.png": png(2**32 - 1, 2**32 - 1),
        "zero.png": png(0, 0),
        "no width.png": png(0, 5),
        "7 bits.png": png(8, 8, 7),
        "colour 5.png": png(8, 8, 8, 5),
        "palette of 16 bits.png": png(8, 8, 16, 3),
        "bomb 6000.png": bomb(6000),
        "bomb 20000.png": bomb(20000),
        "bomb in zTXt.png": png(8, 8, data=eight, extra=chunk(b"zTXt", b"a\0\0" + blown)),
        "bomb in iCCP.png": png(8, 8, data=eight, extra=chunk(b"iCCP", b"a\0\0" + blown)),
        "bomb in iTXt.png": png(8, 8, data=eight, extra=chunk(b"iTXt", b"a\0\1\0\0\0" + blown)),
        "many chunks.png": png(8, 8, data=eight, extra=chunk(b"tEXt", b"a\0b") * 100_000),
        "end alone.png": signature + chunk(b"IEND", b""),
        "signature.png": signature,
        "empty header.png": signature + b"\0\0\0\0IHDR" + b"\0" * 4,
        "short.png": signature + b"\0\0\0\rIHDR",
        "negative chunk.png": signature
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
        + b"\xff\xff\xff\xf4iCCP"
        + b"\0" * 40,
    }


def tiff(tags: Sequence[Tag], following: int = 8) -> bytes:
    """Return a TIFF with a directory of one's own, which names itself as the next one."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags))
    return head + entries + struct.pack("<I", following) + b"\0" * 200


TAGS: dict[int, Tag] = {
    number: (number, kind, 1, value)
    for number, kind, value in (
        (256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200),
        (277, 3, 1), (278, 4, 16), (279, 4, 256),
    )
}  # fmt: skip
"""A plain directory: size, bits, packing, kind, place, samples, rows and bytes."""
LIES: dict[str, Tag | None] = {
    "loop": None, "two billion widths": (256, 4, 2**31, 8), "no width": (256, 4, 1, 0),
    "wide": (256, 4, 1, 2**31 - 1), "0 bits": (258, 3, 1, 0), "9999 bits": (258, 3, 1, 9999),
    "9999 samples": (277, 3, 1, 9999), "strip far away": (273, 4, 1, 2**31),
    "bits as text": (258, 2, 4, 0x41414141), "no bits": (258, 3, 0, 8),
    "orientation as text": (0x112, 2, 4, 0x41414141), "orientation as float": (0x112, 12, 1, 8),
    "planes apart": (284, 3, 1, 2), "predictor 3": (317, 3, 1, 3),
    "sample format 9": (339, 3, 1, 9), "photometric 32803": (262, 3, 1, 32803),
    "packing 9": (259, 3, 1, 9), "fill order 2": (266, 3, 1, 2),
    "no rows": (278, 4, 1, 0), "no bytes": (279, 4, 1, 0), "tile of 0": (322, 4, 1, 0),
}  # fmt: skip


def lying_tiffs() -> dict[str, bytes]:
    """Return TIFFs whose directories claim absurd things."""
    files = {"nothing.tif": tiff([])}
    for name, lie in LIES.items():
        tags = TAGS if lie is None else {**TAGS, lie[0]: lie}
        files[f"{name}.tif"] = tiff(sorted(tags.values()))
    for side, mode, packing in (
        (20000, "L", "tiff_deflate"), (40000, "L", "tiff_deflate"), (44000, "1", "group4"),
    ):  # fmt: skip
        large = Image.new(mode, (side, side))
        files[f"bomb {side}.tif"] = encoded(large, "TIFF", compression=packing)
    return files


def bmp(width: int, height: int, bits: int = 24, packing: int = 0, colours: int = 0) -> bytes:
    """Return a BMP whose header may claim anything."""
    head = struct.pack(
        "<IHHIIiiHHIIiiII", 1000, 0, 0, 54, 40, width, height, 1, bits, packing, 0, 0, 0, colours, 0
    )
    return b"BM" + head + b"\0" * 300


def impostors() -> dict[str, bytes]:
    """Return files of another kind than their suffix says, BMPs that lie, and animations."""
    small, files = Image.new("RGB", (32, 32)), {}
    for form, suffix in (
        ("GIF", "png"), ("ICO", "png"), ("PPM", "png"), ("TGA", "bmp"), ("PCX", "tif"),
        ("JPEG2000", "jpg"), ("PDF", "jpg"), ("EPS", "tif"), ("SGI", "webp"), ("DDS", "png"),
    ):  # fmt: skip
        files[f"{form}.{suffix}"] = encoded(small, form)
    frames = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in range(5)]
    for form, suffix in (("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
        more = {"save_all": True, "append_images": frames[1:]}
        files[f"animation.{suffix}"] = encoded(frames[0], form, **more)
    return files | {
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "page.jpg": b"<html>" * 50,
        "zip.bmp": b"PK\3\4" + b"\0" * 100,
        "huge.bmp": bmp(2**31 - 1, 2**31 - 1),
        "negative.bmp": bmp(-8, -8),
        "big.bmp": bmp(30000, 30000),
        "palette.bmp": bmp(8, 8, 8, 1, 2**31 - 1),
        "big.webp": encoded(Image.new("RGB", (9000, 9000)), "WEBP", quality=1, method=0),
        "big.jpg": encoded(Image.new("L", (30000, 30000)), "JPEG", quality=1),
    }


HEAVY = ("bomb", "claims", "big", "huge")
"""What the names of files that want much memory begin with; each is tried alone."""
KINDS: Sequence[Callable[[], dict[str, bytes]]] = (lying_pngs, lying_tiffs, impostors)


def special() -> dict[str, bytes]:
    """Return all that is not a mutation. Takes some gigabytes for a moment."""
    return dict(itertools.chain.from_iterable(make().items() for make in KINDS))
