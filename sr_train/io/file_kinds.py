"""What a file is that was expected to hold weights, by its content, and what to do about it."""

import re
from collections.abc import Sequence
from pathlib import Path

from sr_train.api.text import brief, first_few
from sr_train.io.torch_files import is_zip

LONGEST_HEADER = 100_000_000
"""Bytes of the longest header that the safetensors format allows."""

_ELSEWHERE = "convert it in the program that it comes from, or take the .pth or .safetensors file"

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is compressed by gzip; unpack it first"),
    (b"BZh", "is compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ\0", "is compressed by xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it and name the file of weights inside"),
    (b"Rar!", "is a RAR archive; unpack it and name the file of weights inside"),
    (b"7767517", f"is a network of ncnn (.param), without weights; {_ELSEWHERE}"),
    (b"\x47\x6b\x30\x01", f"holds weights of ncnn (.bin); {_ELSEWHERE}"),
    (b"GGUF", f"is a GGUF file; {_ELSEWHERE}"),
    (b"\x89HDF\r\n\x1a\n", f"is an HDF5 file, such as Keras writes; {_ELSEWHERE}"),
    (b"\x93NUMPY", "is one NumPy array, no state dict"),
    (b"\x89PNG", "is an image (PNG)"),
    (b"\xff\xd8\xff", "is an image (JPEG)"),
    (b"%PDF", "is a PDF document"),
    (b"\x7fELF", "is a program (ELF)"),
    (b"MZ", "is a program (EXE or DLL)"),
)

_ONNX = re.compile(rb"\x08[\x01-\x1f](\x12|\x1a|\x22|\x3a)")
"""An ONNX model: its IR version, then its producer, domain, doc string or graph."""

_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/.*?size (\d+)", re.DOTALL)
_MARKUP = re.compile(rb"<(!doctype html|html|head|body|script|!--)", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"


def is_safetensors(head: bytes) -> bool:
    """Tell a safetensors file, whole or cut off, by its first 9 bytes."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def is_torch(head: bytes) -> bool:
    """Tell what torch.save may have written: a zip archive, or pickles one after the other."""
    return is_zip(head) or head[:1] == b"\x80"


def told_kind(head: bytes, path: Path) -> str | None:
    """Return what a file is that holds no weights we read, and what to do; None: unknown.

    Args:
        head: its first bytes, at least 512 where it has them.
        path: for its suffix, where the content does not say.
    """
    text = head.removeprefix(_BOM).lstrip()
    return _told_stand_in(text) or _told_format(head, path) or _told_text(text)


def _told_stand_in(text: bytes) -> str | None:
    """Return what a text is that came in place of a file."""
    if _MARKUP.match(text):
        return (
            "is a web page (HTML), no weights: a download that wanted a login or a click, or the "
            "address of a page about the file; download the file itself"
        )
    pointer = _LFS.match(text)
    if pointer:
        return (
            f"is a Git LFS pointer to a file of {int(pointer[1]):,} bytes, not that file; run "
            "`git lfs pull` where it lies, or download it by its own link"
        )
    if b"/annex/objects/" in text:
        return "is a git-annex pointer, not the file it stands for; run `git annex get` there"
    if text.startswith((b"<?xml", b"<net", b"<Error")):
        if b"<net " in text:
            return f"is a network of OpenVINO (.xml), without weights; {_ELSEWHERE}"
        return "is an XML file, no weights: perhaps a server's refusal in place of a download"
    return None


def _told_format(head: bytes, path: Path) -> str | None:
    for beginning, told in _BEGINNINGS:
        if head.startswith(beginning):
            return told
    if head[257:262] == b"ustar":
        return (
            "is a tar archive; unpack it and name the file of weights inside (where torch wrote it "
            "in 2016: load it there and save it again)"
        )
    if head[4:8] == b"TFL3":
        return f"is a TensorFlow Lite model; {_ELSEWHERE}"
    if _ONNX.match(head) or path.suffix.lower() == ".onnx":
        return f"is an ONNX model; {_ELSEWHERE}"
    return None


def _told_text(text: bytes) -> str | None:
    try:
        words = text.decode()
    except UnicodeDecodeError as err:
        if err.start < len(text) - 3:  # not merely cut within a letter
            return None
        words = text[: err.start].decode()
    if not words.strip() or any(ord(letter) < 32 and letter not in "\t\n\r" for letter in words):
        return None
    return f"is a text file, no weights; it begins {brief(words.splitlines()[0], 60)!r}"


def told_archive(names: Sequence[str]) -> str | None:
    """Return what a zip archive of files with these names is; None: torch.save wrote it."""
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "is a TorchScript program, not a state dict; save the state dict in the program that "
            "made it: torch.save(net.state_dict(), FILE)"
        )
    if any(name.endswith("/data.pkl") for name in names):
        return None
    shown = first_few([brief(name, 40) for name in names], 4) or "nothing"
    return f"is a zip archive of {shown}; {_inside(names)}"


def _inside(names: Sequence[str]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy's arrays are not read, save a state dict by torch.save"
    return "unpack it and name the file of weights inside"
