"""What tells the files of a set from all others: for ranks that compare, and for shared caches."""

import hashlib
from collections.abc import Iterable, Sequence

from data.index.folders import FoundFile
from sr_train.io.files import read_ends

_SAMPLES = 64
_BYTES = 4096


def fingerprint(names: Iterable[str], files: Sequence[FoundFile]) -> str:
    """Return 16 hex digits of a set, the same for copies of its files anywhere.

    They change with any name or size in bytes, and with the content of a few files, spread over
    the set, at their beginning and end. Times of change do not count: copies differ in them.

    Args:
        names: of the samples, below the roots.
        files: all that is used, in order.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(_encoded(f"{name}\n"))
    for file in files:
        digest.update(_encoded(f"{file.relative}{file.suffix}|{file.num_bytes}\n"))
    count = min(len(files), _SAMPLES)
    for place in range(count):
        ends = read_ends(files[place * len(files) // count].path, _BYTES)
        digest.update(b"unreadable" if ends is None else ends)
    return digest.hexdigest()[:16]


def cache_key(kind: str, files: Iterable[FoundFile], more: Iterable[object] = ()) -> str:
    """Return what tells the files of a set from all others on this machine.

    It changes with any path, size in bytes or time of change, so that no cache outlives a file
    that was written anew.

    Args:
        kind: what is made of them.
        files: all that is used, in order.
        more: what else decides what is made of them.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(_encoded(f"{file.path}|{file.num_bytes}|{file.mtime_ns}\n"))
    digest.update(_encoded("|".join(map(str, more))))
    return f"{kind} {digest.hexdigest()}"


def _encoded(text: str) -> bytes:
    # Names of files need not be UTF-8.
    return text.encode("utf-8", "surrogateescape")
