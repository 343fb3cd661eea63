"""Mutated and malicious .npy and .pt frames through the readers: data or a DataError, no code run.

Example: python -m scripts.chaos.fuzz_tensors --cases 160 --seed 1 --out chaos
"""

import io
import pickle
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.chaos import children
from scripts.chaos.fuzz_config import Call, touching
from scripts.chaos.mutation import mutated
from scripts.chaos.report import JUDGED, Report, arguments

HEADERS = {
    "huge": "'<f4', 'fortran_order': False, 'shape': (1000000, 100000, 1000)",
    "big": "'<f4', 'fortran_order': False, 'shape': (64, 8000, 8000)",
    "negative": "'<f4', 'fortran_order': False, 'shape': (-1, 8, 8)",
    "zero": "'<f4', 'fortran_order': False, 'shape': (0, 8, 8)",
    "zero of many": "'<f4', 'fortran_order': False, 'shape': (0, 1000000000000, 8)",
    "scalar": "'<f4', 'fortran_order': False, 'shape': ()",
    "text": "'<U5', 'fortran_order': False, 'shape': (1,)",
    "record": "[('a', '<f4')], 'fortran_order': False, 'shape': (1, 1, 1)",
    "void": "'|V1000000', 'fortran_order': False, 'shape': (1, 1, 1)",
    "code": "'<f4', 'fortran_order': False, 'shape': (__import__('os').system('touch x'),)",
    "long shape": "'<f4', 'fortran_order': False, 'shape': (" + "1," * 100 + ")",
    "bool": "'|b1', 'fortran_order': False, 'shape': (1, 4, 4)",
    "big endian": "'>f4', 'fortran_order': False, 'shape': (1, 4, 4)",
    "float64": "'<f8', 'fortran_order': True, 'shape': (1, 4, 4)",
    "dates": "'<M8[s]', 'fortran_order': False, 'shape': (1, 1, 1)",
}  # fmt: skip


def npy(header: str) -> bytes:
    """Return a .npy file with a header of one's own."""
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + b"\0" * 128


def written(write: Callable[[Any], Any]) -> bytes:
    """Return the bytes that a function writes into a file."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def saved(value: Any, *, legacy: bool = False) -> bytes:
    """Return a file of torch.save."""
    return written(lambda f: torch.save(value, f, _use_new_zipfile_serialization=not legacy))


def handmade(evil: Call) -> dict[str, bytes]:
    """Return good, odd and malicious files by name."""
    good = np.random.default_rng(0).normal(size=(3, 8, 10)).astype(np.float32)
    tensor = torch.from_numpy(good)
    files = {f"{name}.npy": npy("{'descr': " + header + ", }") for name, header in HEADERS.items()}
    files |= {
        "good.npy": written(lambda f: np.save(f, good)),
        "object.npy": written(lambda f: np.save(f, np.array([evil], object), allow_pickle=True)),
        "archive.npy": written(lambda f: np.savez(f, a=good)),
        "pickle.npy": pickle.dumps(evil),
        "deep.npy": npy("(" * 3000 + ")" * 3000),
        "none.npy": npy("None"),
        "empty.pt": b"",
        "text.pt": b"hello\nworld\n",
        "pickle.pt": pickle.dumps(evil),
        "old.pt": saved(tensor, legacy=True),
        "evil old.pt": saved(evil, legacy=True),
    }
    values = {
        "good": tensor, "dict": {"a": tensor}, "evil": evil, "list": [tensor], "none": None,
        "sparse": tensor.to_sparse(), "complex": tensor.to(torch.complex64),
        "bf16": tensor.bfloat16(), "half": tensor.half(), "meta": tensor.to("meta"),
        "quantized": torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        "expanded": torch.zeros(1).expand(1000, 10000, 1000),
        "float8": tensor.to(torch.float8_e4m3fn), "parameter": torch.nn.Parameter(tensor),
        "uint16": tensor.to(torch.int32).to(torch.uint16),
        "nested": torch.nested.nested_tensor([tensor, tensor]),
        "conjugate": tensor.to(torch.complex64).conj(), "strided": tensor.transpose(0, 2),
        "negated": torch.imag(torch.zeros(3, 4, 4, dtype=torch.complex64).conj()),
    }  # fmt: skip
    return files | {f"{name}.pt": saved(value) for name, value in values.items()}


def look(path: Path) -> None:
    """Read a file's header, then the file; print what came of it."""
    from data.index.frame_files import read_frame, read_frame_header
    from sr_train.api.errors import DataError

    told = []
    for read in (read_frame_header, read_frame):
        try:
            found = read(str(path))
            if read is read_frame:
                float(np.asarray(found).flat[0])
            told.append("read")
        except DataError:
            told.append("DataError")
    print("header, frame:", *told)


def main() -> int:
    """Read files of every kind; return 1 where one was not answered as it should be."""
    options = arguments(__doc__, cases=160)
    report = Report("fuzz_tensors", options, JUDGED)
    draw, canary = random.Random(options.seed), report.work / "canary"
    children.preload()
    cases = handmade(touching(canary))
    pool = [name for name in cases if name.startswith(("good", "old", "half", "dict"))]
    while len(cases) < options.cases:
        name = draw.choice(pool)
        cases[f"m{len(cases)} {name}"] = mutated(cases[name], draw, head=400)
    for name, content in cases.items():
        path = report.work / name
        path.write_bytes(content)
        canary.unlink(missing_ok=True)
        ended = children.run(lambda path=path: look(path), report.work, report.log, limit_s=40)
        report.count("read", ended.last_line() if ended.code == 0 else "nothing")
        report.judge(name, ended, codes=(0,), canary=canary)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
