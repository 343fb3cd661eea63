"""PNG of every kind, whole and damaged."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from sr_train.api.errors import DataError
from sr_train.io.images import decode_image, read_header
from tests.sr_train.io.formats.files import ADAM7, filtered, noise, packed, png, png_chunk, saved

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [
    (colour, bits)
    for colour, depths in {
        0: (1, 2, 4, 8, 16),
        2: (8, 16),
        3: (1, 2, 4, 8),
        4: (8, 16),
        6: (8, 16),
    }.items()
    for bits in depths
]


def stored_rows(values, bits):
    """Return (H, bytes) of (H, W, S) values."""
    flat = values.reshape(len(values), -1)
    if bits == 16:
        return flat.astype(">u2").view(np.uint8)
    return packed(flat, bits) if bits < 8 else flat.astype(np.uint8)


def stream(values, bits, interlaced=False, filters=(0, 1, 2, 3, 4, 4, 3)):
    pixel_bytes = max(1, values.shape[2] * bits // 8)
    raw = b""
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = values[top::down, left::across]
        if part.size:
            raw += filtered(stored_rows(part, bits), pixel_bytes, filters)
    return raw


@pytest.mark.parametrize(("colour", "bits"), KINDS)
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (19, 37)])
def test_every_kind(colour, bits, interlaced, size):
    height, width = size
    draw = np.random.default_rng(height * bits + colour)
    values = draw.integers(0, 1 << bits, (height, width, SAMPLES[colour]))
    palette = draw.integers(0, 256, (1 << min(bits, 8), 3), dtype=np.uint8)
    before = [(b"PLTE", palette.tobytes())] if colour == 3 else []
    packed_stream = zlib.compress(stream(values, bits, interlaced))
    parts = [packed_stream[at : at + 50] for at in range(0, len(packed_stream), 50)]
    data = png((width, height, bits, colour, int(interlaced)), parts, before)
    decoded = decode_image(data, "x.png")
    if colour == 3:
        expected = palette[values[..., 0]]
    elif bits < 8:
        expected = values * 255 // ((1 << bits) - 1)
    else:
        expected = values[..., :3] if colour in (2, 6) else values[..., :1]
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.pixels.dtype == (np.uint16 if bits == 16 else np.uint8)
    if colour in (4, 6):
        np.testing.assert_array_equal(decoded.alpha, values[..., -1])
    else:
        assert decoded.alpha is None


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 5), (19, 37)])
def test_interlacing_is_what_other_programs_take_it_for(size):
    """The passes of these files are a table of the tests; Pillow has its own."""
    values = noise(*size, 3, seed=4)
    data = png((size[1], size[0], 8, 2, 1), zlib.compress(stream(values, 8, interlaced=True)))
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.array(image), values)
    np.testing.assert_array_equal(decode_image(data, "x.png").pixels, values)


@pytest.mark.parametrize("band_bytes", [1, 700, 5000])
@pytest.mark.parametrize("filters", [(0, 1, 2, 3, 4, 4, 3), (0,), (2,)])
def test_many_bands_of_rows(monkeypatch, band_bytes, filters):
    monkeypatch.setattr("sr_train.io.formats.png_pixels._BAND_BYTES", band_bytes)
    values = noise(61, 70, 3, seed=1)
    for interlaced in (False, True):
        rows = stream(values, 8, interlaced, filters)
        data = png((70, 61, 8, 2, int(interlaced)), zlib.compress(rows))
        np.testing.assert_array_equal(decode_image(data, "x").pixels, values)


def test_colour_key_and_palette_alpha():
    values = np.array([[[1, 2, 3], [1, 2, 4]]])
    data = png((2, 1, 8, 2, 0), zlib.compress(stream(values, 8)), [(b"tRNS", b"\0\1\0\2\0\3")])
    np.testing.assert_array_equal(decode_image(data, "x").alpha, [[0, 255]])
    deep = values * 256
    key = struct.pack(">HHH", 256, 512, 768)
    data = png((2, 1, 16, 2, 0), zlib.compress(stream(deep, 16)), [(b"tRNS", key)])
    np.testing.assert_array_equal(decode_image(data, "x").alpha, [[0, 65535]])
    indices = np.array([[[0], [1], [2]]])
    chunks = [(b"PLTE", bytes(range(9))), (b"tRNS", b"\x07\x08")]
    decoded = decode_image(png((3, 1, 8, 3, 0), zlib.compress(stream(indices, 8)), chunks), "x")
    np.testing.assert_array_equal(decoded.alpha, [[7, 8, 255]])
    np.testing.assert_array_equal(decoded.pixels, [[[0, 1, 2], [3, 4, 5], [6, 7, 8]]])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_transparent_grey_is_alpha_as_a_transparent_colour_is(bits, interlaced):
    top = (1 << bits) - 1
    values = np.random.default_rng(bits).integers(0, top + 1, (9, 11, 1))
    key = int(values[4, 5, 0])
    # What stands above the depth's bits says nothing.
    chunks = [(b"tRNS", (key if bits == 16 else key | 0xFF00 & ~top).to_bytes(2, "big"))]
    rows = zlib.compress(stream(values, bits, interlaced))
    decoded = decode_image(png((11, 9, bits, 0, int(interlaced)), rows, chunks), "x")
    white = np.iinfo(decoded.pixels.dtype).max
    np.testing.assert_array_equal(decoded.alpha, np.where(values[..., 0] == key, 0, white))
    np.testing.assert_array_equal(decoded.pixels, values * (white // top))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_as_pillow_reads_it(mode):
    image = Image.fromarray(noise(23, 31, 3)).convert(mode)
    expected = np.array(image.convert("RGB") if mode == "P" else image)
    decoded = decode_image(saved(image, "PNG"), "x.png")
    parts = [decoded.pixels] + ([] if decoded.alpha is None else [decoded.alpha[..., None]])
    found = np.concatenate(parts, axis=-1)
    scale = 255 if mode == "1" else 1
    np.testing.assert_array_equal(found.squeeze(), expected.astype(found.dtype) * scale)


def test_what_chunks_say_about_colours_changes_no_pixel(capfd):
    values = noise(5, 6, 3)
    chunks = [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cHRM", struct.pack(">8I", *range(1, 9))),
        (b"cICP", bytes([12, 13, 0, 1])),
        (b"sBIT", b"\5\5\5"),
        (b"bKGD", b"\0\1\0\2\0\3"),
        (b"iCCP", b"x\0\0garbage"),
    ]
    data = png((6, 5, 8, 2, 0), zlib.compress(stream(values, 8)), chunks)
    np.testing.assert_array_equal(decode_image(data, "x").pixels, values)
    assert capfd.readouterr() == ("", "")


WHOLE = zlib.compress(stream(noise(20, 17, 3), 8))
HEADER = (17, 20, 8, 2, 0)


def flipped(data, at, bit=1):
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("half of the rows", png(HEADER, zlib.compress(stream(noise(10, 17, 3), 8))), "end too"),
        ("half of the stream", png(HEADER, WHOLE[: len(WHOLE) // 2]), "end too early"),
        ("no checksum of the stream", png(HEADER, WHOLE[:-4]), "end too early"),
        ("wrong checksum of the stream", png(HEADER, flipped(WHOLE, -4 % len(WHOLE))), "check"),
        ("other data under a right checksum", png(HEADER, flipped(WHOLE, 99, 8)), "damaged|early"),
        ("a byte of the pixels", flipped(png(HEADER, WHOLE), 200), "checksum"),
        ("a byte of a chunk's checksum", flipped(png(HEADER, WHOLE), -14), "checksum"),
        ("a byte of the header", flipped(png(HEADER, WHOLE), 30), "checksum|not supported"),
        (
            "a filter that is none",
            png(HEADER, zlib.compress(b"\7" + bytes(20 * 52 - 1))),
            "filter 7",
        ),
        ("no pixels", png(HEADER, b""), "too little|early"),
        ("no end", png(HEADER, WHOLE)[:-12], "truncated"),
        ("an unknown chunk that counts", png(HEADER, WHOLE, [(b"ABCD", b"")]), "ABCD"),
        ("one behind the pixels", png(HEADER, WHOLE, (), [(b"ABCD", b"")]), "ABCD"),
        ("no palette", png((17, 20, 8, 3, 0), WHOLE), "no palette"),
        ("Apple's kind", b"\x89PNG\r\n\x1a\n" + png_chunk(b"CgBI", bytes(4)), "Apple"),
        ("7 bits", png((8, 8, 7, 2, 0), WHOLE), "bit depth 7"),
        ("colour type 5", png((8, 8, 8, 5, 0), WHOLE), "colour type 5"),
        ("no pixels at all", png((0, 5, 8, 2, 0), WHOLE), "0x5"),
        ("a bomb", png((9000, 9000, 16, 6, 0), zlib.compress(bytes(1000))), "too little"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_damage_is_an_error_without_a_word_from_a_library(name, data, reason, capfd):
    with pytest.raises(DataError, match=reason):
        decode_image(data, "x.png")
    assert capfd.readouterr() == ("", "")


def test_each_flipped_bit_of_the_pixels_is_found():
    data = png(HEADER, WHOLE)
    start = data.index(b"IDAT")
    draw = np.random.default_rng(3)
    for at in draw.integers(start, len(data) - 12, 200):
        with pytest.raises(DataError):
            decode_image(flipped(data, int(at), 1 << int(draw.integers(8))), "x.png")


def test_more_than_the_pixels_is_let_go(capfd):
    values = noise(4, 5, 3)
    raw = stream(values, 8)
    for packed_rows in (zlib.compress(raw + raw), zlib.compress(raw) + b"more"):
        decoded = decode_image(png((5, 4, 8, 2, 0), packed_rows), "x")
        np.testing.assert_array_equal(decoded.pixels, values)
    assert capfd.readouterr() == ("", "")


def test_a_rotation_behind_the_pixels_is_refused():
    exif = Image.Exif()
    exif[0x112] = 6
    late = [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
    with pytest.raises(DataError, match="rotation that stands after"):
        decode_image(png(HEADER, WHOLE, (), late), "x.png")


def test_bombs_in_texts_are_not_unpacked(tmp_path):
    text = b"a\0\0" + zlib.compress(bytes(50_000_000), 9)
    chunks = [(b"zTXt", text), (b"iCCP", text), (b"iTXt", b"a\0\1\0\0\0" + text)]
    data = png(HEADER, WHOLE, chunks)
    (tmp_path / "x.png").write_bytes(data)
    assert read_header(tmp_path / "x.png").width == 17
    decoded = decode_image(data, "x.png", with_metadata=True)
    assert decoded.pixels.shape == (20, 17, 3)
    assert decoded.metadata.icc is None
    assert "a colour profile that is damaged or too large" in decoded.metadata.left_out


def test_equal_to_opencv_for_its_own_files():
    for pixels in (noise(33, 47, 3), noise(33, 47, 3, np.uint16), noise(33, 47, 4), noise(9, 9, 1)):
        data = cv2.imencode(".png", pixels)[1].tobytes()
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        decoded = decode_image(data, "x.png")
        if expected.ndim == 2:
            np.testing.assert_array_equal(decoded.pixels[..., 0], expected)
        else:
            np.testing.assert_array_equal(decoded.pixels, expected[..., 2::-1])
            if expected.shape[2] == 4:
                np.testing.assert_array_equal(decoded.alpha, expected[..., 3])


def test_frames_of_an_animation_beyond_the_first_are_not_read():
    frames = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (10, 200)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    decoded = decode_image(file.getvalue(), "x.png", with_metadata=True)
    assert np.unique(decoded.pixels).tolist() == [10]
    assert decoded.metadata.left_out == ("further frames",)
