"""A file in the place of weights is told by its content: what it is, and what to do."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from sr_train.api.errors import CheckpointError
from sr_train.io.weight_files import read_content

LFS = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 66958607
"""


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a.pth")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


KINDS = {
    "html": (b"\n <!DOCTYPE html><html>", "is a web page (HTML)", "download the file itself"),
    "html with a mark": (b"\xef\xbb\xbf<HTML>", "is a web page (HTML)"),
    "lfs": (LFS, "Git LFS pointer to a file of 66,958,607 bytes", "`git lfs pull`"),
    "annex": (b"/annex/objects/SHA256E-s3--ab.pth\n", "git-annex pointer", "`git annex get`"),
    "refusal": (b'<?xml version="1.0"?><Error>', "XML file", "server's refusal"),
    "words": (b"Entry not found", "is a text file", "it begins 'Entry not found'"),
    "json": (b'{"error": "gated"}', "is a text file", "gated"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "compressed by gzip", "unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(20), "7z archive", "unpack"),
    "rar": (b"Rar!\x1a\x07" + bytes(20), "RAR archive", "unpack"),
    "zip": (zipped(a__pth=b"x", b__txt=b"y"), "zip archive of a.pth, b.txt", "unpack"),
    "tar": (tarred(), "tar archive", "unpack"),
    "npz": (arrays(), "zip archive of a.npy", "torch.save"),
    "npy": (b"\x93NUMPY\x01\0" + bytes(20), "NumPy array"),
    "script": (
        zipped(**{"x/data__pkl": b"N.", "x/constants__pkl": b"N."}),
        "TorchScript program",
        "save the state dict",
    ),
    "onnx": (b"\x08\x08\x12\x07pytorch" + bytes(20), "ONNX model", "convert it"),
    "ncnn": (b"7767517\n75 83\n", "network of ncnn (.param)", "convert it"),
    "ncnn weights": (b"\x47\x6b\x30\x01" + bytes(20), "weights of ncnn (.bin)", "convert it"),
    "openvino": (b'<?xml version="1.0"?>\n<net name="x">', "OpenVINO (.xml)", "convert it"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow Lite", "convert it"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5 file", "convert it"),
    "gguf": (b"GGUF\x03" + bytes(20), "GGUF file", "convert it"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "image (PNG)"),
    "program": (b"\x7fELF" + bytes(20), "program"),
    "noise": (b"\xfe\x13\0\x07" * 9, "not a file of weights, or damaged"),
    "empty": (b"", "empty, 0 bytes"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_it_is_and_what_to_do(tmp_path, kind, suffix):
    data, *parts = KINDS[kind]
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_content(path)
    if kind == "noise" and suffix == "safetensors":
        parts = ["not a safetensors file, or damaged"]
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_an_onnx_model_of_any_beginning_is_told_by_its_name(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x0a\xff\xfe\0")
    with pytest.raises(CheckpointError, match="is an ONNX model"):
        read_content(path)


def test_the_words_of_a_file_are_few_and_steer_nothing(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"a" * 500 + b"\nmore")
    with pytest.raises(CheckpointError) as caught:
        read_content(path)
    assert len(str(caught.value)) < len(str(path)) + 150
    path.write_bytes(b"\x1b]0;title\x07")
    with pytest.raises(CheckpointError, match="or damaged"):
        read_content(path)
