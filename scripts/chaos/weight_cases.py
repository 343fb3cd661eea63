"""Files of weights that are malicious, foreign, or not what they say."""

import builtins
import io
import json
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from scripts.chaos.fuzz_config import Call
from scripts.chaos.fuzz_tensors import saved, written

COMPACT = "archs.compact.SRVGGNetCompact"
CHECKSUM = "sr_train_checksum"
"""The key of the checksum in the metadata of our .safetensors files."""


def malicious(weights: dict[str, Tensor], canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield pickles of every format that would make a file."""
    touch = f"touch {canary}"
    calls = {
        "system": Call(os.system, touch),
        "eval": Call(builtins.eval, f"__import__('os').system('{touch}')"),
        "exec": Call(builtins.exec, f"import os; os.system('{touch}')"),
        "popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "getattr": Call(builtins.getattr, "x", "upper"),
        "load": Call(torch.load, "/nonexistent"),
        "open": Call(builtins.open, str(canary), "w"),
    }
    for name, call in calls.items():
        wrapped = {
            "bare": call, "inside": {"params": {**weights, "x": call}},
            "beside": {"params": weights, "epoch": call}, "first": OrderedDict([("a", call)]),
        }  # fmt: skip
        for how, value in wrapped.items():
            yield f"{name} {how}.pth", saved(value)
            yield f"{name} {how} old.pth", saved(value, legacy=True)
        for protocol in (0, 2, 4, 5):
            yield f"{name} pickle {protocol}.pth", pickle.dumps(call, protocol=protocol)
        yield f"{name}.safetensors", saved(call)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:  # the oldest format of all
        for part in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(calls["system"])
            about = tarfile.TarInfo(part)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    yield "tar.pth", buffer.getvalue()


def archives(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield other archives: TorchScript, NumPy, a path that leaves the folder, a bomb."""
    script = torch.jit.script(torch.nn.Linear(2, 2))
    yield "script.pth", written(lambda f: torch.jit.save(script, f))
    yield "array.pth", written(lambda f: np.save(f, np.zeros(3)))
    yield "arrays.pth", written(lambda f: np.savez(f, a=np.zeros(3)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"../../../../../../../..{canary}", "x")
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    yield "outside.pth", buffer.getvalue()
    source, bomb = (
        zipfile.ZipFile(io.BytesIO(saved({"params": {"a": torch.zeros(8)}}))),
        io.BytesIO(),
    )
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for about in source.infolist():
            if not about.filename.endswith("data/0"):
                archive.writestr(about, source.read(about))
                continue
            with archive.open(zipfile.ZipInfo(about.filename), "w", force_zip64=True) as part:
                part._compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
                part._zinfo.compress_type = zipfile.ZIP_DEFLATED
                for _ in range(6 * 64):
                    part.write(b"\0" * (1 << 24))
    yield "bomb of 6 GiB.pth", bomb.getvalue()


def odd_values(weights: dict[str, Tensor]) -> Iterator[tuple[str, bytes]]:
    """Yield data that are not weights of this network, or not weights at all."""

    def each(change: Any) -> dict[str, Any]:
        return {name: change(value) for name, value in weights.items()}

    values = {
        "none": None, "int": 5, "text": "x", "list": [1, 2], "empty": {}, "tensor": torch.zeros(3),
        "nested empty": {"params": {}}, "params list": {"params": [1]},
        "params none": {"params": None, "a": torch.zeros(1)}, "int keys": {1: torch.zeros(2)},
        "none key": {None: torch.zeros(2)}, "prefix alone": {"module.": torch.zeros(2)},
        "prefixes": {"module." * 500 + "x": torch.zeros(2)}, "pair key": {("a", 1): torch.zeros(2)},
        "no tensors": {"a": 1, "b": "c"}, "sparse": each(Tensor.to_sparse),
        "quantized": each(lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8)),
        "complex": each(lambda v: v.to(torch.complex64)), "bool": each(lambda v: v > 0),
        "int64": each(Tensor.long), "double": each(Tensor.double), "bf16": each(Tensor.bfloat16),
        "float8": each(lambda v: v.to(torch.float8_e4m3fn)), "meta": each(lambda v: v.to("meta")),
        "nan": each(lambda v: v * float("nan")), "inf": each(lambda v: v + float("inf")),
        "huge": each(lambda v: v * 1e30), "scalars": each(lambda v: torch.tensor(1.0)),
        "expanded": each(lambda v: torch.zeros(1).expand(10**9)),
        "parameters": each(torch.nn.Parameter),
        "deep": {"state_dict": {"model": {"params": weights}}},
        "good": weights,
    }  # fmt: skip
    yield from ((f"data {name}.pth", saved(value)) for name, value in values.items())


def odd_states(state: dict[str, Any], canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield training states with a part missing or of the wrong kind, their checksum as it should.

    With the checksum of the whole state they would be refused before anybody looked at a part.
    """
    wrong = {"none": None, "int": 7, "text": "\x1b[31mx", "list": [1], "dict": {}}
    for key in sorted(state):
        for label, value in wrong.items():
            yield f"state {key} {label}.pt", sealed_state({**state, key: value}, key)
        gone = {k: v for k, v in state.items() if k != key}
        yield f"state {key} gone.pt", sealed_state(gone, key)
    touch, card = {"command": f"touch {canary}"}, state["card"]
    cards = {
        "system": {"architecture": "os.system", "arguments": touch, "scale": 2},
        "walk": {"architecture": "sr_train.cli.entry.os.system", "arguments": touch, "scale": 2},
        "more": {**card, "x": 1},
        "arguments list": {**card, "arguments": [1]},
        "arguments text": {**card, "arguments": "x"},
        "scale text": {**card, "scale": "x"},
        "architecture none": {**card, "architecture": None},
    }
    for name, changed in cards.items():
        yield f"state card {name}.pt", sealed_state({**state, "card": changed})


def sealed_state(state: dict[str, Any], changed: str = "") -> bytes:
    """Return the file of a training state with a checksum of its own, unless that was changed."""
    from sr_train.engine.checksum import checksum

    if changed != "checksum":
        content = {key: value for key, value in state.items() if key != "checksum"}
        state = {**content, "checksum": checksum(content)}
    return saved(state)


def without_checksums(
    state: bytes, weights: dict[str, Tensor], about: dict[str, str]
) -> dict[str, bytes]:
    """Return a state and weights as they were before files of ours carried a checksum."""
    loaded = torch.load(io.BytesIO(state), weights_only=True)
    loaded = {k: v for k, v in loaded.items() if k != "checksum"} | {"format": 2}
    told = {k: v for k, v in about.items() if k not in (CHECKSUM, "layout")}
    return {
        "older.pt": saved(loaded),
        "older.safetensors": safetensors.torch.save(weights, metadata=told),
    }


def table(header: Any, body: bytes = b"\0" * 64) -> bytes:
    """Return a .safetensors file with a header of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def odd_tables() -> Iterator[tuple[str, bytes]]:
    """Yield .safetensors files whose headers are wrong."""

    def one(**change: Any) -> dict[str, Any]:
        return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}}

    meta = {
        "producer": "sr_train", "architecture": COMPACT, "scale": "2", "step": "1",
        "weights": "ema", "metrics": "{}", "arguments": "[" * 20000 + "]" * 20000,
    }  # fmt: skip
    files = {
        "short": b"\1\2", "length 0": struct.pack("<Q", 0),
        "length huge": struct.pack("<Q", 2**63) + b"{}",
        "length beyond": struct.pack("<Q", 10**9) + b"{}", "text": table(b"hello world"),
        "list": table([1]), "null": table(None), "not utf-8": table(b"\xff\xfe{}"),
        "nothing": table({}, b""), "negative": table(one(data_offsets=[-8, 0])),
        "beyond": table(one(shape=[10**9], data_offsets=[0, 4 * 10**9])),
        "overlapping": table({**one(), "b": one(data_offsets=[4, 12])["a"]}),
        "dtype": table(one(dtype="F3")), "shape huge": table(one(shape=[2**62, 2**62])),
        "shape zero": table(one(shape=[0, 2**62], data_offsets=[0, 0]), b""),
        "backwards": table(one(data_offsets=[8, 0])), "more behind": table(one()),
        "metadata int": table({**one(), "__metadata__": {"producer": 5}}, b"\0" * 8),
        "deep": table(b'{"a":' * 20000 + b"1" + b"}" * 20000),
        "deep arguments": table({**one(), "__metadata__": meta}, b"\0" * 8),
        "float8": table(one(dtype="F8_E4M3", shape=[8]), b"\0" * 8),
        "bool": table(one(dtype="BOOL", shape=[8]), b"\7" * 8),
        "twice": table(b"{" + b",".join([json.dumps(one()).encode()[1:-1]] * 2) + b"}", b"\0" * 8),
    }  # fmt: skip
    yield from ((f"table {name}.safetensors", content) for name, content in files.items())


