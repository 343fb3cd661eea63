import os
import sys

import pytest

from data.index.folders import list_folder, resolve_root, resolve_roots, root_name
from sr_train.api.errors import DataError
from tests.data.conftest import fill


def test_natural_order_and_nesting(gt_dir):
    names = [file.relative for file in list_folder(gt_dir).files]
    assert names == ["a1", "a2", "a10", "sub/b1", "sub/b2", "sub/b10", "z"]


def test_hidden_ignored_and_linked(gt_dir, tmp_path):
    fill(gt_dir, [".hidden", ".folder/x"])
    (gt_dir / "notes.txt").write_text("x")
    (gt_dir / "README").write_text("x")
    fill(tmp_path / "elsewhere", ["linked"])
    (gt_dir / "link").symlink_to(tmp_path / "elsewhere")
    (gt_dir / "loop").symlink_to(gt_dir)
    (gt_dir / "broken.png").symlink_to(tmp_path / "nowhere.png")
    listing = list_folder(gt_dir)
    names = [file.relative for file in listing.files]
    assert "link/linked" in names
    assert len(names) == 8
    assert listing.ignored == {".txt": 1, "(no suffix)": 1}
    assert listing.bad == [(f"{gt_dir}/broken.png", "broken link")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_closed_folder_is_named(gt_dir):
    (gt_dir / "sub").chmod(0)
    try:
        listing = list_folder(gt_dir)
    finally:
        (gt_dir / "sub").chmod(0o755)
    assert "cannot be entered" in listing.bad[0][1]


def test_wrong_case_suggests_the_folder(tmp_path):
    (tmp_path / "Train" / "gt").mkdir(parents=True)
    with pytest.raises(DataError, match="did you mean 'Train'") as caught:
        resolve_root(str(tmp_path / "train" / "gt"))
    assert str(tmp_path / "train" / "gt") in str(caught.value)


def test_missing_folder_lists_what_is_there(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="valid: photos"):
        resolve_root(str(tmp_path / "xyzzy"))
    with pytest.raises(DataError, match="it is empty"):
        resolve_root(str(tmp_path / "photos" / "x"))


def test_file_in_place_of_a_folder(gt_dir):
    with pytest.raises(DataError, match="is a file"):
        resolve_root(str(gt_dir / "z.png"))


def test_empty_folder_says_what_it_holds(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"no images found .* 1 \.txt, 1 folder$"):
        list_folder(tmp_path)


def test_home_and_relative_paths(gt_dir, monkeypatch):
    monkeypatch.chdir(gt_dir.parent)
    assert resolve_root("gt") == gt_dir
    monkeypatch.setenv("HOME", str(gt_dir.parent))
    assert resolve_root("~/gt") == gt_dir


def test_package_folder_without_import(tmp_path, monkeypatch):
    fill(tmp_path / "some_package" / "images", ["x"])
    (tmp_path / "some_package" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_root("pkg://some_package/images") == tmp_path / "some_package" / "images"
    assert "some_package" not in sys.modules
    with pytest.raises(DataError, match="did you mean 'images'"):
        resolve_root("pkg://some_package/Images")
    with pytest.raises(DataError, match="not installed"):
        resolve_root("pkg://no_such_package/x")
    with pytest.raises(DataError, match="expected pkg://"):
        resolve_root("pkg://")


# What a config may name by mistake.


@pytest.mark.parametrize("value", ["", " ", [""], ["x", ""], "\t", "a\0b"])
def test_an_empty_name_is_never_the_working_directory(gt_dir, monkeypatch, value):
    monkeypatch.chdir(gt_dir)
    with pytest.raises(DataError, match="lq: expected a name, got the empty text"):
        resolve_roots("lq", value)


@pytest.mark.parametrize("value", [7, [7], {"a": 1}, b"x", None])
def test_what_is_no_text_is_named(value):
    with pytest.raises(DataError, match=r"gt: expected text.* write it in quotes"):
        resolve_roots("gt", value)


def test_a_home_of_nobody():
    with pytest.raises(DataError, match=r"gt=~nobody_at_all/x: there is no user 'nobody_at_all'"):
        resolve_root("~nobody_at_all/x")


def test_names_that_no_file_system_takes(gt_dir):
    with pytest.raises(DataError, match="cannot be entered: File name too long"):
        resolve_root(str(gt_dir / ("x" * 300)))
    with pytest.raises(DataError, match="no such folder"):
        resolve_root(str(gt_dir / "z.png" / "deeper"))


def test_a_folder_counts_once(gt_dir, tmp_path):
    (tmp_path / "link").symlink_to(gt_dir)
    for twice in ([str(gt_dir), f"{gt_dir}/"], [str(gt_dir), str(tmp_path / "link")]):
        with pytest.raises(DataError, match="gt: names the same folder twice"):
            resolve_roots("gt", twice)
    with pytest.raises(DataError, match=r"gt/sub lies inside .*gt, which is given too"):
        resolve_roots("gt", [str(gt_dir / "sub"), str(gt_dir)])


def test_pipes_and_devices_are_named_and_not_waited_for(gt_dir):
    os.mkfifo(gt_dir / "pipe.png")
    (gt_dir / "null.png").symlink_to("/dev/null")
    listing = list_folder(gt_dir)
    assert len(listing.files) == 7
    assert sorted(os.path.basename(path) for path, _ in listing.bad) == ["null.png", "pipe.png"]
    assert "is a pipe, a socket or a device" in listing.bad[0][1]


def test_a_star_stands_for_every_folder_there(tmp_path):
    for sequence in ("s[1]", "s10", "s2", ".hidden"):
        for side in ("sharp [x]", "blur"):
            fill(tmp_path / "train" / sequence / side, ["47", "d/48"])
    fill(tmp_path / "train" / "s3" / "other", ["1"])
    fill(tmp_path / "train", ["stray"])
    root = resolve_root(str(tmp_path / "train" / "*" / "sharp [x]"))
    names = [file.relative for file in list_folder(root).files]
    assert names == ["s2/47", "s2/d/48", "s10/47", "s10/d/48", "s[1]/47", "s[1]/d/48"]
    assert root_name(root) == "train"
    names = [file.relative for file in list_folder(tmp_path / "*" / "*" / "other").files]
    assert names == ["train/s3/1"]
    with pytest.raises(DataError, match=r"no folder fits; looked in each.*did you mean 'blur'"):
        list_folder(tmp_path / "train" / "*" / "blurr")
    with pytest.raises(DataError, match="no such folder"):
        resolve_root(str(tmp_path / "Train" / "*" / "blur"))
