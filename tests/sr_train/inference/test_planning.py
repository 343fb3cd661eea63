"""What becomes of the inputs: what is found, what is left out, where each result goes."""

import os

import pytest

from sr_train.api.errors import ConfigError, DataError, Problems
from sr_train.inference.naming import (
    check_suffix,
    inside,
    longest_name,
    parse_format,
    parse_output,
)
from sr_train.inference.planning import Wish, plan_inputs
from tests.sr_train.inference.toys import make


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def plan(inputs, output, takes_clips=False, **wish):
    inputs = inputs if isinstance(inputs, list) else [inputs]
    return plan_inputs(inputs, parse_output(str(output)), takes_clips, Wish(**wish))


def images(made, root):
    """Return source -> target below a root."""
    return {
        str(job.source.relative_to(root)): str(job.target.relative_to(root)) for job in made.images
    }


def clips(made, root):
    """Return the frames of each run of each clip."""
    return [
        [str(frame.source.relative_to(root)) for frame in run]
        for job in made.clips
        for run in job.runs
    ]


# What output is.


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("out", "folder"),
        ("out.v2", "folder"),
        ("x2.0", "folder"),
        ("o.wmv/", "folder"),
        ("o.png/", "folder"),
        (".", "folder"),
        ("o.mp4", "video"),
        ("o.MKV", "video"),
        ("o.png", "image"),
        ("o.JPEG", "image"),
        ("there.png", "folder"),
        ("there.wmv", "folder"),
    ],
)
def test_what_output_names(tmp_path, monkeypatch, text, kind):
    monkeypatch.chdir(tmp_path)
    for name in ("there.png", "there.wmv"):
        (tmp_path / name).mkdir()
    assert parse_output(text).kind == kind


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("o.wmv", ["cannot write '.wmv'", "output=o.mp4", ".mkv", "end the name of a folder with"]),
        ("o.avi", ["cannot write '.avi'", "output=o.mp4"]),
        ("a/o.ts", ["output=a/o.mp4"]),
        ("o.gif", ["cannot write '.gif'"]),
        ("o.heic", ["cannot write '.heic'", "output=o.png", ".tif"]),
        ("o.y4m", ["output=o.mp4"]),
        ("file", ["a file with this name exists", "expected a folder"]),
        ("there.mp4", ["a folder with this name exists"]),
    ],
)
def test_outputs_that_cannot_be(tmp_path, monkeypatch, text, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "there.mp4").mkdir()
    with pytest.raises(ConfigError) as caught:
        parse_output(text)
    for part in [*parts, f"output={text}"]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "format"),
    [("jpeg", "jpg"), ("tiff", "tif"), ("PNG", "png"), (".webp", "webp"), ("same", "same")],
)
def test_words_for_formats(text, format):
    assert parse_format(text) == format


def test_words_that_are_no_format_or_suffix():
    with pytest.raises(ConfigError, match=r"format=jepg: expected one of.*did you mean 'jpg'"):
        parse_format("jepg")
    for suffix in ("/x", "../x", "a/b", "\0"):
        with pytest.raises(ConfigError, match="suffix="):
            check_suffix(suffix)
    check_suffix("_x2.0")


# What is found.


def test_nested_folders_keep_their_structure(tmp_path):
    touch(tmp_path, "in/a.png", "in/b/c.JPG", "in/b/d/e.bmp", "in/notes.txt", "in/.hidden.png")
    made = plan(tmp_path / "in", tmp_path / "out")
    assert images(made, tmp_path) == {
        "in/a.png": "out/a.png",
        "in/b/c.JPG": "out/b/c.png",
        "in/b/d/e.bmp": "out/b/d/e.png",
    }
    assert made.left_out == [tmp_path / "in/notes.txt"]
    assert (made.failed, made.renamed, made.earlier, made.total) == ([], [], [], 3)


