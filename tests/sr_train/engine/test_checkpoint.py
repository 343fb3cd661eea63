import hashlib
import logging
import random

import pytest
import torch

from sr_train.api.errors import CheckpointError
from sr_train.engine.checkpoint import (
    flat_differences,
    newest_state,
    read_state,
    save_state,
    set_aside_newer,
    states,
    write_atomically,
)
from sr_train.engine.checksum import checksum
from tests.states import toy_state


def save(folder, *steps, keep_last=9):
    for step in steps:
        save_state(folder, step, toy_state(step), keep_last)


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
    at = data.index(torch.full((2,), 2.0).numpy().tobytes())
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    newest.write_bytes(flipped if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert newest_state(tmp_path)[1]["step"] == 1
    assert "step_00000002.pt" in caplog.text


def test_only_damaged_states_are_an_error(tmp_path):
    save(tmp_path, 1)
    states(tmp_path)[0].write_bytes(b"")
    with pytest.raises(CheckpointError, match="no training state is whole"):
        newest_state(tmp_path)


def test_a_state_of_another_layout_is_refused(tmp_path):
    torch.save({**toy_state(1), "format": 99}, tmp_path / "step_00000001.pt")
    newer = r"written by a newer sr_train, in layout 99; this one .* reads up to layout 4"
    with pytest.raises(CheckpointError, match=newer):
        read_state(tmp_path / "step_00000001.pt")


@pytest.mark.parametrize("beside", [True, False])
def test_no_flipped_bit_is_taken_for_another_state(tmp_path, beside):
    """Bits that mean nothing may flip; all others are seen, without the file beside it too."""
    save(tmp_path, 1)
    path = tmp_path / "step_00000001.pt"
    good, data = checksum(read_state(path)), path.read_bytes()
    if not beside:
        path.with_suffix(".sha256").unlink()
    draw, refused = random.Random(0), 0
    for _ in range(300):
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert checksum(read_state(path)) == good
        except CheckpointError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\0garbage", b"\0" * 64, b"0" * 64, b"0" * 64 + b"  step_00000002.pt\n", None],
)
def test_an_odd_file_beside_a_whole_state_is_named_and_left_aside(tmp_path, caplog, content):
    save(tmp_path, 1, 2)
    beside = tmp_path / "step_00000002.sha256"
    beside.unlink()
    if content is None:
        beside.mkdir()
    else:
        beside.write_bytes(content)
    assert newest_state(tmp_path)[1]["step"] == 2
    assert (
        "step_00000002.sha256: not the checksum of step_00000002.pt, which is whole" in caplog.text
    )


def test_a_missing_file_beside_a_state_is_nothing_to_tell(tmp_path, caplog):
    save(tmp_path, 1)
    (tmp_path / "step_00000001.sha256").unlink()
    with caplog.at_level(logging.INFO):
        assert newest_state(tmp_path)[1]["step"] == 1
    assert caplog.text == ""


@pytest.mark.parametrize("form", [str.upper, "{}\n".format, "{}  step_00000001.pt\n".format])
def test_a_checksum_may_be_written_as_other_tools_do(tmp_path, caplog, form):
    save(tmp_path, 1)
    beside = tmp_path / "step_00000001.sha256"
    beside.write_text(form(beside.read_text()))
    assert read_state(tmp_path / "step_00000001.pt")["step"] == 1
    assert caplog.text == ""


def older(folder, step):
    """Write a state as it was before states had a checksum inside."""
    path = folder / f"step_{step:08d}.pt"
    torch.save({"format": 2, "step": step, **toy_state(step)}, path)
    return path


def test_a_state_without_a_checksum_is_read_and_called_unverified(tmp_path, caplog):
    path = older(tmp_path, 1)
    with caplog.at_level(logging.INFO):
        assert read_state(path)["step"] == 1
    assert caplog.text.count("step_00000001.pt: unverified") == 1


def test_a_state_without_a_checksum_inside_has_the_one_beside_it(tmp_path, caplog):
    path = older(tmp_path, 1)
    beside = path.with_suffix(".sha256")
    beside.write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    with caplog.at_level(logging.INFO):
        assert read_state(path)["step"] == 1
    assert caplog.text == ""
    beside.write_text("0" * 64)
    with pytest.raises(CheckpointError, match=r"damaged, its checksum is not the one in step_"):
        read_state(path)


def test_a_state_that_lost_its_checksum_is_damaged(tmp_path):
    path = tmp_path / "step_00000001.pt"
    torch.save({"format": 3, "step": 1, **toy_state(1)}, path)
    with pytest.raises(CheckpointError, match="damaged, it is not what its checksum inside is of"):
        read_state(path)


@pytest.mark.parametrize("layout", [None, "x" * 1000, [3], 1, -5, 2.5, True, torch.ones(2)])
def test_an_impossible_layout_is_told(tmp_path, layout):
    path = tmp_path / "step_00000001.pt"
    torch.save({**toy_state(1), "format": layout}, path)
    with pytest.raises(CheckpointError, match=r"has layout .* expected 4") as caught:
        read_state(path)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_weights_are_no_state_and_told_how_to_be_used(tmp_path):
    torch.save({"params": {"w": torch.ones(1)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"no training state .* net_g\.pretrained=.*a\.pth"):
        read_state(tmp_path / "a.pth")


def test_a_folder_in_the_place_of_a_state_falls_back(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step_00000002.pt").mkdir()
    assert newest_state(tmp_path)[1]["step"] == 1


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
