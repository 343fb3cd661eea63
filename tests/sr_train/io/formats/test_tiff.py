"""TIFF: the right values for every tag that changes what the bytes mean, or a refusal by name."""

import io
import itertools
import resource
import struct

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from sr_train.api.errors import DataError
from sr_train.io.formats.ifd import Value
from sr_train.io.images import decode_image, read_header, read_image
from tests.sr_train.io.formats.files import noise, packed, saved, smooth, tiff

HEIGHT, WIDTH = 21, 29
KINDS = ["rgb", "grey", "white is zero", "rgba", "rgbx", "rgb and two", "grey and alpha"]
LAYOUTS = [
    {"compression": compression, "predictor": predictor, "planarconfig": planar, **parts}
    for compression, predictor, planar, parts in itertools.product(
        (None, "zlib"),
        (None, 2),
        ("contig", "separate"),
        ({}, {"rowsperstrip": 1}, {"rowsperstrip": 8}, {"tile": (16, 32)}),
    )
    if compression or not predictor
]


def of_kind(kind, dtype):
    """Return stored samples, colours, alpha and what tifffile has to say."""
    colours, more = noise(HEIGHT, WIDTH, 3, dtype), noise(HEIGHT, WIDTH, 2, dtype, seed=8)
    top = np.iinfo(dtype).max
    grey, alpha = colours[..., :1], more[..., 0]
    extra = {"planarconfig": "contig"}
    return {
        "rgb": (colours, colours, None, {"photometric": "rgb"}),
        "grey": (grey, grey, None, {"photometric": "minisblack", **extra}),
        "white is zero": (top - grey, grey, None, {"photometric": "miniswhite", **extra}),
        "rgba": (
            np.dstack([colours, alpha]),
            colours,
            alpha,
            {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        ),
        "rgbx": (
            np.dstack([colours, alpha]),
            colours,
            None,
            {"photometric": "rgb", "extrasamples": ["unspecified"]},
        ),
        "rgb and two": (
            np.dstack([colours, more[..., 1], alpha]),
            colours,
            alpha,
            {"photometric": "rgb", "extrasamples": ["unspecified", "unassalpha"]},
        ),
        "grey and alpha": (
            np.dstack([grey, alpha]),
            grey,
            alpha,
            {"photometric": "minisblack", "extrasamples": ["unassalpha"], **extra},
        ),
    }[kind]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
def test_every_layout_gives_the_values_written(dtype, kind, order, big):
    stored, colours, alpha, say = of_kind(kind, dtype)
    for layout in LAYOUTS:
        options = {**layout, **say, "byteorder": order, "bigtiff": big, "metadata": None}
        samples = stored[..., 0] if stored.shape[2] == 1 else stored
        if options["planarconfig"] == "separate" and samples.ndim == 3:
            samples = np.ascontiguousarray(np.moveaxis(samples, -1, 0))
        if samples.ndim == 2:
            del options["planarconfig"]
        file = io.BytesIO()
        tifffile.imwrite(file, samples, **options)
        decoded = decode_image(file.getvalue(), "x.tif")
        np.testing.assert_array_equal(decoded.pixels, colours, str(options))
        assert decoded.pixels.dtype == dtype
        if alpha is None:
            assert decoded.alpha is None
        else:
            np.testing.assert_array_equal(decoded.alpha, alpha)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_deflate", "lzma"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_as_pillow_reads_its_own(compression, mode):
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3)).convert(mode)
    decoded = decode_image(saved(image, "TIFF", compression=compression), "x.tif")
    expected = np.array(image.convert("RGB") if mode == "P" else image)
    parts = [decoded.pixels] + ([] if decoded.alpha is None else [decoded.alpha[..., None]])
    found = np.concatenate(parts, axis=-1).squeeze()
    np.testing.assert_array_equal(found, expected * (255 if mode == "1" else 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_as_opencv_reads_its_own(dtype, channels):
    """LZW with the horizontal predictor, in strips of few rows: what `write_image` makes."""
    pixels = noise(40, 50, channels, dtype)
    data = cv2.imencode(".tif", pixels)[1].tobytes()
    decoded = decode_image(data, "x.tif")
    np.testing.assert_array_equal(decoded.pixels, pixels[..., 2::-1] if channels > 1 else pixels)
    if channels == 4:
        np.testing.assert_array_equal(decoded.alpha, pixels[..., 3])


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax(compression):
    bits = noise(HEIGHT, WIDTH, 1)[..., 0] > 127
    decoded = decode_image(saved(bits, "TIFF", compression=compression), "x.tif")
    np.testing.assert_array_equal(decoded.pixels[..., 0], bits * 255)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_inside(mode):
    image = Image.fromarray(smooth(150, 170)).convert(mode)
    data = saved(image, "TIFF", compression="jpeg")
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.array(stored)
    np.testing.assert_array_equal(decode_image(data, "x.tif").pixels.squeeze(), expected)
    damaged = bytearray(data)
    start = data.index(b"\xff\xda") + 60
    damaged[start : start + 200] = bytes(200)
    with pytest.raises(DataError, match="libjpeg says"):
        decode_image(bytes(damaged), "x.tif")


def test_a_jpeg_inside_that_claims_to_be_huge():
    data = bytearray(saved(smooth(64, 64), "TIFF", compression="jpeg"))
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = struct.pack(">HH", 65000, 65000)
    with pytest.raises(DataError, match="a part is 65000x65000"):
        decode_image(bytes(data), "x.tif")


def grey(bits, **tags):
    values = noise(HEIGHT, WIDTH, 1, seed=bits)[..., 0] >> (8 - bits)
    codes = {"width": 256, "height": 257, "fill": 266}
    more = {codes[name]: value for name, value in tags.items() if name in codes}
    head = {256: WIDTH, 257: HEIGHT, 258: bits, 262: 1, 278: HEIGHT}
    return values, packed(values, bits).tobytes(), {**head, **more}


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_few_bits_are_stretched(bits, order):
    values, data, tags = grey(bits)
    levels = values * (255 // ((1 << bits) - 1))
    found = decode_image(tiff(data, tags, order), "x").pixels[..., 0]
    np.testing.assert_array_equal(found, levels)
    found = decode_image(tiff(data, {**tags, 262: 0}, order), "x").pixels[..., 0]
    np.testing.assert_array_equal(found, 255 - levels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_16_and_of_8_bit_colours(bits):
    values, data, tags = grey(bits)
    colours = noise(3, 1 << bits, 1, np.uint16)[..., 0]
    for written in (colours, colours >> 8):
        tags |= {262: 3, 320: written.reshape(-1).tolist()}
        found = decode_image(tiff(data, tags), "x").pixels
        np.testing.assert_array_equal(found, (colours.T >> 8)[values])


def test_bits_in_reverse():
    values, data, tags = grey(1)
    reversed_bits = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    found = decode_image(tiff(reversed_bits, {**tags, 266: 2}), "x").pixels[..., 0]
    np.testing.assert_array_equal(found, values * 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_multiplied_by_alpha_are_divided(dtype):
    top = np.iinfo(dtype).max
    colours, alpha = noise(HEIGHT, WIDTH, 3, dtype), noise(HEIGHT, WIDTH, 1, dtype, seed=9)
    alpha[0, :3] = [[0], [top], [1]]
    product = (colours.astype(np.uint64) * alpha + top // 2) // top
    file = io.BytesIO()
    stored = np.dstack([product.astype(dtype), alpha])
    tifffile.imwrite(file, stored, photometric="rgb", extrasamples=["assocalpha"], metadata=None)
    decoded = decode_image(file.getvalue(), "x.tif")
    np.testing.assert_array_equal(decoded.alpha, alpha[..., 0])
    wide = np.maximum(alpha.astype(np.int64), 1)
    error = np.abs(decoded.pixels.astype(np.int64) - colours) * wide
    # What rounding to a product loses, divided by alpha, and one level.
    assert (error[alpha[..., 0] > 0] <= top // 2 + wide[alpha[..., 0] > 0]).all()
    assert (decoded.pixels[alpha[..., 0] == 0] == 0).all()
    if dtype == np.uint8:
        with Image.open(io.BytesIO(file.getvalue())) as image:
            np.testing.assert_array_equal(decoded.pixels, np.array(image.convert("RGBA"))[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation(tmp_path, dtype, turn):
    pixels = noise(HEIGHT, WIDTH, 3, dtype)
    tags = {256: WIDTH, 257: HEIGHT, 258: [8 * dtype().itemsize] * 3, 262: 2, 277: 3, 274: turn}
    (tmp_path / "x.tif").write_bytes(tiff(pixels.tobytes(), tags))
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels),
    }[turn]
    found = decode_image((tmp_path / "x.tif").read_bytes(), "x.tif").pixels
    np.testing.assert_array_equal(found, upright)
    header = read_header(tmp_path / "x.tif")
    assert (header.height, header.width) == upright.shape[:2]


def test_equal_at_8_and_16_bit():
    """The same image at both depths, separate planes, white as zero, turned: equal levels."""
    pixels = noise(HEIGHT, WIDTH, 1)[..., 0]
    for tags in ({262: 0}, {262: 1, 274: 5}):
        head = {256: WIDTH, 257: HEIGHT, **tags}
        shallow = decode_image(tiff(pixels.tobytes(), {**head, 258: 8}), "x").pixels
        deep = (pixels.astype(np.uint16) * 257).tobytes()
        found = decode_image(tiff(deep, {**head, 258: 16}), "x").pixels
        np.testing.assert_array_equal(found, shallow.astype(np.uint16) * 257)


def test_strips_without_their_lengths_and_parts_of_big_files():
    values, data, tags = grey(8)
    for more in ({279: None}, {279: len(data) + 999}):
        found = decode_image(tiff(data, {**tags, **more}), "x").pixels[..., 0]
        np.testing.assert_array_equal(found, values)
    found = decode_image(tiff(data, tags, ">", big=True), "x").pixels[..., 0]
    np.testing.assert_array_equal(found, values)


REFUSED = [
    ("CMYK", {262: 5, 277: 4, 258: [8] * 4}, r"PhotometricInterpretation=5 \(CMYK\)"),
    ("Lab", {262: 8, 277: 3, 258: [8] * 3}, r"PhotometricInterpretation=8 \(CIELab\)"),
    ("YCbCr", {262: 6, 277: 3, 258: [8] * 3}, "YCbCr without JPEG"),
    ("mask", {262: 4, 258: 1}, "transparency mask"),
    ("no photometric", {262: None}, "PhotometricInterpretation=-1 .missing"),
    ("CFA", {262: 32803, 258: 16}, "colour filter array"),
    ("float", {258: 32, 339: 3}, r"SampleFormat=3 \(floating point\)"),
    ("half", {258: 16, 339: 3}, "SampleFormat=3"),
    ("signed", {339: 2}, r"SampleFormat=2 \(signed numbers\)"),
    ("12 bits", {258: 12}, "BitsPerSample=12"),
    ("32 bits", {258: 32}, "BitsPerSample=32"),
    ("unequal bits", {262: 2, 277: 3, 258: [5, 6, 5]}, r"BitsPerSample=\[5, 6\]"),
    ("4-bit colours", {262: 2, 277: 3, 258: [4] * 3}, "BitsPerSample=4"),
    ("planes", {284: 3}, "PlanarConfiguration=3"),
    ("float predictor", {259: 8, 317: 3}, r"Predictor=3 \(floating point\)"),
    ("fill order", {266: 3}, "FillOrder=3"),
    ("extra samples", {277: 2, 258: [8] * 2, 338: 9}, "ExtraSamples=9"),
    ("few samples", {262: 2, 277: 2, 258: [8] * 2}, "SamplesPerPixel=2"),
    ("old JPEG", {259: 6}, r"Compression=6 \(old JPEG\)"),
    ("JPEG 2000", {259: 34712}, "JPEG 2000"),
    ("Zstandard", {259: 50000}, "Zstandard"),
    ("unknown packing", {259: 4711}, "Compression=4711"),
    ("a thumbnail", {254: 1}, "reduced copy"),
    ("depth", {32997: 4}, "ImageDepth=4"),
    ("a palette too short", {262: 3, 320: [0] * 12}, "ColorMap of 12 values"),
    ("a palette of large numbers", {262: 3, 320: [1 << 20] * 768}, "768 of 16 bits"),
    ("no width", {256: None}, "0x21"),
    (
        "black and white",
        {262: 2, 277: 3, 258: [8] * 3, 532: Value(5, 6, struct.pack("<12I", *[16, 1, 235, 1] * 3))},
        "ReferenceBlackWhite",
    ),
]


@pytest.mark.parametrize(("name", "tags", "reason"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_refused_by_name(name, tags, reason):
    _, data, head = grey(8)
    with pytest.raises(DataError, match=reason):
        decode_image(tiff(data * 16, {**head, **tags}), "x.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "lzma"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.97])
def test_cut_files(dtype, compression, kept, capfd):
    pixels = smooth(60, 70)[..., 0].astype(dtype)
    data = saved(pixels, "TIFF", compression=compression)
    # The directory stands at the start or at the end; either way something is missing.
    with pytest.raises(DataError, match=r"x\.tif: (damaged|truncated|the file is truncated)"):
        decode_image(data[: int(len(data) * kept)], "x.tif")
    assert capfd.readouterr() == ("", "")


def test_flipped_bits_of_deflated_parts(capfd):
    data = saved(smooth(160, 170), "TIFF", compression="tiff_deflate")
    draw = np.random.default_rng(1)
    for at in draw.integers(len(data) // 4, len(data) * 3 // 4, 60):
        flipped = data[:at] + bytes([data[at] ^ 1 << int(draw.integers(8))]) + data[at + 1 :]
        with pytest.raises(DataError, match=r"x\.tif: (damaged|truncated)"):
            decode_image(flipped, "x.tif")
    assert capfd.readouterr() == ("", "")


def test_rows_wider_than_opencv_takes():
    tags = {256: 400_000, 257: 2, 258: [16] * 3, 259: 5, 262: 2, 277: 3, 278: 2}
    with pytest.raises(DataError, match="Compression=5 in rows of 2400000 bytes"):
        decode_image(tiff(bytes(99), tags), "x.tif")


def directory(entries, after=8):
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        data += struct.pack("<HHII", tag, kind, count, value)
    return data + struct.pack("<I", after) + bytes(500)


BASE = [
    (256, 4, 1, 16),
    (257, 4, 1, 16),
    (258, 3, 1, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 1),
    (273, 4, 1, 200),
    (277, 3, 1, 1),
    (278, 4, 1, 16),
    (279, 4, 1, 256),
]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [(256, 4, 2**31, 8), *BASE[1:]],
        [(256, 4, 1, 2**31), *BASE[1:]],
        [*BASE[:2], (258, 3, 0, 8), *BASE[3:]],
        [*BASE[:2], (258, 3, 9999, 8), *BASE[3:]],
        [*BASE[:5], (273, 4, 1, 2**31), *BASE[6:]],
        [*BASE[:5], (273, 4, 2**30, 8), *BASE[6:]],
        [*BASE[:5], (273, 2, 4, 0x41414141), *BASE[6:]],
        [*BASE[:6], (277, 3, 1, 9999), *BASE[7:]],
        [*BASE[:7], (322, 4, 1, 0), (323, 4, 1, 16), (324, 4, 1, 8), (325, 4, 1, 8)],
        [*BASE[:7], (322, 4, 1, 2**31), (323, 4, 1, 16), (324, 4, 1, 8), (325, 4, 1, 8)],
        [*BASE, (34665, 4, 1, 2**31 - 1), (320, 3, 2**31, 8), (34675, 7, 2**32 - 1, 8)],
    ],
)
def test_absurd_directories(entries):
    """They are refused, or read where what is absurd is not wanted; nothing else comes out."""
    data = directory(entries)
    try:
        decoded = decode_image(data, "x.tif", with_metadata=True)
    except DataError:
        return
    assert decoded.pixels.shape == (16, 16, 1)


@pytest.mark.parametrize("offset", [2**50, 2**63, 2**64 - 1])
def test_offsets_of_a_big_file_beyond_all_files(tmp_path, offset):
    _, data, tags = grey(8)
    for far in (
        tiff(data, {**tags, 273: Value(16, 1, struct.pack("<Q", offset))}, big=True),
        tiff(data, {**tags, 258: Value(16, 2, struct.pack("<QQ", offset, 0))}, big=True),
        b"II+\0\x08\0\0\0" + struct.pack("<Q", offset) + bytes(99),
    ):
        (tmp_path / "x.tif").write_bytes(far)
        with pytest.raises(DataError, match=r"x\.tif"):
            read_image(tmp_path / "x.tif")
        with pytest.raises(DataError, match=r"x\.tif"):
            decode_image(far, "x.tif")


def test_parts_that_are_told_and_are_not_there_take_no_memory():
    """Tiles of one pixel, in planes, without lengths: billions of them, by a file of 300 bytes."""
    head = {256: 14_000, 257: 14_000, 258: [8] * 64, 262: 1, 277: 64, 284: 2}
    tags = {**head, 273: None, 279: None, 322: 1, 323: 1, 324: 8}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"1 strips or tiles, expected 12544000000"):
        decode_image(tiff(bytes(99), tags), "x.tif")
    # KiB; those of the pixels, which nobody has written to, do not count.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_directory_that_points_to_itself():
    assert decode_image(directory(BASE), "x.tif").pixels.shape == (16, 16, 1)
