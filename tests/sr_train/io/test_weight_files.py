"""Files of tensors come out as plain data, or are refused; nothing in them runs."""

import os
import pickle
import warnings
import zipfile
from collections import OrderedDict

import pytest
import safetensors.torch
import torch

from sr_train.api.errors import CheckpointError
from sr_train.io import weight_files
from sr_train.io.weight_files import read_any, read_content


def saved(path, content, **more):
    torch.save(content, path, **more)
    return path


def repacked(path, method=zipfile.ZIP_STORED, **replaced):
    """Write an archive of torch.save anew, with other content under some names."""
    with zipfile.ZipFile(path) as old:
        entries = [(entry.filename, old.read(entry)) for entry in old.infolist()]
    with zipfile.ZipFile(path, "w", method) as new:
        for name, data in entries:
            new.writestr(name, replaced.get(name.rpartition("/")[2].replace(".", "_"), data))
    return path


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.ckpt", "a"])
@pytest.mark.parametrize("old_pickle", [False, True])
def test_a_file_of_torch_is_read_whatever_it_is_called(tmp_path, name, old_pickle):
    weights = {"a.w": torch.arange(3.0)}
    path = saved(tmp_path / name, weights, _use_new_zipfile_serialization=not old_pickle)
    content, metadata = read_any(path)
    assert metadata is None
    assert torch.equal(content["a.w"], weights["a.w"])


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.bin"])
def test_a_safetensors_file_is_read_whatever_it_is_called(tmp_path, name):
    path = tmp_path / name
    safetensors.torch.save_file({"w": torch.ones(2)}, path, metadata={"format": "pt"})
    content, metadata = read_any(path)
    assert torch.equal(content["w"], torch.ones(2))
    assert metadata == {"format": "pt"}


def test_a_compressed_archive_of_torch_is_read(tmp_path):
    path = repacked(saved(tmp_path / "a.pth", {"w": torch.ones(64)}), zipfile.ZIP_DEFLATED)
    assert torch.equal(read_content(path)["w"], torch.ones(64))


def test_an_archive_without_checksums_is_read(tmp_path):
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "a.pth", {"w": torch.ones(64)})
    finally:
        torch.serialization.set_crc32_options(computed)
    assert torch.equal(read_content(path)["w"], torch.ones(64))


class Runs:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("form", ["zip", "old", "raw"])
def test_code_in_a_file_is_named_and_does_not_run(tmp_path, form):
    path, content = tmp_path / "a.pth", {"w": torch.ones(1), "x": Runs(tmp_path / "canary")}
    if form == "raw":
        path.write_bytes(pickle.dumps(content["x"], protocol=2))
    else:
        saved(path, content, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match=r"a\.pth: holds the Python object posix\.mkdir "):
        read_content(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_file_that_is_cut_off(tmp_path, form, share):
    path, weights = tmp_path / "a.pth", {"w": torch.rand(500)}
    if form == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        saved(path, weights, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"a\.pth: .*(cut off|damaged)"):
        read_content(path)


def test_containers_come_out_plain_and_tensors_without_attributes(tmp_path):
    odd = OrderedDict(w=torch.nn.Parameter(torch.ones(2)))
    odd.itemz = "not a method"
    odd["w"].name_of_mine = 5
    path = saved(tmp_path / "a.pth", {"a": odd, "t": (1, [2.0, None, "x"])})
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("a/data.pkl").replace(b"itemz", b"items")
    content = read_content(repacked(path, data_pkl=pickled))
    assert content["t"] == (1, [2.0, None, "x"])
    assert type(content["a"]) is dict
    assert type(content["a"]["w"]) is torch.Tensor
    assert not hasattr(content["a"]["w"], "name_of_mine")
    assert not content["a"]["w"].requires_grad


def test_values_nested_too_deep_are_refused(tmp_path):
    deep: list = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(CheckpointError, match="nests its values deeper than 64"):
        read_content(saved(tmp_path / "a.pth", deep))


def test_few_values_that_unfold_to_many_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "_MOST_VALUES", 10_000)
    many: list = [0] * 10
    for _ in range(30):
        many = [many] * 10
    with pytest.raises(CheckpointError, match="or holds more than 10,000"):
        read_content(saved(tmp_path / "a.pth", many))


