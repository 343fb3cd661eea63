"""Folders of images: all done that can be, the rest named."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sr_train.api.errors import DataError, PluginError, Problems, SRTrainError
from sr_train.inference import folder as module
from sr_train.inference.faults import Failures, told
from sr_train.inference.folder import check_writable, upscale_images
from sr_train.inference.naming import parse_output
from sr_train.inference.planning import Wish, plan_inputs
from sr_train.inference.upscaler import Upscaler
from sr_train.io.images import read_image, write_image
from tests.sr_train.inference.toys import Nearest, below, make


@pytest.fixture
def upscaler():
    net = Nearest(2)
    return Upscaler(net, net.spec)


def infer(upscaler, inputs, output, **wish):
    """Upscale images; return what was written, and what failed with why."""
    plan = plan_inputs(inputs, parse_output(str(output)), False, Wish(**wish))
    done, failed = [], []

    def on_image(job, error, lost):
        if error is None:
            done.append(job.target)
        else:
            failed.append((job.source, told(error, job.source)))

    assert upscale_images(upscaler, plan.images, on_image) == len(plan.images)
    return done, failed


def test_an_image_is_read_upscaled_and_written(tmp_path, upscaler):
    pixels = make(tmp_path / "in/a.png")
    make(tmp_path / "in/b/d/e.bmp")
    out = tmp_path / "new/out"
    done, failed = infer(upscaler, [tmp_path / "in"], out)
    assert (done, failed) == ([out / "a.png", out / "b/d/e.png"], [])
    expected = pixels.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(read_image(out / "a.png").pixels, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_depth_channels_and_alpha_are_kept(tmp_path, upscaler, dtype, channels, alpha):
    make(tmp_path / "a.png", channels=channels, dtype=dtype, alpha=alpha)
    source = read_image(tmp_path / "a.png")
    done, _ = infer(upscaler, [tmp_path / "a.png"], tmp_path / "out")
    image = read_image(done[0])
    assert image.pixels.dtype == dtype
    assert image.pixels.shape == (12, 16, source.pixels.shape[2])
    if alpha:
        np.testing.assert_array_equal(image.alpha, upscaler.upscale_alpha(source.alpha))
    else:
        assert image.alpha is None


def test_one_bad_image_is_reported_and_the_rest_done(tmp_path, upscaler):
    for name in ("a.png", "b.png", "d.png"):
        make(tmp_path / "in" / name)
    data = (tmp_path / "in/b.png").read_bytes()
    (tmp_path / "in/b.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "in/c.png").write_text("not an image")
    _, failed = infer(upscaler, [tmp_path / "in"], tmp_path / "out")
    assert below(tmp_path / "out") == ["a.png", "d.png"]
    assert [path.name for path, _ in failed] == ["b.png", "c.png"]
    assert all(str(path) in why for path, why in failed)


class Fussy(Nearest):
    """Raises on images of one width."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, lq):
        if lq.shape[-1] == 9:
            raise self.error
        return super().forward(lq)


