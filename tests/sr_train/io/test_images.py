import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from sr_train.api.errors import DataError
from sr_train.io.images import read_header, read_image, to_rgb, write_image

RNG_SEED = 5


def noise(height, width, channels, dtype=np.uint8):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(RNG_SEED).integers(0, top, (height, width, channels), dtype)


def assert_header_agrees(path):
    header, decoded = read_header(path), read_image(path)
    assert decoded.pixels.shape == (header.height, header.width, header.channels)
    assert decoded.pixels.dtype == header.dtype
    assert (decoded.alpha is not None) == header.has_alpha
    assert decoded.pixels.flags.c_contiguous
    return decoded


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".bmp", ".PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_round_trip_8_bit(tmp_path, suffix, channels):
    pixels = noise(19, 23, channels)
    path = tmp_path / f"x{suffix}"
    write_image(path, pixels)
    decoded = assert_header_agrees(path)
    # WebP has no grey.
    expected = to_rgb(pixels) if suffix == ".webp" else pixels
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_round_trip_16_bit(tmp_path, suffix, channels):
    pixels = noise(19, 23, channels, np.uint16)
    write_image(tmp_path / f"x{suffix}", pixels)
    decoded = assert_header_agrees(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(decoded.pixels, pixels)


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint8), (".tif", np.uint16)],
)
def test_alpha_round_trip(tmp_path, suffix, dtype):
    pixels, alpha = noise(9, 11, 3, dtype), noise(9, 11, 1, dtype)[..., 0]
    write_image(tmp_path / f"x{suffix}", pixels, alpha)
    decoded = assert_header_agrees(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(decoded.pixels, pixels)
    np.testing.assert_array_equal(decoded.alpha, alpha)


def test_channel_order_is_rgb(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    write_image(tmp_path / "red.png", red)
    assert Image.open(tmp_path / "red.png").getpixel((0, 0)) == (200, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_orientation_as_viewers_show_it(tmp_path, orientation, suffix):
    path = tmp_path / f"x{suffix}"
    image = Image.fromarray(noise(8, 16, 3))
    exif = Image.Exif()
    exif[0x112] = orientation
    if suffix == ".tif":
        image.save(path, tiffinfo={0x112: orientation})
    else:
        image.save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    decoded = assert_header_agrees(path)
    with Image.open(path) as stored:
        expected = np.array(ImageOps.exif_transpose(stored))
    difference = np.abs(decoded.pixels.astype(int) - expected)
    assert difference.max() <= (2 if suffix == ".jpg" else 0)


def save_kinds(folder: Path):
    colour, grey = noise(10, 12, 3), noise(10, 12, 1)[..., 0]
    Image.fromarray(grey > 127).save(folder / "bit.png")
    Image.fromarray(colour).convert("P").save(folder / "palette.png")
    Image.fromarray(colour).convert("P").save(folder / "palette_alpha.png", transparency=3)
    Image.fromarray(colour).convert("P").save(folder / "palette.tif")
    Image.fromarray(grey).convert("P").save(folder / "palette.bmp")
    Image.fromarray(colour).save(folder / "key.png", transparency=(1, 2, 3))
    Image.fromarray(grey).save(folder / "grey_key.png", transparency=3)
    Image.fromarray(np.dstack([grey, grey]), "LA").save(folder / "la.png")
    Image.fromarray(np.dstack([grey, grey]), "LA").save(folder / "la.tif")
    Image.fromarray(np.dstack([colour, grey])).save(folder / "rgba.webp", lossless=True)
    Image.fromarray(colour).save(folder / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(colour).save(
        folder / "animated.webp", save_all=True, append_images=[Image.fromarray(colour)]
    )
    Image.fromarray(grey).save(folder / "grey.jpg")
    Image.fromarray(colour).save(folder / "progressive.jpg", progressive=True)
    cv2.imwrite(str(folder / "la16.png"), np.dstack([colour.astype(np.uint16) * 200, grey]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_header_agrees_for_every_kind(tmp_path):
    save_kinds(tmp_path)
    found = {path.name: assert_header_agrees(path) for path in sorted(tmp_path.iterdir())}
    assert len(found) == 15
    assert {name for name, p in found.items() if p.alpha is not None} == {
        "palette_alpha.png", "key.png", "grey_key.png", "la.png", "la.tif", "rgba.webp",
        "la16.png",
    }  # fmt: skip
    assert {name for name, p in found.items() if p.pixels.shape[2] == 1} == {
        "bit.png", "grey_key.png", "la.png", "la.tif", "grey.jpg", "palette.bmp",
    }  # fmt: skip
    assert found["la16.png"].pixels.dtype == np.uint16


def test_content_counts_not_the_suffix(tmp_path):
    pixels = noise(6, 7, 3)
    write_image(tmp_path / "a.png", pixels)
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").pixels, pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.98])
def test_truncated_file_is_an_error(tmp_path, suffix, kept, capfd):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(noise(60, 70, 3)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match=str(path)):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_truncated_jpeg_with_thumbnail_is_an_error(tmp_path):
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "thumb.jpg")
    thumb = b"Exif\0\0" + (tmp_path / "thumb.jpg").read_bytes()
    Image.fromarray(noise(60, 70, 3)).save(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    segment = b"\xff\xe5" + struct.pack(">H", len(thumb) + 2) + thumb
    whole = data[:2] + segment + data[2:]
    (tmp_path / "x.jpg").write_bytes(whole)
    assert read_image(tmp_path / "x.jpg").pixels.shape == (60, 70, 3)
    (tmp_path / "x.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match="file is truncated"):
        read_image(tmp_path / "x.jpg")


def test_odd_colour_profile_is_passed_over_in_silence(tmp_path, capfd):
    pixels = noise(6, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png", icc_profile=b"no profile at all" * 20)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").pixels, pixels)
    assert capfd.readouterr().err == ""


def test_corrupt_png_is_an_error(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(noise(60, 70, 3)).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=str(path)):
        read_image(path)


@pytest.mark.parametrize("read", [read_header, read_image])
def test_unusable_files(tmp_path, read):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(noise(4, 4, 1)[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(noise(4, 4, 1)[..., 0].astype(np.int32)).save(tmp_path / "int.tif")
    Image.fromarray(noise(4, 4, 3)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    expected = {
        "empty.png": "0 bytes",
        "text.png": "not an image",
        "missing.png": "No such file",
        "folder.png": "cannot be read",
        "float.tif": "SampleFormat=3",
        "int.tif": "BitsPerSample=32|SampleFormat=2",
        "cmyk.jpg": "'CMYK'",
    }
    for name, reason in expected.items():
        with pytest.raises(DataError, match=reason) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_header_does_not_read_the_pixels(tmp_path):
    ihdr = struct.pack(">IIBBBBB", 4000, 3000, 16, 6, 0, 0, 0)
    chunk = b"IHDR" + ihdr
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    head += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 10**6) + b"IDAT" + b"\0" * 9
    (tmp_path / "x.png").write_bytes(head)
    header = read_header(tmp_path / "x.png")
    assert (header.height, header.width, header.channels) == (3000, 4000, 3)
    assert header.has_alpha
    assert header.dtype == "uint16"


@pytest.mark.parametrize(
    ("name", "dtype", "alpha", "reason"),
    [
        ("x.jpg", np.uint16, False, "16 bit"),
        ("x.jpg", np.uint8, True, "alpha"),
        ("x.gif", np.uint8, False, "unknown suffix"),
        ("none/x.png", np.uint8, False, "cannot be written"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, dtype, alpha, reason):
    pixels = noise(4, 5, 3, dtype)
    with pytest.raises(DataError, match=reason):
        write_image(tmp_path / name, pixels, pixels[..., 0] if alpha else None)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    old, new = noise(4, 5, 3), 255 - noise(4, 5, 3)
    write_image(tmp_path / "x.png", old)

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sr_train.io.files.os.write", full)
    with pytest.raises(DataError, match="No space left"):
        write_image(tmp_path / "x.png", new)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").pixels, old)
