import os
import sys

import pytest

from data.folders import list_folder, resolve_root
from sr_train.ops.errors import DataError
from sr_train.ops.folders import natural_key
from tests.data.conftest import fill


def test_natural_order_and_nesting(gt_dir):
    names = [file.relative for file in list_folder(gt_dir).files]
    assert names == ["a1", "a2", "a10", "sub/b1", "sub/b2", "sub/b10", "z"]
    assert sorted(["x10", "x9", "10", "9", "x"], key=natural_key) == ["9", "10", "x", "x9", "x10"]


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
    with pytest.raises(DataError, match=r"no pictures found .* 1 \.txt, 1 folder$"):
        list_folder(tmp_path)


def test_home_and_relative_paths(gt_dir, monkeypatch):
    monkeypatch.chdir(gt_dir.parent)
    assert resolve_root("gt") == gt_dir
    monkeypatch.setenv("HOME", str(gt_dir.parent))
    assert resolve_root("~/gt") == gt_dir


def test_package_folder_without_import(tmp_path, monkeypatch):
    fill(tmp_path / "some_package" / "pictures", ["x"])
    (tmp_path / "some_package" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_root("pkg://some_package/pictures") == tmp_path / "some_package" / "pictures"
    assert "some_package" not in sys.modules
    with pytest.raises(DataError, match="did you mean 'pictures'"):
        resolve_root("pkg://some_package/Pictures")
    with pytest.raises(DataError, match="not installed"):
        resolve_root("pkg://no_such_package/x")
    with pytest.raises(DataError, match="expected pkg://"):
        resolve_root("pkg://")
