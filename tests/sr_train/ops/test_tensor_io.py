"""Files of one tensor: read as stored, and nothing in them is run."""

import numpy as np
import pytest
import torch

from sr_train.ops.errors import DataError
from sr_train.ops.tensor_io import decode_tensor, read_tensor


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int16, np.bool_])
def test_arrays_come_back_as_stored(tmp_path, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    torch.save(torch.from_numpy(array), tmp_path / "a.pt")
    for name in ("a.npy", "a.pt"):
        back = read_tensor(tmp_path / name)
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, array)


def test_bfloat16_and_parameters(tmp_path):
    torch.save(torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)), tmp_path / "a.pt")
    np.testing.assert_array_equal(read_tensor(tmp_path / "a.pt"), np.ones(2, np.float32))


class Stowaway:
    def __reduce__(self):
        return (print, ("run",))


def test_code_is_refused(tmp_path, capsys):
    torch.save(Stowaway(), tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.array([Stowaway()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a.pt: holds more than tensors, which could run code"):
        read_tensor(tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a.npy: holds Python objects"):
        read_tensor(tmp_path / "a.npy")
    assert capsys.readouterr().out == ""


def test_what_is_no_tensor(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "dict.pt")
    np.savez(tmp_path / "many", a=np.ones(1))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    np.save(tmp_path / "words.npy", np.array(["a"]))
    torch.save(torch.ones(500), tmp_path / "cut.pt")
    np.save(tmp_path / "cut.npy", np.ones(500))
    for name in ("cut.pt", "cut.npy"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    (tmp_path / "text.pt").write_text("nothing")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, words in {
        "dict.pt": "holds dict; expected one tensor",
        "many.npy": "several arrays",
        "words.npy": "not numbers",
        "cut.pt": "damaged",
        "cut.npy": "damaged",
        "text.pt": "damaged",
        "empty.npy": "damaged",
        "none.npy": "cannot be read",
        "a.txt": "not a tensor",
    }.items():
        with pytest.raises(DataError, match=words) as caught:
            read_tensor(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["voxel.npy", "voxel.pt", "old.pt"])
def test_mapped_and_from_bytes(tmp_path, name):
    path, values = tmp_path / name, np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        is_zip = name != "old.pt"
        torch.save(torch.from_numpy(values), path, _use_new_zipfile_serialization=is_zip)
    for array in (read_tensor(path, mapped=True), decode_tensor(path.read_bytes(), path)):
        assert array.dtype == np.int16
        np.testing.assert_array_equal(array, values)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=str(path)):
        read_tensor(path, mapped=True)
