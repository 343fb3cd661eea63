"""Raw spike streams: bits, rows and moments by hand, and voxels that ClipDataset reads."""

import sys

import numpy as np
import pytest

from data.clips import ClipDataset
from scripts.spikes_to_voxels import main, read_spikes, voxels
from sr_train.api.errors import DataError
from tests.data.conftest import write_frames


def test_bits_come_lowest_first_and_rows_from_the_bottom(tmp_path):
    """Two moments of 4x4: 16 bits are two bytes, whose first is the lower half."""
    (tmp_path / "s.dat").write_bytes(bytes([0b00000001, 0b10000000, 0b00110000, 0]))
    spikes = read_spikes(tmp_path / "s.dat", 4, 4)
    assert spikes.shape == (2, 4, 4)
    assert [tuple(place) for place in np.argwhere(spikes)] == [
        (0, 0, 3),
        (0, 3, 0),
        (1, 2, 0),
        (1, 2, 1),
    ]
    top_down = read_spikes(tmp_path / "s.dat", 4, 4, top_down=True)
    np.testing.assert_array_equal(top_down, spikes[:, ::-1])


def test_voxels_tell_how_often_of_how_often():
    spikes = np.zeros((10, 2, 3), np.uint8)
    spikes[:5, 0, 0] = 1
    spikes[::2, 1, 2] = 1
    (grid,) = voxels(spikes, 1, 2)
    assert (grid.shape, grid.dtype) == ((2, 2, 3), np.float16)
    assert grid[:, 0, 0].tolist() == [1, 0]
    np.testing.assert_allclose(grid[:, 1, 2], [0.6, 0.4], atol=1e-3)
    assert [g[0, 0, 0] for g in voxels(spikes, 2, 1)] == [1, 0]
    assert sum(len(g) for g in voxels(spikes, 3, 3)) == 9
    with pytest.raises(DataError, match="10 moments are too few for 3 frames of 4 parts"):
        list(voxels(spikes, 3, 4))


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["spikes_to_voxels", *map(str, words)])
    main()


def test_what_it_writes_is_a_further_input(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    write_frames(tmp_path / "gt" / "a", 4)
    for t in range(4):
        path = tmp_path / "raw" / "a" / f"{t:08}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.bytes(20 * 24 // 8 * 40))
    size = ("--height", 20, "--width", 24)
    run(monkeypatch, tmp_path / "raw", tmp_path / "spikes", *size)
    places = {"gt": str(tmp_path / "gt"), "extras": {"spikes": str(tmp_path / "spikes")}}
    clips = ClipDataset(2, **places, frames=3, lq_size=8)
    assert dict(clips.extra_channels) == {"spikes": 5}
    spikes = clips.sample(0, 0)["spikes"]
    assert 0.3 < float(spikes.float().mean()) < 0.7
    stream = tmp_path / "raw" / "a" / "00000000.dat"
    run(monkeypatch, stream, tmp_path / "cut", *size, "--frames", 4, "--bins", 10)
    names = sorted(path.name for path in (tmp_path / "cut" / "00000000").iterdir())
    assert names == [f"{t:08}.npy" for t in range(4)]
    with pytest.raises(DataError, match=r"2400 bytes are no whole number of moments of 7x24"):
        run(monkeypatch, stream, tmp_path / "x", "--height", 24, "--width", 7)


def test_data_sets_name_the_command(tmp_path):
    write_frames(tmp_path / "day" / "sharp", 3)
    (tmp_path / "day" / "spike").mkdir()
    (tmp_path / "day" / "spike" / "0.dat").write_bytes(b"x")
    common = {"root": str(tmp_path), "modalities": {"gt": "sharp", "spikes": "spike"}}
    with pytest.raises(DataError, match=r"\.dat: raw spike streams; python -m scripts\.spikes_to"):
        ClipDataset(2, **common)
    with pytest.raises(DataError, match=r"python -m scripts\.spikes_to_voxels"):
        ClipDataset(2, gt=str(tmp_path / "day" / "spike"))
