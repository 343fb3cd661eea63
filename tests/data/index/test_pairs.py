import os
import time

import pytest

from data.index.pairs import index_pairs
from data.index.requirements import Requirements
from data.index.selecting import make_selection
from sr_train.api.errors import DataError
from tests.data.conftest import fill


def indexed(gt, lq=None, scale=2, **requirements):
    patterns = [requirements.pop(name, None) for name in ("include", "exclude", "list_file")]
    lq = None if lq is None else [lq]
    selection = make_selection(*patterns)
    return index_pairs([gt], lq, Requirements(scale=scale, selection=selection, **requirements))


def reasons(index):
    return {os.path.basename(path): why for path, why in index.left_out}


def names(index):
    return [segment.name for segment in index.segments]


def test_gt_only(gt_dir):
    index = indexed(gt_dir, scale=3, lq_size=12)
    assert names(index) == ["a1", "a2", "a10", "sub/b1", "sub/b2", "sub/b10", "z"]
    assert index.left_out == []
    assert (index.segments[0].lq_height, index.segments[0].lq_width) == (13, 18)


@pytest.mark.parametrize("variant", ["{}", "{}x2", "{}X2", "{}_x2"])
def test_pairs_by_published_names(tmp_path, variant):
    gt = fill(tmp_path / "gt", ["baby", "s/bird"], (41, 57))
    lq = fill(tmp_path / "lq", [variant.format("baby"), variant.format("s/bird")], (20, 28), ".bmp")
    index = indexed(gt, lq)
    assert names(index) == ["baby", "s/bird"]
    assert [segment.tracks["lq"].frames[0].file.relative for segment in index.segments] == [
        variant.format("baby"),
        variant.format("s/bird"),
    ]
    assert index.left_out == []


def test_exact_name_wins_over_a_variant(tmp_path):
    gt = fill(tmp_path / "gt", ["a", "ax2"])
    lq = fill(tmp_path / "lq", ["ax2"], (20, 28))
    index = indexed(gt, lq)
    assert names(index) == ["ax2"]
    assert "no partner" in reasons(index)["a.png"]


def test_every_problem_is_named(tmp_path):
    good = ["good", "wrong", "small", "twice", "lonely", "vague", "text", "cut"]
    gt = fill(tmp_path / "gt", good)
    fill(gt, ["small"], (20, 20))
    fill(gt, ["twice"], suffix=".bmp")
    fill(gt, ["tiny"], (1, 50))
    lq_names = ["good", "wrong", "twice", "vague", "vaguex2", "text", "cut", "orphan"]
    lq = fill(tmp_path / "lq", lq_names, (20, 28))
    fill(lq, ["wrong"], (10, 14))
    fill(lq, ["small"], (10, 10))
    fill(lq, ["tiny"], (1, 25))
    (lq / "text.png").write_text("not an image")
    (gt / "cut.png").write_bytes(b"")
    index = indexed(gt, lq, lq_size=16)
    assert names(index) == ["good"]
    found = reasons(index)
    assert "found 14x10 uint8, expected 28x20 for the GT of 56x40" in found["wrong.png"]
    assert "these two fit scale 4" in found["wrong.png"]
    assert "found 20x20 uint8, expected at least 32x32" in found["small.png"]
    assert found["twice.png"].endswith("twice.bmp; keep one")
    assert found["twice.bmp"].endswith("twice.png; keep one")
    assert "looked for lonely, lonelyx2, lonelyX2, lonely_x2" in found["lonely.png"]
    assert "ambiguous partner" in found["vague.png"]
    assert "not an image" in found["text.png"]
    assert "0 bytes" in found["cut.png"]
    assert "no partner in" in found["orphan.png"]
    assert "found 25x1 uint8, expected 25x0" in found["tiny.png"]
    assert len(index.left_out) == 10


def test_too_small_without_lq(tmp_path):
    index = indexed(fill(tmp_path, ["x"], (31, 90)), lq_size=16)
    assert "found 90x31 uint8, expected at least 32x32" in reasons(index)["x.png"]


def test_nothing_pairs(tmp_path):
    gt, lq = fill(tmp_path / "gt", ["a", "b"]), fill(tmp_path / "lq", ["c", "d"])
    with pytest.raises(DataError, match=r"found 'c', 'd'; expected names such as a, ax2") as caught:
        indexed(gt, lq)
    assert "swapped" not in str(caught.value)
    lq = fill(tmp_path / "x2", ["ax2", "bx2"], (20, 28))
    with pytest.raises(DataError, match="are gt and lq swapped"):
        indexed(lq, gt)


def test_same_folder_twice(gt_dir):
    with pytest.raises(DataError, match="same folder"):
        indexed(gt_dir, gt_dir)


