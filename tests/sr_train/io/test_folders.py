"""How folders are searched: order, what is no file, and kinds of files in words."""

import os

from sr_train.io.folders import file_status, kinds_in_words, natural_key


def test_natural_order():
    assert sorted(["x10", "x9", "10", "9", "x"], key=natural_key) == ["9", "10", "x", "x9", "x10"]


def test_what_is_no_file(tmp_path):
    (tmp_path / "file").write_text("abc")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert file_status(tmp_path / "file").st_size == 3
    assert file_status(tmp_path / "link") == "broken link"
    assert "pipe" in file_status(tmp_path / "pipe")
    assert file_status(tmp_path / "gone") == "No such file or directory"


def test_kinds_of_files_the_most_frequent_first():
    assert kinds_in_words({".b": 1, "": 3, ".a": 2}) == "3 (no suffix), 2 .a, 1 .b"
    assert kinds_in_words({".b": 1, "": 3, ".a": 2}, most=1) == "3 (no suffix), ... 2 more kinds"
    assert kinds_in_words({".x\n": 1}) == r"1 .x\n"