ARCHITECTURES = [
    "os.system", "builtins.eval", "sr_train.cli.entry.os.system", "sr_train.cli.entry.main",
    "sr_train.__main__.x", "archs.compact", "archs", "archs.", f"{COMPACT}.forward",
    "torch.nn.Identity", "torch.nn.Linear", "torch.nn.Module", "torch.nn.Sequential",
    "torch.nn.LSTM", "torch.nn.functional.torch.jit.ScriptModule",
    "torch.nn.functional.torch.nn.Conv2d", "losses.lpips.LPIPSLoss",
    "losses.perceptual.PerceptualLoss", "archs.temporal.TemporalWindow",
    "archs.basicvsr.BasicVSR", "archs.rrdb.RRDBNet", "archs.swinir.SwinIR",
    "archs.patchgan.PatchGANDiscriminator", "data.images.ImageDataset", "\u00e9", "x" * 100_000,
    "archs.compact.\x00",
]  # fmt: skip


def odd_cards(
    tensors: dict[str, Tensor], meta: dict[str, str], canary: Path
) -> Iterator[tuple[str, bytes]]:
    """Yield our own files with metadata that are newer, lacking, broken or malicious.

    Their checksums are those of what they hold, unless these are what is broken.
    """
    from sr_train.engine.model_card import sealed

    def sealed_card(weights: dict[str, Tensor], about: dict[str, str]) -> bytes:
        told = {key: value for key, value in about.items() if key != CHECKSUM}
        return safetensors.torch.save(weights, metadata=sealed(told, weights))

    def card(**change: str | None) -> bytes:
        kept = {k: v for k, v in {**meta, **change}.items() if v is not None}
        if CHECKSUM in change:
            return safetensors.torch.save(tensors, metadata=kept)
        return sealed_card(tensors, kept)

    for key in meta:
        yield f"card no {key}", card(**{key: None})
        yield f"card empty {key}", card(**{key: ""})
        yield f"card odd {key}", card(**{key: "\x1b]0;x\x07 '\"\n{"})
    for number, name in enumerate(ARCHITECTURES):
        yield f"card architecture {number}", card(architecture=name)
    for number, value in enumerate(odd_arguments(json.loads(meta["arguments"]), canary)):
        yield f"card arguments {number}", card(arguments=json.dumps(value))
    raw = ("[]", "5", "null", '"x"', "{", "NaN", '{"num_feat": NaN}', '{"num_feat": Infinity}')
    values = {
        "arguments": raw,
        "scale": ("0", "-1", "x", "1.5", "1000000", "9" * 5000, "", "4"),
        "step": ("-1", "x", "9" * 5000, "1e9"),
        "metrics": ("{}", "[]", "5", "x", '{"a": "b"}'),
    }
    for key, texts in values.items():
        for number, text in enumerate(texts):
            yield f"card text of {key} {number}", card(**{key: text})
    for name, change in {
        "nan": lambda v: v * float("nan"), "inf": lambda v: v + float("inf"), "int": Tensor.long,
        "half": Tensor.half, "huge": lambda v: v * 1e30, "bool": lambda v: v > 0,
    }.items():  # fmt: skip
        changed = {key: change(value) for key, value in tensors.items()}
        yield f"card weights {name}", sealed_card(changed, meta)