def test_tuples_that_would_overflow_the_stack_are_refused(tmp_path):
    """As a key, a tuple inside a tuple and so on is hashed by recursion."""
    path = saved(tmp_path / "a.pth", {"a": torch.zeros(1)})
    nested = b"\x80\x02}N" + b"\x85" * 2_000_000 + b"Ns."
    with pytest.raises(CheckpointError, match="holds what no file of weights or tensors does"):
        read_content(repacked(path, zipfile.ZIP_DEFLATED, data_pkl=nested))


def test_many_small_tensors_are_no_such_tuples(tmp_path):
    content = {f"t{i}": torch.zeros(()) for i in range(3000)}
    assert len(read_content(saved(tmp_path / "a.pth", content))) == 3000


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "_ALWAYS_FINE", 2**20)
    path = saved(tmp_path / "a.pth", {"a": torch.zeros(2**19)})
    read_content(path)
    repacked(path, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"would unpack from .* which weights do not"):
        read_content(path)


@pytest.mark.parametrize("form", ["zip", "old"])
def test_bytes_that_are_not_in_the_file_are_not_made(tmp_path, monkeypatch, form):
    """A pickle may ask for as many zeros as it likes."""
    monkeypatch.setattr(torch, "load", lambda *args, **more: pytest.fail("was loaded"))
    path = saved(tmp_path / "a.pth", {"a": torch.zeros(1)})
    asks = b"c__builtin__\nbytearray\n\x8a\x05\0\xe4\x0b\x54\x02\x85R"
    pickled = b"\x80\x02}X\x01\0\0\0b" + asks + b"s."
    if form == "zip":
        repacked(path, data_pkl=pickled)
    else:
        path.write_bytes(pickle.dumps(1, protocol=2) + pickled)
    with pytest.raises(CheckpointError, match="holds what no file of weights or tensors does"):
        read_content(path)


class Split(torch.Tensor):
    pass


def test_tensors_of_a_class_of_their_own_are_refused(tmp_path):
    """DTensor is one that torch itself lets in; its arithmetic waits for other processes."""
    path = saved(tmp_path / "a.pth", {"a": torch.ones(2).as_subclass(Split)})
    with (
        torch.serialization.safe_globals([Split]),
        pytest.raises(CheckpointError, match="holds tensors that are Splits"),
    ):
        read_content(path)


def test_a_name_may_be_any_word(tmp_path):
    path = saved(tmp_path / "a.pth", {"bytearray": torch.zeros(1)})
    assert list(read_content(path)) == ["bytearray"]


def test_more_tensors_than_any_network_has_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "_MOST_TENSORS", 5)
    path = tmp_path / "a.safetensors"
    for count in (5, 6):
        safetensors.torch.save_file({f"t{i}": torch.zeros(1) for i in range(count)}, path)
        if count == 5:
            assert len(read_content(path)) == 5
    with pytest.raises(CheckpointError, match="holds 6 tensors, more than any network"):
        read_content(path)


def test_a_tensor_that_repeats_few_numbers_beyond_measure_is_refused(tmp_path):
    path = saved(tmp_path / "a.pth", {"a": torch.zeros(1).expand(10**9)})
    with pytest.raises(CheckpointError, match="would unpack from"):
        read_content(path)


@pytest.mark.parametrize("place", ["/dev/zero", "folder", "none", "x" * 300, "a\0b"])
def test_what_is_no_file_is_an_error_that_names_it(tmp_path, place):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r": (no such|is a folder or|cannot be read)"):
        read_content(tmp_path / place)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="a folder or a device"):
        read_content(tmp_path / "pipe")


def test_a_file_that_cannot_be_read_is_the_machine_s(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.pth", {"a": torch.zeros(1)})

    def broken(*args, **more):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "load", broken)
    with pytest.raises(CheckpointError, match=r"a\.pth: cannot be read \(Input/output error\)"):
        read_content(path)


def test_reading_warns_of_nothing(tmp_path):
    path = saved(tmp_path / "a.pth", {"a": torch.zeros(1)}, _use_new_zipfile_serialization=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_content(path)
