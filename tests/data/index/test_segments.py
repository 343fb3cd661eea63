"""What images and sequences have in common: headers, tracks, what is left out."""

import pytest

from data.index.folders import list_folder
from data.index.requirements import Requirements
from data.index.segments import Frame, Index, Segment, make_segment, make_tracks, read_headers
from sr_train.api.errors import Problems
from tests.data.conftest import fill


def frames_of(folder):
    return tuple(Frame(file) for file in list_folder(folder).files)


def tracks_of(gt, lq=None, scale=2, lq_size=None):
    frames = {"gt": frames_of(gt), **({} if lq is None else {"lq": frames_of(lq)})}
    headers = read_headers([frame for each in frames.values() for frame in each])
    return make_tracks(frames, headers, Requirements(scale=scale, lq_size=lq_size))


def test_an_image_and_a_clip_fit_by_the_same_rule(tmp_path):
    gt, lq = (
        fill(tmp_path / "gt", ["a", "b"], (41, 60)),
        fill(tmp_path / "lq", ["a", "b"], (20, 30)),
    )
    tracks = tracks_of(gt, lq)
    clip = make_segment("clip", str(gt), ("a", "b"), tracks, 2)
    assert (len(clip), clip.lq_height, clip.lq_width) == (2, 20, 30)
    assert clip.frame_label(1) == "clip/b"
    image = make_segment("image", str(gt), ("",), tracks, 2)
    assert image.frame_label(0) == "image"


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_one_message_for_sizes_that_do_not_fit(tmp_path, names):
    gt, lq = fill(tmp_path / "gt", names, (40, 60)), fill(tmp_path / "lq", names, (10, 15))
    ((path, why),) = tracks_of(gt, lq)
    assert path == str(lq / "a.png")
    assert why == (
        "wrong size for scale 2: found 15x10 uint8, expected 30x20 for the GT of 60x40 "
        f"({gt}/a.png); these two fit scale 4"
    )
    ((path, why),) = tracks_of(gt, lq_size=21)
    assert path == str(gt / "a.png")
    assert why.startswith("too small: found 60x40 uint8, expected at least 42x42")


def test_headers_that_are_equal_are_kept_once(tmp_path):
    headers = read_headers(frames_of(fill(tmp_path, ["a", "b"], (40, 60))))
    first, second = headers.values()
    assert first is second


def test_what_is_left_out_is_an_error_unless_it_may_be_skipped(tmp_path):
    index = Index(left_out=[("x.png", "why")])
    assert index.problems() == ["x.png: why"]
    for on_bad in ("error", "skip"):
        with pytest.raises(Problems, match=r"x\.png: why"):
            index.check(on_bad)
    tracks = tracks_of(fill(tmp_path, ["a"]))
    index.segments.append(Segment("a", "a.png", ("",), tracks, 1, 1))
    index.check("skip")
    with pytest.raises(Problems, match="on_bad=skip"):
        index.check("error")
