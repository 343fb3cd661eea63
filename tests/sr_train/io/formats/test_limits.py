"""The size beyond which images are refused: told by the header, and held by every process."""

import multiprocessing
import resource
import struct
import zlib
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sr_train.api.errors import DataError
from sr_train.io.formats.limits import set_max_megapixels
from sr_train.io.images import decode_image, read_header, read_image, write_image
from tests.sr_train.io.formats.files import bmp, png, saved, tiff


@pytest.fixture(autouse=True)
def own_limit(monkeypatch):
    """Let nothing of a test's limit stay behind."""
    monkeypatch.setenv("SR_TRAIN_MAX_MEGAPIXELS", "200.0")


def large(side):
    """Return files of little content that claim to be large, by name."""
    jpeg = bytearray(saved(Image.new("L", (8, 8)), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side, side)
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4)
    webp += b"".join((16000 - 1).to_bytes(3, "little") for _ in range(2))
    return {
        "x.png": png((side, side, 8, 2, 0), zlib.compress(bytes(1000))),
        "x.tif": tiff(bytes(99), {256: side, 257: side, 258: 1, 259: 4, 262: 1, 278: side}),
        "big.tif": tiff(bytes(10), {256: side, 257: side, 258: 16, 262: 1, 278: 1}),
        "x.jpg": bytes(jpeg),
        "x.bmp": bmp(24, side, side, bytes(300)),
        "x.webp": b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp,
    }


def test_refused_by_header_with_what_to_do(tmp_path):
    for name, data in large(44_000).items():
        (tmp_path / name).write_bytes(data)
        for read in (read_header, read_image):
            with pytest.raises(DataError, match="megapixels") as caught:
                read(tmp_path / name)
            side = 16_000 if name == "x.webp" else 44_000
            told = f"{side}x{side}, {side * side // 10**6} megapixels"
            for part in (str(tmp_path / name), told, "io.max_megapixels is 200"):
                assert part in str(caught.value)
            assert f"set io.max_megapixels={side * side // 10**6}" in str(caught.value)


def test_nothing_is_allocated_for_what_is_refused():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in large(44_000).values():
        with pytest.raises(DataError):
            decode_image(data, "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_the_limit_can_be_set(tmp_path):
    write_image(tmp_path / "x.png", np.zeros((100, 101, 3), np.uint8))
    set_max_megapixels(0.0101)
    assert read_image(tmp_path / "x.png").pixels.shape == (100, 101, 3)
    set_max_megapixels(0.01)
    with pytest.raises(DataError, match=r"0\.0101 megapixels, .* is 0\.01.*max_megapixels=1$"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_holds_in_processes_started_later(tmp_path, method):
    write_image(tmp_path / "x.png", np.zeros((100, 101, 3), np.uint8))
    set_max_megapixels(0.001)
    context = multiprocessing.get_context(method)
    with (
        ProcessPoolExecutor(1, context) as pool,
        pytest.raises(DataError, match=r"max_megapixels is 0\.001"),
    ):
        pool.submit(read_image, tmp_path / "x.png").result()


def test_a_real_image_takes_little_more_than_its_pixels(tmp_path):
    """Decode 16-bit RGBA in a process of its own and look at its peak."""
    height, width = 4000, 3000
    rows = b"\1" + bytes(8 * width)
    stream = zlib.compressobj(1)
    parts = [stream.compress(rows) for _ in range(height)]
    data = png((width, height, 16, 6, 0), [b"".join(parts) + stream.flush()])
    (tmp_path / "x.png").write_bytes(data)
    image_bytes = 8 * height * width
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        before, after = pool.submit(peak_of, str(tmp_path / "x.png")).result()
    assert after - before < image_bytes + (24 << 20)


def peak_of(path):
    """Return the peaks in bytes before and after an image is decoded."""
    write_image(f"{path}.small.png", np.zeros((4, 4, 3), np.uint16))
    read_image(f"{path}.small.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    image = read_image(path)
    assert image.alpha is not None
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module")
def child():
    """A process of its own, as a peak of memory never goes down again."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_what_lies_behind_an_image_is_not_read(child, tmp_path, suffix):
    """A file of 6 GB, most of it a hole behind a small image."""
    path = tmp_path / f"x{suffix}"
    pixels = np.full((40, 50, 3), 90, np.uint8)
    write_image(path, pixels)
    with path.open("r+b") as file:
        file.truncate(6 << 30)
    before, after, found = child.submit(peak_behind, str(path)).result()
    assert found == (40, 50, 3)
    assert after - before < 600 << 20


def peak_behind(path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    shape = read_image(path).pixels.shape
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, shape
