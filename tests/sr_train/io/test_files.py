"""Files that are whole or not there, and what killed processes leave behind."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from sr_train.io.files import (
    TemporaryFile,
    naming_path,
    read_ends,
    remove_leftovers,
    write_atomically,
)
from tests.toys import ROOT


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    write_atomically(path, memoryview(b"new one"))
    assert path.read_bytes() == b"new one"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_link_is_replaced_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"not mine")
    link = tmp_path / "link"
    link.symlink_to(outside)
    write_atomically(link, b"mine")
    assert outside.read_bytes() == b"not mine"
    assert not link.is_symlink()
    assert link.read_bytes() == b"mine"


@pytest.mark.parametrize("length", [250, 255])
def test_the_longest_names_can_be_written(tmp_path, length):
    path = tmp_path / ("n" * length)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_an_error_names_the_target_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr("sr_train.io.files.os.write", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["a.bin"]
    assert path.read_bytes() == b"old"


def test_a_missing_folder_is_told_by_the_targets_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "none/a.bin", b"")
    assert caught.value.filename == str(tmp_path / "none/a.bin")


def test_what_is_being_written_is_no_leftover(tmp_path):
    busy = TemporaryFile(tmp_path / "a.bin")
    assert remove_leftovers(tmp_path) == []
    busy.write(b"x")
    busy.commit()
    assert os.listdir(tmp_path) == ["a.bin"]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    program = (
        "import time, pathlib; from sr_train.io.files import TemporaryFile\n"
        f"TemporaryFile(pathlib.Path({str(tmp_path)!r}, 'a.bin')).write(b'half')\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    (tmp_path / ".hidden.tmp").write_text("somebody's own")
    assert remove_leftovers(tmp_path) == []
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    deadline = time.monotonic() + 10
    while not (removed := remove_leftovers(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(removed) == 1
    assert os.listdir(tmp_path) == [".hidden.tmp"]


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path):
    assert remove_leftovers(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("number", "named"), [(errno.EFBIG, True), (errno.EIO, True), (errno.EPIPE, False)]
)
def test_an_error_of_a_disk_gets_the_path(number, named, tmp_path):
    """A write fails without saying of which file."""
    told = os.strerror(number)
    with (
        pytest.raises(OSError, match=told) as caught,
        naming_path(lambda: tmp_path / "results.csv"),
    ):
        raise OSError(number, told)
    assert caught.value.filename == (str(tmp_path / "results.csv") if named else None)


def test_the_ends_of_a_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abcdefgh")
    assert read_ends(str(path), 3) == b"abcfgh"
    assert read_ends(str(path), 20) == b"abcdefgh" * 2
    assert read_ends(str(tmp_path / "gone"), 3) is None