def test_patterns(gt_dir):
    assert names(indexed(gt_dir, include=["a*"])) == ["a1", "a2", "a10"]
    assert names(indexed(gt_dir, include=["a1.png", "sub/*"], exclude=["*b1*"])) == ["a1", "sub/b2"]
    with pytest.raises(DataError, match=r"'A1.png'; did you mean 'a1.png'"):
        indexed(gt_dir, include=["a*", "A1.png"])
    with pytest.raises(DataError, match="none of 7 images"):
        indexed(gt_dir, exclude=["*"])


def test_patterns_silence_what_they_exclude(tmp_path):
    gt = fill(tmp_path / "gt", ["a", "b", "c"])
    lq = fill(tmp_path / "lq", ["a", "b"], (20, 28))
    assert indexed(gt, lq, include=["a"]).left_out == []
    assert indexed(gt, lq, exclude=["c"]).left_out == []


def test_several_roots(tmp_path):
    one, two = fill(tmp_path / "one", ["x"]), fill(tmp_path / "two", ["x", "y"])
    index = index_pairs([one, two], None, Requirements(scale=2))
    assert names(index) == ["one/x", "two/x", "two/y"]
    same = fill(tmp_path / "deep" / "one", ["x"])
    index = index_pairs([one, same], None, Requirements(scale=2))
    assert names(index) == [f"{one}/x", f"{same}/x"]
    with pytest.raises(DataError, match="2 gt folders but 1 lq"):
        index_pairs([one, two], [one], Requirements(scale=2))


def test_thousands_of_files_are_quick(tmp_path):
    fill(tmp_path, ["x"])
    for number in range(2000):
        os.link(tmp_path / "x.png", tmp_path / f"n{number}.png")
    start = time.perf_counter()
    assert len(indexed(tmp_path).segments) == 2001
    assert time.perf_counter() - start < 10


def test_a_single_pattern_needs_no_list(gt_dir):
    assert names(indexed(gt_dir, include="sub/*")) == ["sub/b1", "sub/b2", "sub/b10"]
    assert names(indexed(gt_dir, include="a*", exclude="a1*")) == ["a2"]


@pytest.mark.parametrize("wrong", [[11], "", ["a1", ""], 7, {"a": 1}, [None]])
def test_patterns_that_are_no_text(gt_dir, wrong):
    with pytest.raises(DataError, match="exclude: expected"):
        indexed(gt_dir, exclude=wrong)


def test_patterns_may_tell_the_root(tmp_path):
    one, two = fill(tmp_path / "one", ["x"]), fill(tmp_path / "two", ["x", "y"])
    requirements = Requirements(scale=2, selection=make_selection("two/*", None, None))
    assert names(index_pairs([one, two], None, requirements)) == ["two/x", "two/y"]


def test_a_list_of_names(gt_dir, tmp_path):
    lines = tmp_path / "train.txt"
    lines.write_bytes(
        b"\xef\xbb\xbfa1.png\r\n\r\n./x\nsub/b2\nsub\\b10.png (40,56,3)\nz 7 (40,56,3)\na1\n"
    )
    index = indexed(gt_dir, list_file=str(lines))
    assert names(index) == ["a1", "sub/b2", "sub/b10", "z"]
    assert index.left_out == [(str(lines), "names './x', which is not there")]
    index = indexed(gt_dir, list_file=str(lines), include=["sub/*"])
    assert names(index) == ["sub/b2", "sub/b10"]
    lq = fill(tmp_path / "lq", ["a1", "a2", "a10", "sub/b1", "sub/b2", "sub/b10", "z"], (20, 28))
    (lq / "more.png").write_bytes((lq / "z.png").read_bytes())
    lines.write_text("a1\nz\n")
    index = indexed(gt_dir, lq, list_file=str(lines))
    assert (names(index), index.left_out) == (["a1", "z"], [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"\n \n", "names nothing"),
        (b"\x89PNG\0\0", "is no text"),
        (b"q\nr\n", r"none of 7 images is left by .*list_file=.*list.txt"),
    ],
)
def test_lists_that_name_nothing(gt_dir, tmp_path, content, words):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=words):
        indexed(gt_dir, list_file=str(tmp_path / "list.txt"))


def test_images_that_are_both_sides(gt_dir):
    fill(gt_dir / "lq", ["a1", "a2"], (20, 28))
    with pytest.raises(DataError, match=r"2 images are in gt .* and in lq .*gt/lq/a1\.png"):
        indexed(gt_dir, gt_dir / "lq")
    with pytest.raises(DataError, match=r"2 images are in gt .* and in lq"):
        indexed(gt_dir / "lq", gt_dir)
    index = indexed(gt_dir, gt_dir / "lq", include=["a1", "a2"])
    assert (names(index), index.left_out) == (["a1", "a2"], [])