ERRORS = {
    "cuda": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "memory"),
    "cpu": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "memory"),
    "onednn": (RuntimeError("could not create a primitive"), "memory"),
    "numpy": (MemoryError("Unable to allocate 100. GiB for an array"), "memory"),
    "own network": (
        ValueError("H and W must be multiples of 4"),
        "arch: Fussy failed on an input of (1, 3, 6, 9) float32: ValueError: H and W must be",
    ),
    "device": (OSError(5, "Input/output error", "/mnt/x"), "Input/output error"),
    "decoder": (cv2.error("something in imgcodecs"), "something in imgcodecs"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_one_image_meets_the_others_are_done(tmp_path, kind, monkeypatch):
    error, words = ERRORS[kind]
    make(tmp_path / "in/a.png")
    make(tmp_path / "in/b.png", width=9)
    make(tmp_path / "in/c.png")
    net = Fussy(error)
    if kind in ("device", "decoder", "numpy"):
        original = module.read_image

        def read(path, **settings):
            if path.name == "b.png":
                raise error
            return original(path, **settings)

        monkeypatch.setattr(module, "read_image", read)
    done, failed = infer(Upscaler(net, net.spec), [tmp_path / "in"], tmp_path / "out")
    assert [path.name for path in done] == ["a.png", "c.png"]
    assert [path.name for path, _ in failed] == ["b.png"]
    assert words in failed[0][1]
    assert "b.png" in failed[0][1]


def test_a_defect_of_ours_is_kept_for_the_end_and_not_hidden(tmp_path):
    failures = Failures()
    bug = KeyError("x")
    assert "a defect of this program: KeyError" in failures.add(bug, tmp_path / "a.png")
    failures.add(DataError("b.png: damaged"), tmp_path / "b.png")
    with pytest.raises(KeyError) as caught:
        failures.raise_any(3)
    assert caught.value is bug
    assert "a.png" in caught.value.__notes__[0]


def test_a_long_list_of_failures_is_cut_and_counted(tmp_path):
    failures = Failures()
    shown = 0
    for number in range(200):
        failures.add(DataError(f"{number}.png: damaged"), tmp_path / f"{number}.png")
        shown += failures.is_to_be_shown()
    assert shown == 20
    with pytest.raises(Problems) as caught:
        failures.raise_any(300)
    lines = str(caught.value).splitlines()
    assert (lines[0], len(lines)) == ("200 of 300 inputs failed:", 22)
    assert lines[-1].strip() == "... and 180 more"


def test_a_single_failure_is_said_without_a_count(tmp_path):
    failures = Failures()
    failures.add(PluginError("it failed"), tmp_path / "a.png")
    with pytest.raises(SRTrainError, match=r"a.png: it failed$"):
        failures.raise_any(1)
    Failures().raise_any(1)


def test_a_prediction_that_is_not_finite_fails_for_its_image(tmp_path):
    make(tmp_path / "a.png")
    net = Nearest(offset=float("nan"))
    done, failed = infer(Upscaler(net, net.spec), [tmp_path / "a.png"], tmp_path / "out")
    assert done == []
    assert "a.png: the network's prediction is not finite" in failed[0][1]


@pytest.mark.parametrize(
    ("format", "expected"),
    [("png", ["a.png", "b.png"]), ("same", ["a.jpg", "b.WEBP"]), ("tif", ["a.tif", "b.tif"])],
)
def test_format_of_the_results(tmp_path, upscaler, format, expected):
    make(tmp_path / "in/a.jpg")
    make(tmp_path / "in/b.WEBP")
    infer(upscaler, [tmp_path / "in"], tmp_path / "out", format=format)
    assert below(tmp_path / "out") == expected


def test_a_format_that_cannot_hold_the_image(tmp_path):
    make(tmp_path / "a.png", dtype=np.uint16)
    make(tmp_path / "b.png", alpha=True)
    net = Nearest()
    upscaler = Upscaler(net, net.spec)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    _, failed = infer(upscaler, files, tmp_path / "out", format="jpg")
    assert ["16 bits" in failed[0][1], "alpha" in failed[1][1]] == [True, True]
    assert net.shapes == []


@pytest.mark.parametrize(
    ("format", "width", "words"),
    [
        ("webp", 8192, ".webp cannot hold 16384x4 pixels, 16383 a side at most; use .png or .tif"),
        ("jpg", 32751, ".jpg cannot hold 65502x4 pixels, 65500 a side at most; use .png or .tif"),
        ("png", 500_001, ".png cannot hold 1000002x4 pixels, 1000000 a side at most; use .tif"),
        ("tif", 600_000, ".tif cannot hold 1200000x4 pixels, 1048576 a side at most; cut it"),
    ],
)
def test_a_format_that_cannot_hold_the_size_is_told_before_the_work(
    tmp_path, capfd, format, width, words
):
    write_image(tmp_path / "a.png", np.zeros((2, width, 1), np.uint8))
    net = Nearest()
    upscaler = Upscaler(net, net.spec)
    _, failed = infer(upscaler, [tmp_path / "a.png"], tmp_path / "out", format=format)
    assert failed == [(tmp_path / "a.png", f"{tmp_path / 'a.png'}: {words}")]
    assert (net.shapes, capfd.readouterr().err) == ([], "")


def test_what_opencv_says_is_told_without_its_source():
    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((2, 2), np.uint8), (0, 0))
    words = told(caught.value, Path("a.png"))
    assert words.startswith("a.png: cannot be read or written: error: ")
    assert ".cpp" not in words
    assert "OpenCV" not in words


def test_an_error_names_its_input_whatever_words_hold_its_name():
    assert told(DataError("s_off: lacks f10 and f"), Path("f")) == "s_off: lacks f10 and f"
    assert told(DataError("s_off: lacks f10"), Path("f")) == "f: s_off: lacks f10"
    assert told(DataError("in/f.png: empty"), Path("f.png")) == "f.png: in/f.png: empty"
    assert told(DataError("f.png: empty"), Path("f.png")) == "f.png: empty"
    assert told(DataError("f: frame 3 is empty"), Path("f")) == "f: frame 3 is empty"


def test_an_output_folder_in_the_place_of_which_is_a_file(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(DataError, match=rf"output folder .*: {tmp_path}/a is a file$"):
        check_writable(tmp_path / "a/b/c")
    with pytest.raises(DataError, match=rf": {tmp_path}/link is a link to nothing$"):
        check_writable(tmp_path / "link")


def test_a_name_of_255_bytes_is_written(tmp_path, upscaler):
    name = "n" * 251 + ".png"
    make(tmp_path / "in" / name)
    done, failed = infer(upscaler, [tmp_path / "in"], tmp_path / "out")
    assert ([path.name for path in done], failed) == ([name], [])


def test_work_ends_before_the_next_image_where_it_is_no_longer_wanted(tmp_path, upscaler):
    for name in "abc":
        make(tmp_path / f"in/{name}.png")
    plan = plan_inputs([tmp_path / "in"], parse_output(str(tmp_path / "out")), False, Wish())
    done = []
    count = upscale_images(
        upscaler, plan.images, lambda job, *_: done.append(job), lambda: len(done) < 2
    )
    assert (count, below(tmp_path / "out")) == (2, ["a.png", "b.png"])


def test_what_a_killed_run_left_is_removed(tmp_path, upscaler):
    make(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.sr_0123abcd.tmp").write_text("half an image")
    infer(upscaler, [tmp_path / "a.png"], tmp_path / "out")
    assert below(tmp_path / "out") == ["a.png"]


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    check_writable(tmp_path / "new/folder")
    assert (tmp_path / "new/folder").is_dir()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(DataError, match="cannot write to output folder"):
            check_writable(folder)
