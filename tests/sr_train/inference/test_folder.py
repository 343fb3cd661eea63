"""Folders of pictures: all done that can be, the rest named, nothing overwritten."""

import numpy as np
import pytest

from sr_train.inference.folder import infer_paths
from sr_train.inference.upscaler import Upscaler
from sr_train.ops.errors import ConfigError, DataError
from sr_train.ops.image_io import read_picture, write_picture
from tests.sr_train.inference.toys import Nearest


@pytest.fixture
def upscaler():
    net = Nearest(2)
    return Upscaler(net, net.spec)


def make(path, height=6, width=8, channels=3, dtype=np.uint8, alpha=False):
    """Write a picture and return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    top = np.iinfo(dtype).max
    planes = np.random.default_rng(seed).integers(0, top + 1, (height, width, channels + 1))
    planes = planes.astype(dtype)
    write_picture(path, planes[..., :-1], planes[..., -1] if alpha else None)
    return planes[..., :-1]


def below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_nested_folders_keep_their_structure(tmp_path, upscaler):
    pixels = make(tmp_path / "in" / "a.png")
    make(tmp_path / "in" / "b" / "c.png")
    make(tmp_path / "in" / "b" / "d" / "e.bmp")
    report = infer_paths(upscaler, [tmp_path / "in"], tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    assert below(out) == ["a.png", "b/c.png", "b/d/e.png"]
    assert report.done == [out / "a.png", out / "b" / "c.png", out / "b" / "d" / "e.png"]
    assert (report.failed, report.renamed, report.left_out) == ([], [], [])
    expected = pixels.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(read_picture(out / "a.png").pixels, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_depth_channels_and_alpha_are_kept(tmp_path, upscaler, dtype, channels, alpha):
    make(tmp_path / "a.png", channels=channels, dtype=dtype, alpha=alpha)
    source = read_picture(tmp_path / "a.png")
    report = infer_paths(upscaler, [tmp_path / "a.png"], tmp_path / "out")
    picture = read_picture(report.done[0])
    assert picture.pixels.dtype == dtype
    assert picture.pixels.shape == (12, 16, source.pixels.shape[2])
    if alpha:
        np.testing.assert_array_equal(picture.alpha, upscaler.upscale_alpha(source.alpha))
    else:
        assert picture.alpha is None


def test_one_bad_picture_is_reported_and_the_rest_done(tmp_path, upscaler):
    for name in ("a.png", "b.png", "d.png"):
        make(tmp_path / "in" / name)
    data = (tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "in" / "c.png").write_text("not a picture")
    calls = []
    report = infer_paths(
        upscaler,
        [tmp_path / "in"],
        tmp_path / "out",
        on_progress=lambda done, total, path, error: calls.append((done, total, path.name, error)),
    )
    assert below(tmp_path / "out") == ["a.png", "d.png"]
    assert [path.name for path, _ in report.failed] == ["b.png", "c.png"]
    assert all(str(path) in why for path, why in report.failed)
    assert [call[:3] for call in calls] == [
        (number, 4, f"{letter}.png") for number, letter in enumerate("abcd", start=1)
    ]
    assert [call[3] is None for call in calls] == [True, False, False, True]


def test_a_prediction_that_is_not_finite_fails_for_its_picture(tmp_path):
    make(tmp_path / "a.png")
    net = Nearest(offset=float("nan"))
    report = infer_paths(Upscaler(net, net.spec), [tmp_path / "a.png"], tmp_path / "out")
    assert report.done == []
    assert "a.png: the network's prediction is not finite" in report.failed[0][1]


@pytest.mark.parametrize(
    ("format", "expected"),
    [("png", ["a.png", "b.png"]), ("same", ["a.jpg", "b.WEBP"]), ("tif", ["a.tif", "b.tif"])],
)
def test_format_of_the_results(tmp_path, upscaler, format, expected):
    make(tmp_path / "in" / "a.jpg")
    make(tmp_path / "in" / "b.WEBP")
    infer_paths(upscaler, [tmp_path / "in"], tmp_path / "out", format=format)
    assert below(tmp_path / "out") == expected


def test_a_format_that_cannot_hold_the_picture(tmp_path):
    make(tmp_path / "a.png", dtype=np.uint16)
    make(tmp_path / "b.png", alpha=True)
    net = Nearest()
    upscaler = Upscaler(net, net.spec)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    report = infer_paths(upscaler, files, tmp_path / "out", format="jpg")
    assert ["16 bits" in report.failed[0][1], "alpha" in report.failed[1][1]] == [True, True]
    assert net.shapes == []


def test_suffix(tmp_path, upscaler):
    make(tmp_path / "a.b.png")
    report = infer_paths(upscaler, [tmp_path / "a.b.png"], tmp_path, suffix="_x2.0")
    assert [path.name for path in report.done] == ["a.b_x2.0.png"]


def test_names_that_would_be_shared(tmp_path, upscaler):
    for name in ("one/a.png", "one/a.jpg", "one/b.png", "one/c/a.png", "two/a.png"):
        make(tmp_path / name)
    make(tmp_path / "one" / "a_jpg.bmp")
    out = tmp_path / "out"
    report = infer_paths(upscaler, [tmp_path / "one", tmp_path / "two"], out)
    assert below(out) == [
        "a_jpg.png",
        "a_jpg_2.png",
        "a_png.png",
        "a_png_2.png",
        "b.png",
        "c/a.png",
    ]
    assert [(a.name, b.name) for a, b in report.renamed] == [
        ("a.jpg", "a_jpg_2.png"),
        ("a.png", "a_png.png"),
        ("a.png", "a_png_2.png"),
    ]


def test_a_file_named_twice_is_done_once(tmp_path, upscaler):
    make(tmp_path / "in" / "a.png")
    report = infer_paths(upscaler, [tmp_path / "in", tmp_path / "in" / "a.png"], tmp_path / "out")
    assert len(report.done) == 1


def test_inputs_are_never_replaced(tmp_path, upscaler):
    make(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(DataError, match=r"a.png is an input"):
        infer_paths(upscaler, [tmp_path], tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before


def test_results_inside_the_input_folder_are_no_inputs_of_the_next_run(tmp_path, upscaler):
    make(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    for _ in range(2):
        report = infer_paths(upscaler, [tmp_path], tmp_path / "out")
        assert report.done == [tmp_path / "out" / "a.png"]
        assert report.left_out == [tmp_path / "notes.txt"]


def test_nothing_found_says_where_it_looked(tmp_path, upscaler):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        infer_paths(upscaler, [tmp_path / "empty", tmp_path / "texts"], tmp_path / "out")
    message = str(caught.value)
    assert f"{tmp_path / 'empty'} (empty)" in message
    assert f"{tmp_path / 'texts'} (0 pictures among 1 files: 1 .txt)" in message
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no input was given"):
        infer_paths(upscaler, [], tmp_path / "out")


def test_missing_input_names_the_nearest(tmp_path, upscaler):
    (tmp_path / "Photos").mkdir()
    with pytest.raises(DataError, match="photos does not exist; did you mean 'Photos'"):
        infer_paths(upscaler, [tmp_path / "photos"], tmp_path / "out")
    with pytest.raises(DataError, match="nor does"):
        infer_paths(upscaler, [tmp_path / "no" / "photos"], tmp_path / "out")


def test_output_that_cannot_be_written_stops_before_the_work(tmp_path):
    make(tmp_path / "a.png")
    (tmp_path / "file").write_text("x")
    net = Nearest()
    upscaler = Upscaler(net, net.spec)
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="cannot write to output folder"):
            infer_paths(upscaler, [tmp_path / "a.png"], output)
    with pytest.raises(DataError, match="looks like the name of a picture"):
        infer_paths(upscaler, [tmp_path / "a.png"], tmp_path / "b.png")
    assert net.shapes == []


def test_impossible_settings(tmp_path, upscaler):
    make(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="gif"):
        infer_paths(upscaler, [tmp_path], tmp_path / "out", format="gif")
    with pytest.raises(ConfigError, match="suffix"):
        infer_paths(upscaler, [tmp_path], tmp_path / "out", suffix="/x")
