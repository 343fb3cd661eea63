"""What files say beside their pixels: kept where a format holds it, named where not, in bounds."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr_train.io.formats import exif
from sr_train.io.formats.metadata import Metadata
from sr_train.io.images import decode_image, read_image, write_image
from tests.sr_train.io.formats.files import noise, png, saved

EXIF, GPS, INTEROP = 34665, 34853, 40965
FORMATS = ["png", "jpg", "webp", "tif"]


def profile(space=b"RGB ", size=600):
    """Return a well-formed profile that is nobody's."""
    body = bytearray(size)
    body[0:4] = struct.pack(">I", size)
    body[12:24] = b"mntr" + space + b"XYZ "
    body[36:40] = b"acsp"
    body[128:132] = struct.pack(">I", 1)
    body[132:144] = b"desc" + struct.pack(">II", 200, size - 200)
    body[200:] = (bytes(range(256)) * (size // 256 + 1))[: size - 200]
    return bytes(body)


def tags(turn=6):
    """Return an EXIF block as cameras write it, in Pillow's terms."""
    block = Image.Exif()
    block[0x112] = turn
    block[271], block[306], block[33432] = "ACME", "2024:01:02 03:04:05", "(c) me"
    block[282], block[283], block[296] = 300.0, 300.0, 2
    camera = block.get_ifd(EXIF)
    camera[33434] = (1, 250)
    camera[36864] = b"0232"
    camera[37500] = b"MAKER NOTE" * 30
    camera[37510] = b"ASCII\0\0\0hello"
    camera[40962], camera[40963] = 9999, 7777
    camera[41492] = (5, 6)
    place = block.get_ifd(GPS)
    place[1], place[2] = "N", (48.0, 8.0, 1.5)
    return block


def source(folder, kind, turn=6, **options):
    """Write a file with a profile, EXIF and a resolution; return its path."""
    path = folder / f"in.{kind}"
    more = {"exif": tags(turn).tobytes(), "icc_profile": profile(), "dpi": (300, 300)}
    Image.fromarray(noise(20, 30, 3)).save(path, **{**more, **options})
    return path


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("wanted", FORMATS)
def test_kept_from_each_format_to_each(tmp_path, kind, wanted):
    decoded = read_image(source(tmp_path, kind), with_metadata=True)
    assert decoded.pixels.shape == (30, 20, 3)
    pixels = noise(60, 40, 3, seed=2)
    path = tmp_path / f"out.{wanted}"
    assert write_image(path, pixels, None, decoded.metadata) == []
    with Image.open(path) as image:
        found = image.getexif()
        assert image.info["icc_profile"] == profile()
        assert (found[0x112], found[271], found[33432]) == (1, "ACME", "(c) me")
        assert image.size == (40, 60)
        camera, place = found.get_ifd(EXIF), found.get_ifd(GPS)
        resolution = image.info.get("dpi") or (found[282], found[283])
        assert found.get_ifd(1) == {}
    np.testing.assert_allclose([float(each) for each in resolution], 300, atol=0.01)
    assert (camera[40962], camera[40963]) == (40, 60)
    assert [float(each) for each in place[2]] == [48.0, 8.0, 1.5]
    assert camera[37510] == b"ASCII\0\0\0hello"
    assert 37500 not in camera
    assert 41492 not in camera
    again = read_image(path, with_metadata=True)
    if wanted != "jpg":
        np.testing.assert_array_equal(again.pixels, pixels)
    assert again.metadata.icc == profile()
    assert again.metadata.exif.below.keys() == decoded.metadata.exif.below.keys()
    assert set(decoded.metadata.left_out) == {
        "the camera maker's note",
        "EXIF values that count pixels of the input",
    }


WRITABLE = [
    *itertools.product((".png", ".tif"), (np.uint8, np.uint16), (False, True)),
    *itertools.product((".webp",), (np.uint8,), (False, True)),
    *itertools.product((".jpg", ".bmp"), (np.uint8,), (False,)),
]


@pytest.mark.parametrize(("suffix", "dtype", "has_alpha"), WRITABLE)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_same_with_and_without(tmp_path, suffix, dtype, channels, has_alpha):
    metadata = read_image(source(tmp_path, "png"), with_metadata=True).metadata
    pixels = noise(21, 33, channels, dtype)
    alpha = noise(21, 33, 1, dtype, seed=3)[..., 0] if has_alpha else None
    write_image(tmp_path / f"a{suffix}", pixels, alpha)
    write_image(tmp_path / f"b{suffix}", pixels, alpha, metadata)
    first, second = (read_image(tmp_path / f"{name}{suffix}") for name in "ab")
    np.testing.assert_array_equal(first.pixels, second.pixels)
    if has_alpha:
        np.testing.assert_array_equal(second.alpha, alpha)
    with Image.open(tmp_path / f"b{suffix}") as image:
        image.load()


def test_what_a_format_cannot_hold_is_named(tmp_path):
    metadata = read_image(source(tmp_path, "png"), with_metadata=True).metadata
    pixels = noise(8, 9, 3)
    lost = write_image(tmp_path / "x.bmp", pixels, None, metadata)
    assert lost == ["the colour profile", "EXIF"]
    with Image.open(tmp_path / "x.bmp") as image:
        np.testing.assert_allclose(image.info["dpi"], 300, atol=0.01)
    grey = ["the colour profile (for RGB images)"]
    assert write_image(tmp_path / "x.png", pixels[..., :1], None, metadata) == grey
    with Image.open(tmp_path / "x.png") as image:
        assert "icc_profile" not in image.info
    only = source(tmp_path, "png", exif=b"", icc_profile=None)
    metadata = read_image(only, with_metadata=True).metadata
    assert write_image(tmp_path / "x.webp", pixels, None, metadata) == ["the resolution (dpi)"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_ratio_that_whole_numbers_do_not_tell_is_named(tmp_path, suffix):
    """A TIFF tells it in fractions; rounded to 0, it would say something else."""
    metadata = Metadata(density=(0.25, 0.5, False))
    pixels = noise(8, 9, 3)
    assert write_image(tmp_path / f"x{suffix}", pixels, None, metadata) == ["the resolution (dpi)"]
    assert read_image(tmp_path / f"x{suffix}", True).metadata.density is None


def test_a_grey_profile_goes_with_grey_images_alone(tmp_path):
    image = Image.fromarray(noise(8, 9, 1)[..., 0])
    image.save(tmp_path / "in.png", icc_profile=profile(b"GRAY"))
    metadata = read_image(tmp_path / "in.png", with_metadata=True).metadata
    pixels, alpha = noise(8, 9, 1), noise(8, 9, 1)[..., 0]
    assert write_image(tmp_path / "x.jpg", pixels, None, metadata) == []
    expected = ["the colour profile (for grey images)"]
    # Grey with alpha is stored as RGBA, and WebP has no grey.
    assert write_image(tmp_path / "x.png", pixels, alpha, metadata) == expected
    assert write_image(tmp_path / "x.webp", pixels, None, metadata) == expected


@pytest.mark.parametrize(
    "icc",
    [
        b"no profile at all" * 30,
        profile()[:-1],
        profile(b"CMYK"),
        profile().replace(b"acsp", b"ascp"),
        profile()[:140] + b"\xff\xff\xff\xff" + profile()[144:],
        profile(size=5 << 20),
    ],
    ids=["text", "cut", "cmyk", "no mark", "a tag beyond the end", "5 MiB"],
)
def test_a_profile_that_is_none_is_not_passed_on(tmp_path, icc):
    for kind in FORMATS:
        path = source(tmp_path, kind, icc_profile=icc)
        metadata = read_image(path, with_metadata=True).metadata
        assert metadata.icc is None
        assert "a colour profile that is damaged or too large" in metadata.left_out
        assert metadata.exif is not None


def test_a_profile_of_pillows(tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = source(tmp_path, "jpg", icc_profile=icc)
    assert read_image(path, with_metadata=True).metadata.icc == icc


def test_a_profile_in_many_jpeg_segments(tmp_path):
    icc = profile(size=200_000)
    metadata = read_image(source(tmp_path, "png", icc_profile=icc), with_metadata=True).metadata
    write_image(tmp_path / "x.jpg", noise(8, 9, 3), None, metadata)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.info["icc_profile"] == icc


def block(entries, order="<", after=0):
    """Return an EXIF block of one directory: (tag, type, count, value or offset)."""
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    for entry in entries:
        data += struct.pack(f"{order}HHII", *entry)
    return data + struct.pack(f"{order}I", after)


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        block([(EXIF, 4, 1, 8)], after=8),
        block([(EXIF, 4, 1, 8), (GPS, 4, 1, 8), (INTEROP, 4, 1, 8)]),
        block([(270, 2, 2**32 - 1, 8)]),
        block([(271, 2, 70_000, 0)]) + bytes(90_000),
        block([(EXIF, 2, 4, 0x41414141), (0x112, 2, 4, 0x41414141)]),
        block([(271, 200, 1, 1)]),
        b"MM\0*" + bytes(100),
        b"II*\0\x08\0\0\0\xff\xff" + bytes(3000),
        b"garbage" * 99,
        bytes(2 << 20),
    ],
)
def test_hostile_exif_harms_nobody(tmp_path, hostile):
    data = png((4, 4, 8, 0, 0), zlib.compress(bytes(20)), [(b"eXIf", hostile)])
    decoded = decode_image(data, "x.png", with_metadata=True)
    assert decoded.pixels.shape == (4, 4, 1)
    path = tmp_path / "out.png"
    write_image(path, decoded.pixels, None, decoded.metadata)
    assert path.stat().st_size < 2000
    with Image.open(path) as image:
        image.load()
        assert image.getexif().get(0x112, 1) == 1


@pytest.mark.parametrize("turn", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, turn):
    assert read_image(source(tmp_path, "jpg", turn)).pixels.shape == (20, 30, 3)


def test_both_byte_orders():
    for order in "<>":
        found = exif.parse(block([(0x112, 3, 1, 6 if order == "<" else 6 << 16)], order))
        assert found is not None
        assert found.order == order
        turned = found.in_order("<" if order == ">" else ">")
        assert exif.orientation(turned.block(2, 3)) == 1


def test_values_survive_a_change_of_byte_order(tmp_path):
    """Big-endian EXIF, as many cameras write it, in a TIFF that is little-endian."""
    entries = [(271, 2, 3, int.from_bytes(b"abc\0", "big")), (282, 5, 1, 62), (EXIF, 4, 1, 50)]
    data = block(entries, ">") + struct.pack(">HHHIIHHIII", 1, 33434, 5, 1, 70, 0, 0, 0, 0, 0)
    data = data[:62] + struct.pack(">II", 300, 1) + struct.pack(">II", 1, 250)
    tree = exif.parse(data[:50] + struct.pack(">HHHII", 1, 33434, 5, 1, 70)[:12] + data[62:])
    assert tree is not None
    swapped = tree.in_order("<")
    assert swapped.first[282].rationals("<") == (300.0,)
    assert swapped.first[271].data == b"abc"


def test_left_out_is_named(tmp_path):
    path = source(tmp_path, "jpg", comment=b"hi", xmp=b"<x:xmpmeta/>")
    left_out = read_image(path, with_metadata=True).metadata.left_out
    assert {"comment", "XMP"} <= set(left_out)
    file = io.BytesIO()
    page = Image.fromarray(noise(8, 9, 3))
    page.save(file, "TIFF", save_all=True, append_images=[page], tiffinfo={700: b"<x/>", 65000: 5})
    left_out = decode_image(file.getvalue(), "x.tif", with_metadata=True).metadata.left_out
    assert set(left_out) == {"further pages", "XMP", "unknown tags (65000)"}


def test_what_a_png_says_about_its_colours(tmp_path):
    chunks = [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cICP", bytes([12, 13, 0, 1])),
        (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
    ]
    data = png((4, 4, 8, 2, 0), zlib.compress(bytes(52)), chunks)
    decoded = decode_image(data, "x.png", with_metadata=True)
    assert write_image(tmp_path / "x.png", decoded.pixels, None, decoded.metadata) == []
    written = (tmp_path / "x.png").read_bytes()
    for kind, content in chunks:
        assert kind + content in written
    lost = write_image(tmp_path / "x.jpg", decoded.pixels, None, decoded.metadata)
    assert lost == ["what a PNG says about its colours (cICP, gAMA)"]
    plain = png((4, 4, 8, 2, 0), zlib.compress(bytes(52)), [(b"sRGB", b"\0")])
    metadata = decode_image(plain, "x.png", with_metadata=True).metadata
    assert write_image(tmp_path / "x.jpg", decoded.pixels, None, metadata) == []


def test_metadata_is_read_when_asked_for(tmp_path):
    assert read_image(source(tmp_path, "png")).metadata is None


def test_files_without_metadata_stay_as_they_are(tmp_path):
    pixels = noise(9, 8, 3)
    data = saved(pixels, "PNG")
    metadata = decode_image(data, "x.png", with_metadata=True).metadata
    for suffix in (".png", ".webp", ".tif", ".bmp", ".jpg"):
        write_image(tmp_path / f"a{suffix}", pixels)
        assert write_image(tmp_path / f"b{suffix}", pixels, None, metadata) == []
        first, second = (tmp_path / f"{name}{suffix}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_the_first_exif_block_counts(tmp_path):
    first, second = tags(1).tobytes(), tags(6).tobytes()
    data = saved(noise(20, 30, 3), "JPEG", exif=first)
    segment = b"\xff\xe1" + struct.pack(">H", len(second) + 2) + second
    start = data.index(b"\xff\xdb")
    (tmp_path / "x.jpg").write_bytes(data[:start] + segment + data[start:])
    assert read_image(tmp_path / "x.jpg").pixels.shape == (20, 30, 3)
