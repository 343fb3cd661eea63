"""The checksum inside a file sees everything that a file says, and nothing else."""

import copy
import hashlib
import math
import struct
import warnings
from collections import OrderedDict

import pytest
import torch

from sr_train.engine.checksum import checksum

CONTENT = {
    "step": 3,
    "lr": 0.5,
    "on": True,
    "none": None,
    "name": "x",
    "list": [1, 2],
    "tuple": (1, 2),
    "nested": {"a": {"b": "c"}, 5: 6},
    "w": torch.arange(6.0).reshape(2, 3),
    "h": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "bytes": torch.tensor([1, 2], dtype=torch.uint8),
}


def changed(**more):
    return {**copy.deepcopy(CONTENT), **more}


@pytest.mark.parametrize(
    "change",
    [
        {"step": 4},
        {"step": 3.0},
        {"step": "3"},
        {"on": 1},
        {"none": "None"},
        {"name": "y"},
        {"list": [2, 1]},
        {"list": (1, 2)},
        {"tuple": [1, 2]},
        {"lr": math.nextafter(0.5, 1)},
        {"nested": {"a": {"b": "d"}, 5: 6}},
        {"nested": {"a": {"b": "c"}, "5": 6}},
        {"w": torch.arange(6.0).reshape(3, 2)},
        {"w": torch.arange(6.0, dtype=torch.float64).reshape(2, 3)},
        {"w": torch.tensor([[0.0, 1, 2], [3, 4, 5 * (1 + 2**-23)]])},
        {"w": torch.tensor([[-0.0, 1, 2], [3, 4, 5]])},
        {"h": torch.ones(3, dtype=torch.float16)},
        {"empty": torch.zeros(4, 0)},
        {"more": None},
    ],
    ids=str,
)
def test_any_change_changes_it(change):
    assert checksum(changed(**change)) != checksum(CONTENT)


def test_a_name_that_is_gone_changes_it():
    left = [{k: v for k, v in CONTENT.items() if k != key} for key in CONTENT]
    assert len(set(map(checksum, [CONTENT, *left]))) == len(CONTENT) + 1


def test_every_bit_of_a_tensor_counts():
    whole = torch.arange(4.0)
    seen = {checksum(whole)}
    for byte in range(16):
        for bit in range(8):
            flipped = whole.clone()
            flipped.view(torch.uint8)[byte] ^= 1 << bit
            seen.add(checksum(flipped))
    assert len(seen) == 129


def test_order_and_layout_in_memory_do_not_count():
    w = torch.arange(24.0).reshape(1, 2, 3, 4)
    turned = w.contiguous(memory_format=torch.channels_last)
    assert turned.stride() != w.stride()
    backwards = OrderedDict(reversed(list(CONTENT.items())))
    assert checksum({**backwards, "w": turned}) == checksum({**CONTENT, "w": w})
    assert checksum(torch.nn.Parameter(w)) == checksum(w[:, :, :, :])


def test_what_it_is_of_stays_as_it_is():
    """Files that were written keep their checksum: each part by its length, then its bytes."""
    ones = hashlib.sha256(struct.pack("<f", 1.0)).digest()
    parts = [b"dict 2", b"str a", b"tensor torch.float32 1 " + ones, b"str b", b"list 4"]
    parts += [b"int 1", b"str x", b"NoneType None", b"float" + struct.pack("<d", 0.5)]
    data = b"".join(struct.pack("<Q", len(part)) + part for part in parts)
    found = checksum({"b": [1, "x", None, 0.5], "a": torch.ones(1)})
    assert found == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_many_bytes_are_read_by_threads_with_the_same_result(monkeypatch):
    content = {f"t{i}": [torch.full((100,), float(i)), {"x": torch.ones(i)}] for i in range(9)}
    quick = checksum(content)
    monkeypatch.setattr("sr_train.engine.checksum._MANY_BYTES", 0)
    assert checksum(content) == quick


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch gives them up
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


ODD = {
    "meta": lambda: torch.zeros(2, device="meta"),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "quantized": quantized,
    "huge": lambda: 10**5000,
    "no text": lambda: "\ud800",
    "object": object,
}


@pytest.mark.parametrize("kind", ODD)
def test_nothing_that_a_file_may_hold_breaks_it(kind):
    assert checksum({"a": ODD[kind]()}) != checksum({"a": 1})