def test_linked_folders_and_files_are_found_as_in_training(tmp_path):
    touch(tmp_path, "far/a.png", "far/deep/b.png", "c.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "far")
    (tmp_path / "in/c.png").symlink_to(tmp_path / "c.png")
    (tmp_path / "far/loop").symlink_to(tmp_path / "in")
    made = plan(tmp_path / "in", tmp_path / "out")
    assert images(made, tmp_path) == {
        "in/c.png": "out/c.png",
        "in/link/a.png": "out/link/a.png",
        "in/link/deep/b.png": "out/link/deep/b.png",
    }


def test_what_is_there_but_cannot_be_used_is_told_and_the_rest_done(tmp_path):
    touch(tmp_path, "in/a.png")
    (tmp_path / "in/gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "in/pipe.png")
    made = plan(tmp_path / "in", tmp_path / "out")
    assert list(images(made, tmp_path)) == ["in/a.png"]
    assert {path.name: why for path, why in made.failed} == {
        "gone.png": "broken link",
        "pipe.png": "is a pipe, a socket or a device; expected a file",
    }
    assert made.total == 3


def test_a_folder_that_may_not_be_entered_is_told(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.png", "in/closed/b.png")
    original = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    made = plan(tmp_path / "in", tmp_path / "out")
    assert list(images(made, tmp_path)) == ["in/a.png"]
    assert made.failed == [(tmp_path / "in/closed", "cannot be entered: Permission denied")]


def test_results_inside_the_input_folder_are_no_inputs_of_the_next_run(tmp_path):
    touch(tmp_path, "a.png", "out/a.png", "out/deep/b.png")
    made = plan(tmp_path, tmp_path / "out")
    assert images(made, tmp_path) == {"a.png": "out/a.png"}
    assert made.notes == [
        f"{tmp_path / name}: left out, as the results go there" for name in ("out", "out/deep")
    ]


def test_results_behind_a_link_are_no_inputs_either(tmp_path):
    touch(tmp_path, "far/out/a.png", "far/b.png", "in/c.png")
    (tmp_path / "in/link").symlink_to(tmp_path / "far")
    made = plan(tmp_path / "in", tmp_path / "far/out")
    assert list(images(made, tmp_path)) == ["in/c.png", "in/link/b.png"]


def test_several_inputs(tmp_path):
    """Each of several folders has a folder of its own, so that no two results meet."""
    touch(tmp_path, "day/1.png", "night/1.png", "other/night/2.png", "a.png")
    given = [tmp_path / name for name in ("day", "night", "other/night", "a.png")]
    assert images(plan(given, tmp_path / "out"), tmp_path) == {
        "day/1.png": "out/day/1.png",
        "night/1.png": "out/night/1.png",
        "other/night/2.png": "out/night_2/2.png",
        "a.png": "out/a.png",
    }
    one = plan([tmp_path / "day", tmp_path / "a.png"], tmp_path / "out")
    assert images(one, tmp_path) == {"day/1.png": "out/1.png", "a.png": "out/a.png"}


def test_a_file_named_twice_is_done_once(tmp_path):
    touch(tmp_path, "in/a.png")
    made = plan([tmp_path / "in", tmp_path / "in/a.png"], tmp_path / "out")
    assert len(made.images) == 1


def test_a_file_is_taken_whatever_its_suffix(tmp_path):
    touch(tmp_path, "scan", "b.dat")
    made = plan([tmp_path / "scan", tmp_path / "b.dat"], tmp_path / "out")
    assert images(made, tmp_path) == {"scan": "out/scan.png", "b.dat": "out/b.png"}


def test_nothing_found_says_where_it_looked(tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "texts/a.txt")
    with pytest.raises(DataError) as caught:
        plan([tmp_path / "empty", tmp_path / "texts"], tmp_path / "out")
    message = str(caught.value)
    assert f"{tmp_path / 'empty'} (empty)" in message
    assert f"{tmp_path / 'texts'} (1 files: 1 .txt)" in message
    assert not (tmp_path / "out").exists()


def test_a_missing_input_names_the_nearest(tmp_path):
    (tmp_path / "Photos").mkdir()
    with pytest.raises(DataError, match="photos does not exist; did you mean 'Photos'"):
        plan(tmp_path / "photos", tmp_path / "out")
    with pytest.raises(DataError, match="nor does"):
        plan(tmp_path / "no/photos", tmp_path / "out")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        plan(tmp_path / "pipe", tmp_path / "out")


# Names.


def test_names_that_would_be_shared(tmp_path):
    touch(tmp_path, "in/a.png", "in/a.jpg", "in/b.png", "in/c/a.png", "in/a_jpg.bmp")
    made = plan(tmp_path / "in", tmp_path / "out")
    targets = images(made, tmp_path)
    assert targets == {
        "in/a.jpg": "out/a_jpg_2.png",
        "in/a.png": "out/a_png.png",
        "in/a_jpg.bmp": "out/a_jpg.png",
        "in/b.png": "out/b.png",
        "in/c/a.png": "out/c/a.png",
    }
    assert [(a.name, b.name) for a, b in made.renamed] == [
        ("a.jpg", "a_jpg_2.png"),
        ("a.png", "a_png.png"),
    ]


def test_suffix_and_format(tmp_path):
    touch(tmp_path, "in/a.b.png", "in/c.JPG")
    made = plan(tmp_path / "in", tmp_path / "out", suffix="_x2.0", format="same")
    assert images(made, tmp_path) == {
        "in/a.b.png": "out/a.b_x2.0.png",
        "in/c.JPG": "out/c_x2.0.JPG",
    }
    assert made.renamed == []


def test_a_name_that_gets_too_long_is_told_and_the_rest_done(tmp_path):
    assert longest_name(tmp_path / "not/there/yet") == 255
    touch(tmp_path, f"in/{'n' * 249}.png", f"in/{'u' * 248}.png", f"in/{chr(228) * 124}.png")
    made = plan(tmp_path / "in", tmp_path / "out", suffix="_x2")
    assert [job.source.name[0] for job in made.images] == ["u", chr(228)]
    [(path, why)] = made.failed
    assert path.name.startswith("nnn")
    assert "256 bytes" in why
    assert "255 is the most" in why


def test_names_cannot_lead_out_of_the_output_folder(tmp_path):
    assert inside(tmp_path, "a/b.png") == tmp_path / "a/b.png"
    for name in ("../a.png", "/etc/passwd", "a/../../b", "", "a\0b"):
        with pytest.raises(DataError, match="leads out"):
            inside(tmp_path, name)


# Outputs that hold inputs.


def test_an_output_above_the_input(tmp_path, monkeypatch):
    touch(tmp_path, "photos/in/a.png", "photos/in/deep/b.png", "photos/other.png")
    made = plan(tmp_path / "photos/in", tmp_path / "photos")
    assert images(made, tmp_path) == {
        "photos/in/a.png": "photos/a.png",
        "photos/in/deep/b.png": "photos/deep/b.png",
    }
    monkeypatch.chdir(tmp_path)
    made = plan(tmp_path / "photos/in", ".")
    assert [str(job.target) for job in made.images] == ["a.png", "deep/b.png"]


def test_an_output_that_is_the_input(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    with pytest.raises(DataError, match=r"a.png is an input and would be replaced"):
        plan(tmp_path, tmp_path)
    made = plan(tmp_path, tmp_path, suffix="_x2")
    assert images(made, tmp_path) == {"a.png": "a_x2.png", "b.png": "b_x2.png"}


def test_results_of_an_earlier_run_in_the_input_folder_itself_are_no_inputs(tmp_path):
    touch(tmp_path, "a.png", "b.png", "a_x2.png")
    with pytest.raises(Problems) as caught:
        plan(tmp_path, tmp_path, suffix="_x2")
    assert str(tmp_path / "a_x2.png") in str(caught.value)
    assert "overwrite=true" in str(caught.value)
    made = plan(tmp_path, tmp_path, suffix="_x2", overwrite=True)
    assert images(made, tmp_path) == {"a.png": "a_x2.png", "b.png": "b_x2.png"}
    assert [path.name for path in made.earlier] == ["a_x2.png"]


def test_results_of_an_earlier_run_are_known_where_inputs_share_a_name(tmp_path):
    touch(tmp_path, "a.png", "a.jpg", "a_png_x2.png", "a_jpg_x2.png")
    made = plan(tmp_path, tmp_path, suffix="_x2", overwrite=True)
    assert images(made, tmp_path) == {"a.jpg": "a_jpg_x2.png", "a.png": "a_png_x2.png"}
    assert [path.name for path in made.earlier] == ["a_jpg_x2.png", "a_png_x2.png"]


def test_results_of_an_earlier_run_are_known_behind_a_link(tmp_path):
    touch(tmp_path, "in/a.png", "in/a_x2.png")
    (tmp_path / "out").symlink_to("in")
    made = plan(tmp_path / "in", tmp_path / "out", suffix="_x2", overwrite=True)
    assert images(made, tmp_path) == {"in/a.png": "out/a_x2.png"}
    assert [path.name for path in made.earlier] == ["a_x2.png"]


@pytest.mark.parametrize("given", ["in", "in/a.png"])
def test_what_lies_beside_the_input_is_not_replaced_without_a_word(tmp_path, given):
    """An output folder that holds the input may hold originals of the same name."""
    touch(tmp_path, "in/a.png", "a.png")
    with pytest.raises(Problems) as caught:
        plan(tmp_path / given, tmp_path)
    assert f"output={tmp_path} holds the input, and a file there would" in str(caught.value)
    assert len(plan(tmp_path / given, tmp_path, overwrite=True).images) == 1
    touch(tmp_path, "out/a.png")
    assert len(plan(tmp_path / given, tmp_path / "out").images) == 1


def test_frames_beside_the_video_that_they_would_come_from_are_not_replaced(tmp_path):
    """How many there will be is not known before; the first tells of them."""
    touch(tmp_path, "a.mp4", "00000000_x2.png")
    with pytest.raises(Problems) as caught:
        plan(tmp_path / "a.mp4", tmp_path, suffix="_x2")
    assert str(tmp_path / "00000000_x2.png") in str(caught.value)
    assert len(plan(tmp_path / "a.mp4", tmp_path, suffix="_x2", overwrite=True).clips) == 1
    assert len(plan(tmp_path / "a.mp4", tmp_path, suffix="_x3").clips) == 1


def test_inputs_are_never_replaced_whatever_their_other_names(tmp_path):
    touch(tmp_path, "in/a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").symlink_to(tmp_path / "in/a.png")
    with pytest.raises(DataError, match="is an input"):
        plan(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out/a.png").unlink()
    os.link(tmp_path / "in/a.png", tmp_path / "out/a.png")
    with pytest.raises(DataError, match="is an input"):
        plan(tmp_path / "in", tmp_path / "out", overwrite=True)


# Outputs that are files.


def test_an_image_as_output(tmp_path):
    touch(tmp_path, "a.png", "in/b.jpg")
    made = plan(tmp_path / "a.png", tmp_path / "new/o.tif")
    assert images(made, tmp_path) == {"a.png": "new/o.tif"}
    assert images(plan(tmp_path / "in", tmp_path / "o.png"), tmp_path) == {"in/b.jpg": "o.png"}


@pytest.mark.parametrize(
    ("inputs", "wish", "words"),
    [
        (["in"], {}, "names one image, but the input is 2 files"),
        (["a.png", "in/b.png"], {}, "there are 2 inputs"),
        (["clip.mp4"], {}, "the input is .*clip.mp4; expected a folder or a video"),
        (["a.png"], {"suffix": "_x2"}, "suffix=_x2"),
        (["a.png"], {"format": "tif"}, "format=tif: output=.*o.png says .png"),
    ],
)
def test_an_image_as_output_of_what_is_no_single_image(tmp_path, inputs, wish, words):
    touch(tmp_path, "a.png", "in/b.png", "in/c.png", "clip.mp4")
    with pytest.raises(ConfigError, match=words):
        plan([tmp_path / name for name in inputs], tmp_path / "o.png", **wish)


def test_a_video_as_output(tmp_path):
    touch(tmp_path, "in/10.png", "in/9.png", "in/11.png", "in/deep/3.png", "in/t.txt", "clip.mp4")
    made = plan(tmp_path / "in", tmp_path / "o.mp4")
    assert clips(made, tmp_path) == [["in/9.png", "in/10.png", "in/11.png"]]
    assert [job.target for job in made.clips] == [tmp_path / "o.mp4"]
    assert {path.name for path in made.left_out} == {"3.png", "t.txt"}
    [job] = plan(tmp_path / "clip.mp4", tmp_path / "o.mp4").clips
    assert (job.makes_video, job.runs) == (True, ())
    with pytest.raises(ConfigError, match="there are 2 inputs"):
        plan([tmp_path / "in", tmp_path / "clip.mp4"], tmp_path / "o.mp4")
    with pytest.raises(DataError, match="a single image makes no video"):
        plan(tmp_path / "in/9.png", tmp_path / "o.mp4")
    with pytest.raises(DataError, match="is an input"):
        plan(tmp_path / "clip.mp4", tmp_path / "clip.mp4")


def test_a_video_in_the_folder_of_its_frames_is_no_input_of_the_next_run(tmp_path):
    touch(tmp_path, "1.png", "2.png", "big.mp4")
    made = plan(tmp_path, tmp_path / "big.mp4")
    assert clips(made, tmp_path) == [["1.png", "2.png"]]
    assert made.left_out == []


# Videos.


def test_videos_in_a_folder_keep_their_container_where_that_can_be_written(tmp_path):
    touch(tmp_path, "in/a.mp4", "in/b.mkv", "in/c.avi", "in/d.webm", "in/a.avi", "in/p.png")
    made = plan(tmp_path / "in", tmp_path / "out")
    assert {job.source.name: job.target.name for job in made.clips} == {
        "a.avi": "a_avi.mp4",
        "a.mp4": "a_mp4.mp4",
        "b.mkv": "b.mkv",
        "c.avi": "c.mp4",
        "d.webm": "d.mkv",
    }
    assert list(images(made, tmp_path)) == ["in/p.png"]
    assert any("d.webm: becomes .mkv" in note for note in made.notes)
    av1 = plan(tmp_path / "in", tmp_path / "out", codec="av1")
    assert {job.target.name for job in av1.clips} >= {"d.webm", "b.mkv"}
    ffv1 = plan(tmp_path / "in/d.webm", tmp_path / "out", codec="ffv1")
    assert [job.makes_video for job in ffv1.clips] == [False]


def test_one_video_becomes_a_folder_of_frames_and_several_become_videos(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    [only] = plan(tmp_path / "a.mp4", tmp_path / "out").clips
    assert (only.target, only.makes_video) == (tmp_path / "out", False)
    both = plan([tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path / "out").clips
    assert [(job.target.name, job.makes_video) for job in both] == [
        ("a.mp4", True),
        ("b.mp4", True),
    ]


# Clips.


def test_scenes_in_one_folder_are_clips_of_their_own(tmp_path):
    """3 scenes of 5 frames: a network that takes clips must not mix them."""
    names = [f"{scene}_{n:03}.png" for scene in ("city", "walk", "zoo") for n in range(1, 6)]
    touch(tmp_path / "in", *names)
    made = plan(tmp_path / "in", tmp_path / "out", takes_clips=True, suffix="_x2")
    assert clips(made, tmp_path / "in") == [names[:5], names[5:10], names[10:]]
    assert [job.scene for job in made.clips] == ["city", "walk", "zoo"]
    targets = [frame.target for job in made.clips for run in job.runs for frame in run]
    assert targets == [tmp_path / "out" / name.replace(".", "_x2.") for name in names]
    assert made.notes == [f"{tmp_path / 'in'}: 3 scenes, each a clip of its own: city, walk, zoo"]


def test_scenes_in_one_folder_become_one_video_and_are_told(tmp_path):
    names = [f"{scene}_{n}.png" for scene in "ab" for n in range(3)]
    touch(tmp_path / "in", *names)
    made = plan(tmp_path / "in", tmp_path / "o.mp4", takes_clips=True)
    assert len(made.clips) == 1
    assert clips(made, tmp_path / "in") == [names[:3], names[3:]]
    assert made.notes[-1].endswith("2 clips, one after the other in " + str(tmp_path / "o.mp4"))


def test_gaps_and_microseconds(tmp_path):
    times = [f"{round(n * 1e6 / 30)}.png" for n in range(1, 13)]
    touch(tmp_path / "in", *times)
    made = plan(tmp_path / "in", tmp_path / "out", takes_clips=True)
    assert (clips(made, tmp_path / "in"), made.notes) == ([times], [])
    (tmp_path / "in" / times[4]).unlink()
    made = plan(tmp_path / "in", tmp_path / "out", takes_clips=True)
    assert clips(made, tmp_path / "in") == [times[:4], times[5:]]
    assert made.notes == [f"{tmp_path / 'in'}: a gap after 133333; a new clip begins at 200000"]


def test_folders_of_frames_and_their_further_inputs(tmp_path):
    touch(tmp_path, "in/one/1.png", "in/one/2.png", "in/two/deep/1.png", "in/two/clip.mp4")
    made = plan(tmp_path / "in", tmp_path / "out", takes_clips=True)
    assert [
        (str(job.relative), job.target.relative_to(tmp_path / "out")) for job in made.clips
    ] == [
        ("one", made.clips[0].relative),
        ("two/deep", made.clips[1].relative),
        ("two/clip", made.clips[2].relative.with_suffix(".mp4")),
    ]
    assert made.clips[0].stems == ("1", "2")


def test_frames_that_are_there_twice_fail_for_their_folder_alone(tmp_path):
    touch(tmp_path, "in/one/1.png", "in/one/1.jpg", "in/two/1.png")
    made = plan(tmp_path / "in", tmp_path / "out", takes_clips=True)
    assert [job.source.name for job in made.clips] == ["two"]
    assert made.failed == [
        (tmp_path / "in/one", "1 frames are there twice, e.g. '1'; keep one of each")
    ]


def test_a_single_image_for_a_network_that_takes_clips(tmp_path):
    make(tmp_path / "a.png")
    for output in (tmp_path / "out", tmp_path / "o.png"):
        with pytest.raises(DataError, match="this network takes clips"):
            plan(tmp_path / "a.png", output, takes_clips=True)


def test_results_appear_in_the_folder_that_output_names_or_is_in(tmp_path):
    assert parse_output(str(tmp_path / "a/o.mp4")).folder == tmp_path / "a"
    assert parse_output(str(tmp_path / "a/o.png")).folder == tmp_path / "a"
    assert parse_output(str(tmp_path / "a/o")).folder == tmp_path / "a/o"