def odd_arguments(good: dict[str, Any], canary: Path) -> list[dict[str, Any]]:
    """Return constructor arguments that do not fit, ask for too much, or call something."""
    call = {"_target_": "os.system", "command": f"touch {canary}"}
    nest: dict[str, Any] = {"_target_": "torch.nn.Identity"}
    for _ in range(400):
        nest = {"_target_": "archs.temporal.TemporalWindow", "frames": 3, "net": nest}
    changes = [
        {"command": f"touch {canary}"}, {"activation": "os.system"}, {"activation": call},
        {"scale": call}, {"scale": [call]}, {"scale": 10**6}, {"scale": 0}, {"scale": -2},
        {"self": 1}, {"": 1}, {"num_conv": 10**7}, nest, {"_target_": COMPACT}, {},
    ]  # fmt: skip
    sizes = (10**9, 40000, 10**30, -1, 0, "x", None, 1.5, [1], True)
    return [{}, *({**good, **change} for change in [*changes, *({"num_feat": s} for s in sizes)])]


def handmade(state: bytes, best: Path, canary: Path) -> dict[str, bytes]:
    """Return every file that is no mutation.

    Args:
        state: a training state of the compact network.
        best: weights of it, with metadata.
        canary: what code would make.
    """
    loaded = torch.load(io.BytesIO(state), weights_only=True)
    with safetensors.safe_open(best, framework="pt") as file:
        meta = dict(file.metadata())
    tensors = safetensors.torch.load_file(best)
    cards = ((f"{name}.safetensors", data) for name, data in odd_cards(tensors, meta, canary))
    return {
        **dict(malicious(loaded["net_g"], canary)), **dict(archives(canary)),
        **dict(odd_values(loaded["net_g"])), **dict(odd_states(loaded, canary)),
        **dict(odd_tables()), **dict(cards),
    }  # fmt: skip
