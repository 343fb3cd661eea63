"""Files of one tensor: read as stored, and nothing in them is run."""

import io
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch

from sr_train.api.errors import DataError
from sr_train.io.tensors import decode_tensor, read_tensor


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
    named = r"a.pt: holds the Python object print beside its tensors, .*could run code"
    with pytest.raises(DataError, match=named):
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


# Foreign and hostile files.


def npy(header, body=b"", version=1):
    """The bytes of a .npy file with a header of one's own."""
    text = header.encode("latin-1") + b"\n"
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


def header(descr="'<f4'", order="False", shape="(1, 2, 3)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def torch_bytes(value, **settings):
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


def read_both_ways(folder, name, data):
    """Return what a mapped and a plain read of the same bytes give, or raise."""
    (folder / name).write_bytes(data)
    return read_tensor(folder / name, mapped=True), decode_tensor(data, folder / name)


def test_headers_as_other_programs_write_them(tmp_path):
    values = np.arange(6, dtype=np.float32)
    body = values.tobytes()
    for text, version, expected in (
        (header(), 1, values.reshape(1, 2, 3)),
        (header(), 2, values.reshape(1, 2, 3)),
        (header(shape="(1L, 2L, 3L)"), 1, values.reshape(1, 2, 3)),
        (header(order="True"), 1, values.reshape((1, 2, 3), order="F")),
        ("{'shape':(6,),'fortran_order':False,'descr':'<f4'}", 3, values),
        (header(shape="()"), 1, values[0]),
        (header("'>f4'", shape="(6,)"), 1, values.view(">f4")),
    ):
        for array in read_both_ways(tmp_path, "a.npy", npy(text, body, version)):
            np.testing.assert_array_equal(array, expected)
    assert read_tensor(tmp_path / "a.npy").flags.writeable


def test_what_was_written_by_numpy_and_torch_reads_alike(tmp_path):
    values = np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    np.save(tmp_path / "a.npy", values)
    turned = torch.from_numpy(values.copy()).transpose(0, 2)
    for name, data, expected in (
        ("a.npy", (tmp_path / "a.npy").read_bytes(), values),
        ("a.pt", torch_bytes(turned), turned.numpy()),
        ("a.pt", torch_bytes(torch.imag(torch.tensor([1 + 2j]).conj())), np.array([-2.0])),
    ):
        for array in read_both_ways(tmp_path, name, data):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(header(shape="(1000000, 100000, 1000)")), "400000000000000 bytes, and 0 follow"),
        (npy(header(shape="(-1, 8, 8)"), bytes(256)), "header is not one of an array"),
        (npy(header(shape="(0, 99999999999999999999)")), "damaged"),
        (npy(header(shape="(4611686018427387904, 0)")), "damaged: its header states the shape"),
        (npy(header(shape="(" + "1," * 40 + ")"), bytes(4)), "states the shape"),
        (npy(header("'<f3'"), bytes(99)), "holds '<f3', not numbers"),
        (npy(header("'<c8'"), bytes(99)), "holds '<c8', not numbers"),
        (npy(header("'<M8[s]'"), bytes(99)), "not numbers"),
        (npy(header("[('a', '<f4')]"), bytes(99)), "holds Python objects or records"),
        (npy(header(shape="(__import__('os').mkdir('touched'),)")), "not one of an array"),
        (npy("(" * 30_000 + ")" * 30_000), "not one of an array"),
        (npy("None"), "not one of an array"),
        (b"\x93NUMPY\x09\x00", "no .npy file"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{", "not one of an array"),
    ],
)
def test_hostile_npy_files(tmp_path, data, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(data)
    for read in (lambda p: read_tensor(p, mapped=True), read_tensor):
        with pytest.raises(DataError, match=re.escape(words)) as caught:
            read(tmp_path / "a.npy")
        assert str(caught.value).startswith(str(tmp_path / "a.npy"))
    assert not (tmp_path / "touched").exists()


COSTLY = (
    # Tuples without end as a key, which torch hashes by recursion: the stack overflows.
    b"\x80\x02}N" + b"\x85" * 2_000_000 + b"Ns.",
    # As many zeros as the pickle likes: 10 GB.
    b"\x80\x02}X\x01\0\0\0bc__builtin__\nbytearray\n\x8a\x05\0\xe4\x0b\x54\x02\x85Rs.",
)


def archived(data, pickled):
    """The same archive with another pickle."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, pickled if is_pickle else old.read(entry))
    return target.getvalue()


def packed(data):
    """The same archive with its entries deflated, and a large one of zeros."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", 8) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("archive/data/1", bytes(50_000_000))
    return target.getvalue()


def pt_files():
    plain = torch.ones(3, 4, 5)
    whole = torch_bytes(plain)
    yield torch_bytes(plain.to("meta")), "without values (device meta)"
    yield torch_bytes(torch.zeros(1).expand(1000, 10000, 1000)), "made of fewer values, repeated"
    yield torch_bytes(plain.to_sparse()), "sparse, nested or quantized"
    yield torch_bytes(plain.to(torch.complex64)), "tensor of complex64"
    yield torch_bytes(plain.to(torch.complex64).conj()), "tensor of complex64"
    yield torch_bytes(plain.to(torch.float8_e4m3fn)), "tensor of float8_e4m3fn"
    yield packed(whole), "a packed zip archive"
    yield whole.replace(b"PK\x01\x02", b"PK\x01\x03"), "damaged zip archive"
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        pickled = archive.read("archive/data.pkl")
    other = pickled.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9")
    yield archived(whole, other), "object torch._utils._rebuild_tensor_v9 beside"
    yield whole.replace(pickled, other), "damaged zip archive: Bad CRC-32"
    yield torch_bytes(plain, _use_new_zipfile_serialization=False)[:-100], "damaged"
    yield b"PK\x03\x04", "damaged zip archive"
    yield b"\x80\x02" + b"(" * 5000, "damaged"
    yield torch_bytes([plain]), "holds list; expected one tensor"
    for pickled in COSTLY:
        yield archived(whole, pickled), "holds what no file of weights or tensors does"
        yield pickle.dumps(1, protocol=2) + pickled, "holds what no file of weights or tensors does"


PT_FILES = list(pt_files())  # archives hold the time at which they were made: no names for tests


@pytest.mark.parametrize(("data", "words"), PT_FILES, ids=[words for _, words in PT_FILES])
def test_hostile_pt_files(tmp_path, data, words):
    (tmp_path / "a.pt").write_bytes(data)
    for read in (lambda p: read_tensor(p, mapped=True), read_tensor):
        with pytest.raises(DataError, match=re.escape(words)) as caught:
            read(tmp_path / "a.pt")
        assert str(caught.value).startswith(str(tmp_path / "a.pt"))


def test_any_byte_may_be_another(tmp_path):
    """Whatever a damaged file makes torch or NumPy do, it ends in values or in a DataError."""
    draw = np.random.default_rng(0)
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    np.save(tmp_path / "a.npy", values)
    wholes = {
        "a.npy": (tmp_path / "a.npy").read_bytes(),
        "a.pt": torch_bytes(torch.from_numpy(values)),
        "old.pt": torch_bytes(torch.from_numpy(values), _use_new_zipfile_serialization=False),
    }
    refused = 0
    for _ in range(120):
        name = str(draw.choice(list(wholes)))
        data = bytearray(wholes[name])
        for place in draw.integers(0, len(data), draw.integers(1, 8)):
            data[place] ^= 1 << draw.integers(8)
        try:
            read_both_ways(tmp_path, name, bytes(data[: draw.integers(1, 2 * len(data))]))
        except DataError:
            refused += 1
    assert refused > 40
