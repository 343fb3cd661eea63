"""What a file of ours says about itself: verified, and read as far as it can be."""

import json
import logging
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from sr_train.api.errors import CheckpointError
from sr_train.engine.model_card import ModelCard, read_card, sealed
from sr_train.engine.weights import read_weights, save_weights

CARD = ModelCard("archs.compact.SRVGGNetCompact", {"scale": 2}, 2, 7, "ema", {"psnr_y": 30.5})
TENSORS = {"w": torch.arange(3.0)}


def written(path: Path, drop: tuple[str, ...] = (), seal: bool = True, **change: str) -> Path:
    """Write a file whose metadata differs from ours."""
    metadata = {k: v for k, v in {**CARD.as_metadata(), **change}.items() if k not in drop}
    metadata = sealed(metadata, TENSORS) if seal else metadata
    path.write_bytes(safetensors.torch.save(TENSORS, metadata=metadata))
    return path


def test_a_card_comes_back(tmp_path):
    torch.manual_seed(0)
    net = nn.Conv2d(1, 2, 3)
    save_weights(tmp_path / "a.safetensors", net, CARD)
    found = read_weights(tmp_path / "a.safetensors")
    assert found.card == CARD
    assert all(torch.equal(found.tensors[name], value) for name, value in net.state_dict().items())


def test_a_score_may_be_infinite(tmp_path, caplog):
    path = written(tmp_path / "a.safetensors", metrics=json.dumps({"psnr": float("inf")}))
    assert read_weights(path).card.metrics == {"psnr": float("inf")}
    assert caplog.text == ""


def test_each_flipped_bit_is_seen(tmp_path):
    """In names, shapes, dtypes, metadata, numbers: 3 bits of every byte of the file."""
    path = written(tmp_path / "a.safetensors")
    data, quiet = path.read_bytes(), []
    for place in range(len(data)):
        for bit in (0, 3, 6):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                read_weights(path)
            except CheckpointError:
                continue
            quiet.append((place, bit))
    assert quiet == []


def test_a_flipped_weight_is_told_as_damage(tmp_path):
    path = written(tmp_path / "a.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: damaged, its tensors and metadata"):
        read_weights(path)


def test_the_order_of_the_header_does_not_matter(tmp_path):
    path = written(tmp_path / "a.safetensors")
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items(), reverse=True))
    other = json.dumps(dict(reversed(header.items())), indent=1).encode()
    path.write_bytes(len(other).to_bytes(8, "little") + other + data[8 + length :])
    assert read_weights(path).card == CARD


def test_a_file_without_a_checksum_is_read_and_called_unverified(tmp_path, caplog):
    path = written(tmp_path / "a.safetensors", drop=("layout",), seal=False)
    with caplog.at_level(logging.INFO):
        assert read_weights(path).card == CARD
    assert caplog.text.count("a.safetensors: unverified") == 1


def test_a_file_that_lost_its_checksum_is_damaged(tmp_path):
    path = written(tmp_path / "a.safetensors", seal=False)
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(path)


def test_a_file_of_another_program_has_no_card(tmp_path, caplog):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(TENSORS, path, metadata={"format": "pt", "checksum": "x"})
    with caplog.at_level(logging.INFO):
        assert read_weights(path).card is None
    assert caplog.text == ""


def test_newer_keys_are_left_alone(tmp_path, caplog):
    path = written(tmp_path / "a.safetensors", licence="MIT", tags='["x"]')
    assert read_weights(path).card == CARD
    assert caplog.text == ""


def test_a_newer_layout_is_told_with_its_version(tmp_path):
    path = written(tmp_path / "a.safetensors", layout="9", versions='{"sr_train": "7.1"}')
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    told = str(caught.value)
    assert "written by a newer sr_train (7.1), in layout 9; this one" in told
    assert "reads up to layout 2. Update sr_train" in told


BROKEN = {
    "architecture": ("", "\x1b]0;x\x07", "a b", "x." * 50_000, "a..b"),
    "arguments": ("", "{", "[]", "5", "null", "[" * 20_000, '{"a": ' * 20_000),
    "scale": ("", "0", "-1", "1.5", "9" * 5000, "x", "\u0662"),
    "step": ("", "-1", "1e9", "9" * 5000),
    "weights": ("", "EMA", "\x1b[2J"),
    "metrics": ("", "[]", "5", '{"a": "b"}', '{"a": null}'),
}
LEFT = {
    "architecture": {"architecture": ""},
    "arguments": {"architecture": "", "arguments": {}},
    "scale": {"scale": None},
    "step": {"step": 0},
    "weights": {"weights": "live"},
    "metrics": {"metrics": {}},
}


@pytest.mark.parametrize("key", BROKEN)
def test_what_is_missing_or_broken_is_told_and_the_rest_is_used(tmp_path, caplog, key):
    wanted = ModelCard(**{**vars(CARD), **LEFT[key]})
    assert read_weights(written(tmp_path / "a.safetensors", drop=(key,))).card == wanted
    assert f"a.safetensors: metadata left unread: {key} is missing" in caplog.text
    for value in BROKEN[key]:
        caplog.clear()
        path = written(tmp_path / "a.safetensors", **{key: value})
        assert read_weights(path).card == wanted, value[:40]
        assert f"metadata left unread: {key}=" in caplog.text
        assert len(caplog.text) < 500
        assert "\x1b" not in caplog.text


def test_nothing_that_is_left_out_stops_a_reading():
    metadata = {"producer": "sr_train"}
    assert read_card(metadata, {}, Path("a")) == ModelCard("", scale=None)
