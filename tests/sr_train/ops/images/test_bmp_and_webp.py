"""BMP of every kind, and WebP, whole and damaged."""

import contextlib
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from sr_train.api.errors import DataError
from sr_train.io.images import decode_image, read_header
from tests.sr_train.io.formats.files import bmp, noise, saved, smooth

WIDTH, HEIGHT = 11, 7


def rows(bytes_per_row, seed=2):
    """Return stored rows, padded to four bytes, and as an array without the padding."""
    stored = noise(HEIGHT, -(-bytes_per_row // 4) * 4, 1, seed=seed)[..., 0]
    return stored.tobytes(), stored[::-1, :bytes_per_row]


def masks(*values):
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize("size", [12, 16, 40, 64, 108, 124])
def test_24_bits_under_every_header(size):
    data, stored = rows(3 * WIDTH)
    expected = stored.reshape(HEIGHT, WIDTH, 3)[..., ::-1]
    decoded = decode_image(bmp(24, WIDTH, HEIGHT, data, size=size), "x.bmp")
    np.testing.assert_array_equal(decoded.pixels, expected)
    if size > 12:
        data = bmp(24, WIDTH, HEIGHT, data, size=size, top_down=True)
        np.testing.assert_array_equal(decode_image(data, "x").pixels, expected[::-1])


@pytest.mark.parametrize(
    ("bits", "compression", "given", "meant"),
    [
        (16, 0, (), (0x7C00, 0x3E0, 0x1F, 0)),
        (16, 3, (0xF800, 0x7E0, 0x1F), (0xF800, 0x7E0, 0x1F, 0)),
        (16, 3, (0xF00, 0xF0, 0xF), (0xF00, 0xF0, 0xF, 0)),
        (32, 0, (), (0xFF0000, 0xFF00, 0xFF, 0)),
        (32, 3, (0xFF, 0xFF00, 0xFF0000), (0xFF, 0xFF00, 0xFF0000, 0)),
        (32, 3, (0x3FF00000, 0xFFC00, 0x3FF), (0x3FF00000, 0xFFC00, 0x3FF, 0)),
        (32, 6, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        (16, 6, (0x7C00, 0x3E0, 0x1F, 0x8000), (0x7C00, 0x3E0, 0x1F, 0x8000)),
    ],
)
def test_colour_masks(bits, compression, given, meant):
    data, stored = rows(WIDTH * bits // 8)
    numbers = np.ascontiguousarray(stored).view(f"<u{bits // 8}").astype(np.int64)
    file = bmp(bits, WIDTH, HEIGHT, data, compression, behind=masks(*given))
    decoded = decode_image(file, "x.bmp")
    planes = [*np.moveaxis(decoded.pixels, -1, 0), decoded.alpha]
    for plane, mask in zip(planes, meant, strict=True):
        if not mask:
            assert plane is None
            continue
        low = mask & -mask
        values, top = (numbers & mask) // low, mask // low
        np.testing.assert_array_equal(plane, np.floor(values * 255 / top + 0.5))
    white = bmp(bits, 1, 1, b"\xff" * 4, compression, behind=masks(*given))
    assert decode_image(white, "x").pixels.tolist() == [[[255, 255, 255]]]


def test_alpha_of_a_version_5_header():
    data, stored = rows(4 * WIDTH)
    behind = masks(0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    decoded = decode_image(bmp(32, WIDTH, HEIGHT, data, 3, 124, behind), "x.bmp")
    expected = stored.reshape(HEIGHT, WIDTH, 4)
    np.testing.assert_array_equal(decoded.pixels, expected[..., 2::-1])
    np.testing.assert_array_equal(decoded.alpha, expected[..., 3])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [12, 40])
def test_palettes(bits, size):
    data, stored = rows(-(-WIDTH * bits // 8))
    spread = np.unpackbits(np.ascontiguousarray(stored), axis=1)[:, : WIDTH * bits]
    weights = 1 << np.arange(bits - 1, -1, -1)
    indices = spread.reshape(HEIGHT, WIDTH, bits) @ weights
    colours = noise(1 << bits, 3, 1)[..., 0]
    entries = colours[:, ::-1] if size == 12 else np.insert(colours[:, ::-1], 3, 0, axis=1)
    file = bmp(bits, WIDTH, HEIGHT, data, size=size, behind=entries.tobytes())
    np.testing.assert_array_equal(decode_image(file, "x.bmp").pixels, colours[indices])


def test_a_palette_of_grey_levels_makes_a_grey_image_and_a_short_one_black():
    data, stored = rows(WIDTH)
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1).tobytes()
    decoded = decode_image(bmp(8, WIDTH, HEIGHT, data, behind=levels), "x.bmp")
    np.testing.assert_array_equal(decoded.pixels[..., 0], stored)
    file = bmp(8, WIDTH, HEIGHT, data, behind=b"\1\2\3\0" * 4, used=4)
    known = stored < 4
    pixels = decode_image(file, "x.bmp").pixels
    assert (pixels[known] == (3, 2, 1)).all()
    assert (pixels[~known] == 0).all()


def test_run_lengths():
    runs = b"".join(bytes([WIDTH, row, 0, 0]) for row in range(HEIGHT)) + b"\0\1"
    colours = noise(256, 4, 1)[..., 0]
    file = bmp(8, WIDTH, HEIGHT, runs, 1, behind=colours.tobytes())
    expected = np.repeat(colours[:HEIGHT, None, 2::-1], WIDTH, axis=1)[::-1]
    np.testing.assert_array_equal(decode_image(file, "x.bmp").pixels, expected)
    with pytest.raises(DataError, match="not enough"):
        decode_image(file[:-12], "x.bmp")


def test_run_lengths_of_more_pixels_than_pillow_takes():
    """The project's own limit lets 196 megapixels pass; Pillow calls them a bomb."""
    file = bmp(8, 14_000, 14_000, b"\0\1", 1, behind=bytes(1024))
    with pytest.raises(DataError, match=r"x\.bmp: cannot be decoded: .*196000000 pixels"):
        decode_image(file, "x.bmp")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_as_pillow_and_opencv_read_pillows_own(mode):
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3)).convert(mode)
    data = saved(image, "BMP")
    expected = np.array(image.convert("RGB" if mode in ("P", "RGB") else "L"))
    np.testing.assert_array_equal(decode_image(data, "x.bmp").pixels.squeeze(), expected)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (bmp(24, WIDTH, HEIGHT, rows(33)[0][:-1]), "truncated"),
        (bmp(8, WIDTH, HEIGHT, b"", behind=bytes(99)), "truncated"),
        (bmp(64, WIDTH, HEIGHT, bytes(999)), "64 bits"),
        (bmp(24, 0, HEIGHT, bytes(999)), "0x7"),
        (bmp(24, -5, HEIGHT, bytes(999)), "-5x7"),
        (bmp(24, 2**31 - 1, 2**31 - 1, bytes(999)), "2147483647"),
        (bmp(32, WIDTH, HEIGHT, bytes(999), 3, behind=masks(0xFF, 0xFF, 0xFF0000)), "colour masks"),
        (bmp(32, WIDTH, HEIGHT, bytes(999), 3, behind=masks(0xF0F, 0xF0, 0xFF0000)), "masks"),
        (bmp(24, WIDTH, HEIGHT, bytes(999), 5), "compression 5"),
        (b"BM" + bytes(60), "header of 0 bytes"),
        (b"BM", "truncated"),
    ],
)
def test_bmp_that_is_refused(file, reason, capfd):
    with pytest.raises(DataError, match=reason):
        decode_image(file, "x.bmp")
    assert capfd.readouterr() == ("", "")


WEBP = {
    "lossy": saved(smooth(60, 70), "WEBP", quality=80),
    "lossless": saved(smooth(60, 70), "WEBP", lossless=True),
    "alpha": saved(np.dstack([smooth(60, 70), smooth(60, 70)[..., 0]]), "WEBP", quality=80),
    "lossless alpha": saved(noise(60, 70, 4), "WEBP", lossless=True),
    "animation": saved(
        smooth(60, 70), "WEBP", save_all=True, append_images=[Image.new("RGB", (70, 60))]
    ),
}


@pytest.mark.parametrize("kind", WEBP)
def test_webp_as_opencv_reads_it(tmp_path, kind):
    expected = cv2.imdecode(np.frombuffer(WEBP[kind], np.uint8), cv2.IMREAD_UNCHANGED)
    (tmp_path / "x.webp").write_bytes(WEBP[kind])
    header = read_header(tmp_path / "x.webp")
    assert (header.height, header.width, header.has_alpha) == (60, 70, "alpha" in kind)
    decoded = decode_image(WEBP[kind], "x.webp", with_metadata=True)
    np.testing.assert_array_equal(decoded.pixels, expected[..., 2::-1])
    if "alpha" in kind:
        np.testing.assert_array_equal(decoded.alpha, expected[..., 3])
    assert decoded.metadata.left_out == (("further frames",) if kind == "animation" else ())


@pytest.mark.parametrize("kind", WEBP)
def test_webp_cut_or_with_flipped_bits(kind, capfd):
    data = WEBP[kind]
    for kept in np.linspace(13, len(data) - 1, 20).astype(int):
        with pytest.raises(DataError, match=r"x\.webp"):
            decode_image(data[:kept], "x.webp")
    draw = np.random.default_rng(4)
    for at in draw.integers(12, len(data), 60):
        flipped = data[:at] + bytes([data[at] ^ 1 << int(draw.integers(8))]) + data[at + 1 :]
        # Without a checksum, much of it goes unseen; nothing else than an error may come of it.
        with contextlib.suppress(DataError):
            decode_image(flipped, "x.webp")
    assert capfd.readouterr() == ("", "")
