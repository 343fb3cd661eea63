import pytest
import safetensors.torch
import torch

from sr_train.api.errors import CheckpointError
from sr_train.io.pretrained import find_weights, read_state, stored_tensor


def test_a_given_path_wins_over_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "net.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    own = tmp_path / "own.pth"
    own.touch()
    assert find_weights("someone", "net.pth", None) == cached
    assert find_weights("someone", "net.pth", str(own)) == own


def test_absent_weights_are_told_with_place_source_and_argument(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        find_weights("someone", "net.pth", None)
    for part in (
        f"someone: no weights at {tmp_path / 'hub' / 'checkpoints' / 'net.pth'}",
        "https://download.pytorch.org/models/net.pth",
        "weights=PATH",
    ):
        assert part in str(caught.value)
    with pytest.raises(CheckpointError, match=r"http://x once.*name it with table=PATH"):
        find_weights("someone", "net.pth", tmp_path / "none", "http://x", "table")


def test_files_without_a_state_dict_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"weights\.pth: is a web page"):
        read_state(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="list, not a state dict"):
        read_state(path)
    torch.save({"a": torch.ones(2)}, path)
    assert list(read_state(path)) == ["a"]


def test_a_tensor_must_be_there_and_have_its_shape():
    state = {"a": torch.ones(2, 3), "b": "words"}
    assert stored_tensor(state, "a", (2, 3), "the file") is state["a"]
    with pytest.raises(CheckpointError, match=r"the file is not .* a should have shape \(3, 2\)"):
        stored_tensor(state, "a", (3, 2), "the file")
    for key in ("b", "c"):
        with pytest.raises(CheckpointError, match="found nothing"):
            stored_tensor(state, key, (1,), "the file")


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (torch.ones(2, dtype=torch.int64), "a should hold floating-point numbers, found int64"),
        (torch.ones(2) > 0, "a should hold floating-point numbers, found bool"),
        (torch.tensor([1.0, float("nan")]), "a holds NaN or infinite numbers"),
        (torch.ones(2).to_sparse(), r"a should have shape \(2,\), found another kind of tensor"),
        (torch.ones(2, device="meta"), r"a should have shape \(2,\), found another kind"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value.dtype),
)
def test_a_tensor_must_be_of_finite_numbers(stored, told):
    with pytest.raises(CheckpointError, match=f"the file.*{told}"):
        stored_tensor({"a": stored}, "a", (2,), "the file")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_tensor_of_another_precision_is_as_good(dtype):
    assert stored_tensor({"a": torch.ones(2, dtype=dtype)}, "a", (2,), "x").dtype == dtype


def test_a_safetensors_file_is_read_too(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "net.pth")
    assert torch.equal(read_state(tmp_path / "net.pth")["a"], torch.ones(2))
