"""JPEG: the pixels of libjpeg-turbo, its warnings as errors, and what is no damage."""

import re
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from sr_train.api.errors import DataError
from sr_train.io.images import decode_image, read_header
from tests.sr_train.io.formats.files import noise, saved, smooth

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def jpeg(height=80, width=112, **options):
    return saved(smooth(height, width), "JPEG", **{"quality": 90, **options})


def scans(data):
    """Return the offset of each scan's marker."""
    return [found.start() for found in MARKER.finditer(data) if found[0] == b"\xff\xda"]


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 64), (3, 200)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
@pytest.mark.parametrize("subsampling", [0, 1, 2, "4:1:1", "keep_rgb"])
def test_equal_to_opencv_and_pillow_bit_for_bit(size, options, subsampling):
    more = {"keep_rgb": True} if subsampling == "keep_rgb" else {"subsampling": subsampling}
    data = jpeg(*size, **options, **more)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]
    np.testing.assert_array_equal(decode_image(data, "x.jpg").pixels, expected)


def test_grey():
    data = saved(smooth(33, 47)[..., 0], "JPEG")
    image = decode_image(data, "x.jpg")
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image.pixels[..., 0], expected)
    assert image.pixels.shape == (33, 47, 1)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 5}])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["cut", "cut with an end", "zeros", "bytes taken out"])
def test_damage_is_an_error_without_a_word_from_a_library(options, part, kind, capfd):
    data = jpeg(**options)
    at = int(len(data) * part)
    damaged = {
        "cut": data[:at],
        "cut with an end": data[:at] + b"\xff\xd9",
        "zeros": data[:at] + bytes(len(data) - at - 2) + data[-2:],
        "bytes taken out": data[: at - 60] + data[at:],
    }[kind]
    with pytest.raises(DataError, match=r"x\.jpg: (damaged|the file is truncated)"):
        decode_image(damaged, "x.jpg")
    assert capfd.readouterr() == ("", "")


