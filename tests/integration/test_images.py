"""Image files through whole commands: what is kept, what is refused, what is said."""

import numpy as np
import pytest
from PIL import Image

from sr_train.io.images import read_image, write_image
from tests.sr_train.io.formats.files import noise, png, smooth, tiff
from tests.sr_train.io.formats.test_metadata import EXIF, profile, tags
from tests.toys import fill, no_validation, stripes, toy_words


@pytest.fixture(autouse=True)
def own_limit(monkeypatch):
    """Let nothing of a command's limit stay behind."""
    monkeypatch.setenv("SR_TRAIN_MAX_MEGAPIXELS", "200.0")


@pytest.fixture
def trained(finished, in_folder):
    """Return the folder in which a toy run is finished."""
    finished("train", *no_validation(*toy_words(in_folder)), "train.steps=1")
    return in_folder


def test_infer_keeps_profile_exif_and_resolution(trained, command):
    (trained / "in").mkdir()
    more = {"exif": tags().tobytes(), "icc_profile": profile(), "dpi": (300, 300)}
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(stripes(20, 30)).save(trained / "in" / name, **more, comment=b"hello")
    done = command("infer", "checkpoint=runs/toy", "input=in", "output=out").succeeds()
    assert "not kept: comment (a.jpg and 1 more)" in done.out
    assert "not kept: the camera maker's note (a.jpg and 1 more)" in done.out
    with Image.open(trained / "out/a.png") as image:
        assert image.size == (40, 60)
        assert image.info["icc_profile"] == profile()
        np.testing.assert_allclose(image.info["dpi"], 300, atol=0.01)
        found = image.getexif()
    assert (found[0x112], found[271]) == (1, "ACME")
    assert (found.get_ifd(EXIF)[40962], found.get_ifd(EXIF)[40963]) == (40, 60)
    done = command("infer", "checkpoint=runs/toy", "input=in/a.jpg", "output=out", "format=bmp")
    assert "not kept: the colour profile (a.jpg)" in done.succeeds().out


def test_infer_goes_on_without_a_word_where_nothing_is_lost(trained, command):
    done = command("infer", "checkpoint=runs/toy", "input=gt", "output=out").succeeds()
    assert "not kept" not in done.out


def test_one_damaged_jpeg_is_named_and_the_rest_done(trained, command):
    write_image(trained / "gt/q.jpg", smooth(64, 72))
    data = (trained / "gt/q.jpg").read_bytes()
    (trained / "gt/q.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    done = command("infer", "checkpoint=runs/toy", "input=gt", "output=out")
    done.fails_with("1 of 4 inputs failed", "q.jpg: damaged", "libjpeg says: Corrupt JPEG data")
    assert len(list((trained / "out").iterdir())) == 3


def test_check_finds_a_damaged_jpeg_when_it_decodes(command, in_folder):
    words = no_validation(*toy_words(in_folder))
    write_image(in_folder / "gt/q.jpg", smooth(64, 72))
    data = (in_folder / "gt/q.jpg").read_bytes()
    (in_folder / "gt/q.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    done = command("check", *words, "decode=true")
    done.fails_with("1 problem", "q.jpg: damaged", "libjpeg says")
    assert "Corrupt" not in done.err.replace("libjpeg says: Corrupt", "")


def large(folder):
    """Write a file of some bytes that claims to have 1,936 megapixels."""
    tags = {256: 44_000, 257: 44_000, 258: 1, 259: 4, 262: 1, 278: 44_000}
    (folder / "large.tif").write_bytes(tiff(bytes(99), tags))


TOLD = "44000x44000, 1936 megapixels, and io.max_megapixels is 200"


def test_an_image_that_claims_too_much(trained, command, train):
    large(trained / "gt")
    train("name=other").fails_with("1 problem", "large.tif", TOLD, "set io.max_megapixels=1936")
    words = no_validation(*toy_words(trained))
    command("check", *words, "step=false").fails_with("1 problem", "large.tif", TOLD)
    command("overfit", *words).fails_with("1 problem", "large.tif", TOLD)
    done = command("infer", "checkpoint=runs/toy", "input=gt", "output=out")
    done.fails_with("1 of 4 inputs failed", "large.tif", TOLD)
    main = ("+dataset=main", "data.val.main.gt=gt")
    command("validate", "checkpoint=runs/toy", *main).fails_with("1 problem", "large.tif", TOLD)
    skipping = train("name=other", "data.train.on_bad=skip").succeeds()
    assert "left out: 1" in skipping.out + skipping.err


@pytest.mark.parametrize("workers", [0, 1])
def test_the_limit_is_a_setting_of_every_command(trained, command, train, workers):
    fill(trained / "more", 2)
    words = [f"data.stream.num_workers={workers}", "data.train.cache_gib=0", "name=other"]
    train(*words, "io.max_megapixels=0.001").fails_with(
        "3 problems", "p0.png", "72x64", "io.max_megapixels is 0.001"
    )
    train(*words, "io.max_megapixels=0.005").succeeds()
    use = ("checkpoint=runs/toy", "io.max_megapixels=0.001")
    command("infer", *use, "input=gt", "output=out").fails_with("p0.png", "is 0.001")
    main = ("+dataset=main", "data.val.main.gt=gt")
    command("validate", *use, *main).fails_with("3 problems", "is 0.001")


@pytest.mark.parametrize("value", ["0", "-3", "nan"])
def test_a_limit_that_is_none(trained, command, train, value):
    expected = f"io.max_megapixels={value}: expected a number above 0"
    train("name=other", f"io.max_megapixels={value}").fails_with(expected)
    use = ("checkpoint=runs/toy", f"io.max_megapixels={value}", "input=gt", "output=out")
    command("infer", *use).fails_with(expected)


def test_deep_tiff_of_separate_planes_through_infer(trained, command):
    """Separate planes became garbage at 16 bit."""
    import tifffile

    pixels = noise(20, 30, 3, np.uint16)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    tifffile.imwrite(trained / "a.tif", planes, photometric="rgb", planarconfig="separate")
    write_image(trained / "b.png", pixels)
    for name in ("a.tif", "b.png"):
        command("infer", "checkpoint=runs/toy", f"input={name}", "output=out").succeeds()
    first, second = (read_image(trained / f"out/{name}.png").pixels for name in "ab")
    np.testing.assert_array_equal(first, second)


def test_no_library_prints_about_a_damaged_file(trained, command):
    (trained / "gt/x.png").write_bytes(png((64, 72, 8, 2, 0), b"\x78\x9c garbage" * 900))
    done = command("infer", "checkpoint=runs/toy", "input=gt", "output=out")
    done.fails_with("x.png: damaged: its pixels cannot be inflated")
    assert "libpng" not in done.err + done.out


def test_frames_of_a_clip_keep_their_metadata(trained, command, in_folder):
    from tests.toys import clip_words

    words = no_validation(*clip_words(in_folder))
    command("train", *words, "name=clips", "train.steps=1").succeeds()
    (trained / "in").mkdir()
    for number in range(3):
        path = trained / f"in/{number}.jpg"
        more = {"exif": tags(1).tobytes(), "icc_profile": profile()}
        Image.fromarray(stripes(20, 30)).save(path, **more)
    done = command("infer", "checkpoint=runs/clips", "input=in", "output=out").succeeds()
    assert "not kept: the camera maker's note (0.png and 2 more)" in done.out
    with Image.open(trained / "out/2.png") as image:
        assert image.info["icc_profile"] == profile()
        assert image.getexif().get_ifd(EXIF)[40962] == 60
