import logging

import pytest
import torch

from sr_train.engine.checkpoint import (
    flat_differences,
    newest_state,
    read_state,
    save_state,
    set_aside_newer,
    states,
    write_atomically,
)
from sr_train.ops.errors import CheckpointError


def save(folder, *steps, keep_last=9):
    for step in steps:
        save_state(folder, step, {"generator": {"w": torch.tensor([step])}}, keep_last)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_keeps_the_last_and_their_checksums(tmp_path):
    save(tmp_path, 1, 2, 3, keep_last=2)
    assert names(tmp_path) == [f"step_0000000{n}.{end}" for n in (2, 3) for end in ("pt", "sha256")]


def test_the_newest_is_the_one_of_the_largest_step(tmp_path):
    save(tmp_path, 9, 10, 100)
    path, state = newest_state(tmp_path)
    assert (path.name, state["step"]) == ("step_00000100.pt", 100)


@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path, caplog, damage):
    save(tmp_path, 1, 2)
    newest = states(tmp_path)[0]
    data = newest.read_bytes()
    newest.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert newest_state(tmp_path)[1]["step"] == 1
    assert "step_00000002.pt" in caplog.text


def test_only_damaged_states_are_an_error(tmp_path):
    save(tmp_path, 1)
    states(tmp_path)[0].write_bytes(b"")
    with pytest.raises(CheckpointError, match="no training state is whole"):
        newest_state(tmp_path)


def test_a_state_of_another_layout_is_refused(tmp_path):
    torch.save({"format": 99, "generator": {}}, tmp_path / "step_00000001.pt")
    with pytest.raises(CheckpointError, match="layout 99, expected 2"):
        read_state(tmp_path / "step_00000001.pt")


def test_going_back_sets_later_states_aside(tmp_path):
    """Left in place, they would be the newest, and the new line's states would be dropped."""
    save(tmp_path, 2, 4, 6)
    moved = set_aside_newer(tmp_path, 2)
    assert [path.name for path in moved] == ["step_00000006.pt", "step_00000004.pt"]
    save(tmp_path, 3, keep_last=1)
    assert newest_state(tmp_path)[1]["step"] == 3
    assert read_state(moved[0])["step"] == 6


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_differences_are_dotted():
    old = {"a": {"b": 1, "c": 2}, "d": [1]}
    new = {"a": {"b": 1, "c": 3}, "e": None, "d": [1, 2]}
    assert list(flat_differences(old, new)) == [("a.c", 2, 3), ("d", [1], [1, 2])]