def test_libjpegs_own_words_are_told():
    data = jpeg()
    with pytest.raises(DataError, match="libjpeg says: Corrupt JPEG data: premature end of data"):
        decode_image(data[: len(data) // 2] + b"\xff\xd9", "x.jpg")


def test_whatever_libjpeg_warns_of_is_an_error(capfd):
    """Flip bits: what this decodes, OpenCV decodes without a warning and to the same pixels."""
    data = jpeg(restart_marker_blocks=4)
    draw = np.random.default_rng(0)
    found = 0
    for at in draw.integers(scans(data)[0] + 20, len(data) - 2, 300):
        flipped = data[:at] + bytes([data[at] ^ 1 << int(draw.integers(8))]) + data[at + 1 :]
        try:
            pixels = decode_image(flipped, "x.jpg").pixels
        except DataError:
            found += 1
            continue
        assert capfd.readouterr() == ("", "")
        expected = cv2.imdecode(np.frombuffer(flipped, np.uint8), cv2.IMREAD_UNCHANGED)
        assert capfd.readouterr().err == ""
        np.testing.assert_array_equal(pixels, expected[..., ::-1])
    assert found > 20


def test_missing_scans_of_which_libjpeg_says_nothing():
    data = jpeg(progressive=True)
    starts = scans(data)
    assert len(starts) > 5
    for start in starts[1:]:
        # Tables may stand in front of a scan; without it they do no harm.
        with pytest.raises(DataError, match="lacks scans"):
            decode_image(data[:start] + b"\xff\xd9", "x.jpg")


def test_missing_scans_of_a_sequential_file():
    """A file whose components have a scan each, made of the scan of a grey file."""
    data = saved(np.full((8, 8), 90, np.uint8), "JPEG")
    start = scans(data)[0]
    frame = data.index(b"\xff\xc0")
    size = struct.unpack_from(">H", data, frame + 2)[0]
    components = bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    header = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 8, 8, 3) + components
    head = data[:frame] + header + data[frame + 2 + size : start]
    scan = data[start:-2]
    number = 5

    def for_component(index):
        return scan[:number] + bytes([index]) + scan[number + 1 :]

    whole = head + b"".join(map(for_component, (1, 2, 3))) + b"\xff\xd9"
    assert decode_image(whole, "x.jpg").pixels.shape == (8, 8, 3)
    with pytest.raises(DataError, match="lacks scans"):
        decode_image(head + for_component(1) + for_component(2) + b"\xff\xd9", "x.jpg")


@pytest.mark.parametrize("padding", [b"\0" * 7, b"\0" * 500, b"\xff" * 9])
def test_padding_in_front_of_the_end_is_harmless(padding):
    data = jpeg()
    expected = decode_image(data, "x.jpg").pixels
    padded = data[:-2] + padding + data[-2:]
    np.testing.assert_array_equal(decode_image(padded, "x.jpg").pixels, expected)
    np.testing.assert_array_equal(decode_image(data + b"\0" * 999, "x.jpg").pixels, expected)


def test_padding_behind_data_that_end_in_a_stuffed_byte():
    every = (saved(noise(8, 8, 1, seed=seed)[..., 0], "JPEG") for seed in range(9000))
    data = next(each for each in every if each.endswith(b"\xff\x00\xff\xd9"))
    expected = decode_image(data, "x.jpg").pixels
    padded = data[:-2] + bytes(99) + data[-2:]
    np.testing.assert_array_equal(decode_image(padded, "x.jpg").pixels, expected)


def test_other_bytes_there_are_damage():
    data = jpeg()
    with pytest.raises(DataError, match="extraneous bytes before marker 0xd9"):
        decode_image(data[:-2] + bytes(range(1, 40)) + data[-2:], "x.jpg")


def test_other_warnings_without_a_meaning_for_the_pixels():
    data = jpeg()
    expected = decode_image(data, "x.jpg").pixels
    version = data.index(b"JFIF\0") + 5
    newer = data[:version] + b"\x02\x01" + data[version + 2 :]
    content = scans(data)[0] + 5 + 2 * 3
    assert data[content : content + 3] == b"\x00\x3f\x00"
    odd = data[:content] + b"\x00\x00\x00" + data[content + 3 :]
    for each in (newer, odd):
        np.testing.assert_array_equal(decode_image(each, "x.jpg").pixels, expected)
        with pytest.raises(DataError, match="libjpeg says"):
            decode_image(each[: len(each) // 2] + b"\xff\xd9", "x.jpg")


def with_frame(data, **changes):
    """Return a JPEG with other numbers in its frame header."""
    at = data.index(b"\xff\xc0") + 4
    out = bytearray(data)
    for name, value in changes.items():
        if name == "bits":
            out[at] = value
        elif name == "height":
            out[at + 1 : at + 3] = struct.pack(">H", value)
        elif name == "sampling":
            out[at + 7] = value
    return bytes(out)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (saved(Image.fromarray(smooth(8, 8)).convert("CMYK"), "JPEG"), "'CMYK'"),
        (with_frame(jpeg(), bits=12), "12 bits"),
        (with_frame(jpeg(), height=0), "DNL"),
        (with_frame(jpeg(), sampling=0x31), "3x1,1x1,1x1"),
        (jpeg().replace(b"\xff\xc0", b"\xff\xc5", 1), "0xc5"),
        (jpeg()[:300], "truncated before its pixels"),
        (b"\xff\xd8\xff\xd9", "found the marker"),
        (jpeg()[:2] + b"junk" + jpeg()[2:], "expected a marker|not an image"),
    ],
    ids=["cmyk", "12-bit", "dnl", "sampling", "frame", "cut", "empty", "junk"],
)
def test_kinds_that_are_refused_by_name(tmp_path, data, reason):
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(DataError, match=reason):
        read_header(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=reason):
        decode_image(data, "x.jpg")


def test_a_flood_of_scans_is_refused():
    data = jpeg(progressive=True)
    last = scans(data)[-1]
    scan = data[last:-2]
    # As large as the limit lets it be, so that each scan costs.
    at = data.index(b"\xff\xc2") + 5
    large = data[:at] + struct.pack(">HH", 12000, 12000) + data[at + 4 : -2]
    with pytest.raises(DataError, match="scans is not supported"):
        decode_image(large + scan * 200 + b"\xff\xd9", "x.jpg")
