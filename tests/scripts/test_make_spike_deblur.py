"""The set for spike deblurring: light, blur and spikes by hand, and what ClipDataset reads."""

import sys

import numpy as np
import pytest

from data.clips import ClipDataset
from scripts.make_spike_deblur import exposures, main
from sr_train.api.errors import DataError
from tests.data.conftest import write_frames

MODALITIES = {"lq": "blur", "gt": "sharp", "spikes": "spike_vox"}


class Clip:
    """Grey frames of one value each."""

    name = "clip"

    def __init__(self, *values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def gt(self, t):
        return np.full((4, 6, 3), self.values[t], np.uint8)


def made(clip, exposure=1.0, bins=4, spikes=40.0, gamma=1.0, charge=0.5):
    charges = np.full((4, 6), charge)
    return list(exposures(clip, exposure, bins, spikes, gamma, charges))


def test_what_stands_still_is_not_blurred():
    for gamma in (1.0, 2.2):
        for blur, voxel in made(Clip(120, 120, 120), gamma=gamma, exposure=3.0, spikes=400.0):
            assert (blur == 120).all()
            np.testing.assert_allclose(voxel, (120 / 255) ** gamma, atol=1 / 100)


def test_blur_is_the_mean_of_light_that_changes_linearly():
    # Frames 0, 200, 0: over half a frame each way the mean is 200 * (1 + 0.5) / 2.
    assert [int(blur[0, 0, 0]) for blur, _ in made(Clip(0, 200, 0))] == [25, 150, 25]
    # Over a whole frame each way 200 / 2; beyond the ends light stays.
    assert [int(b[0, 0, 0]) for b, _ in made(Clip(0, 200, 0), exposure=2.0)] == [50, 100, 50]
    # In linear light: sqrt of the mean of squares that change linearly.
    blur, _ = made(Clip(0, 200, 0), exposure=2.0, gamma=2.0)[1]
    assert int(blur[0, 0, 0]) == round(200 * 0.5**0.5)


def test_spikes_fire_whenever_the_threshold_is_reached():
    # White for 3 frames of 4 spikes each, from half a charge on: in quarters of a frame one each.
    for _, voxel in made(Clip(255, 255, 255), spikes=4.0):
        np.testing.assert_array_equal(voxel, 1)
    # A fifth of that light reaches it in every fifth quarter.
    voxels = np.concatenate([v for _, v in made(Clip(51, 51, 51, 51, 51), spikes=4.0)])
    fired = voxels[:, 0, 0].nonzero()[0]
    assert len(fired) == 4
    assert set(np.diff(fired)) == {5}
    # No spike is lost or counted twice from one frame to the next.
    voxels = np.concatenate([v for _, v in made(Clip(*range(0, 250, 25)), spikes=37.0, charge=0.3)])
    counts = voxels[:, 0, 0].astype(float) * 37 / 4
    light = (np.arange(0, 250, 25)[1:] + np.arange(0, 250, 25)[:-1]).sum() / 2 / 255
    ends = 0.5 * 225 / 255
    assert round(counts.sum()) == np.floor(0.3 + 37 * (light + ends)) - np.floor(0.3)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["make_spike_deblur", *map(str, words)])
    main()


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_a_set_that_clips_are_cut_from(tmp_path, monkeypatch, suffix):
    for name in ("a", "b"):
        write_frames(tmp_path / "sharp" / name, 5)
    words = [tmp_path / "sharp", tmp_path / "out", "--val", "b", "--suffix", suffix]
    run(monkeypatch, *words)
    common = {"root": str(tmp_path / "out"), "modalities": MODALITIES, "cache_gib": 0}
    clips = ClipDataset(1, split="train", frames=3, lq_size=16, time_bins=["spikes"], **common)
    assert clips.names() == ["a"]
    sample = clips.sample(0, 1)
    assert sample["spikes"].shape == (3, 5, 16, 16)
    assert 0 <= sample["spikes"].min() < sample["spikes"].max() <= 1.1
    assert ClipDataset(1, split="val", **common).names() == ["b"]
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    (tmp_path / "out").rename(tmp_path / "first")
    run(monkeypatch, *words)
    assert len(before) == 30
    for path, data in before.items():
        assert path.read_bytes() == data
    with pytest.raises(DataError, match="is there already"):
        run(monkeypatch, *words)


def test_an_unknown_name(tmp_path, monkeypatch):
    write_frames(tmp_path / "a", 2)
    with pytest.raises(DataError, match="--val: no sequence 'A'; did you mean 'a'"):
        run(monkeypatch, tmp_path, tmp_path / "out", "--val", "A")
