"""ClipDataset: clips, whole sequences, cache, crops that are alike, and bad data."""

import numpy as np
import pytest
import torch

from data.clips import ClipDataset
from data.loading.stream import TrainLoader
from sr_train.api.errors import DataError, Problems
from sr_train.io.images import write_image
from sr_train.ops.resize import imresize
from tests.closeness import assert_identical
from tests.data.conftest import noise, write_frames, write_tensor

MODALITIES = {"lq": "blur", "gt": "sharp", "spikes": "spike_vox"}


def of_gt(frames_dir, **changes):
    common = {"frames": 3, "lq_size": 8, "cache_gib": 0.01}
    return ClipDataset(2, gt=str(frames_dir), **{**common, **changes})


def of_spikes(root, **changes):
    common = {"frames": 3, "lq_size": 8, "cache_gib": 0.01}
    common |= {"root": str(root), "split": "train", "modalities": MODALITIES}
    return ClipDataset(2, **{**common, **changes})


def all_samples(clips, epochs=2):
    return [clips.sample(epoch, index) for epoch in range(epochs) for index in range(len(clips))]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert_identical(one, other)


def moments(sample, key="lq"):
    """The frames' places in their sequence, and the sequence's number."""
    moment = sample[key][:, 0, 0, 0].int()
    return (moment // 10).tolist(), int(moment[0] % 10)


# What a sample is.


def test_a_sample_tells_its_size(nested_dir):
    clips = of_spikes(nested_dir)
    assert clips.sample_bytes == sum(value.nbytes for value in clips.sample(0, 0).values())


def test_shapes_and_dtypes(nested_dir):
    sample = of_spikes(nested_dir).sample(0, 0)
    assert {key: (tuple(value.shape), value.dtype) for key, value in sample.items()} == {
        "lq": ((3, 3, 8, 8), torch.uint8),
        "gt": ((3, 3, 16, 16), torch.uint8),
        "spikes": ((3, 5, 8, 8), torch.float32),
    }


def test_clips_are_the_windows_of_each_sequence(frames_dir):
    clips = of_gt(frames_dir)
    assert len(clips) == 7 + 5
    assert [moments(clips.sample(0, i), "gt") for i in (0, 6, 7, 11)] == [
        ([0, 1, 2], 0),
        ([6, 7, 8], 0),
        ([0, 1, 2], 1),
        ([4, 5, 6], 1),
    ]
    assert len(of_gt(frames_dir, every=3)) == 3 + 2
    assert moments(of_gt(frames_dir, every=3).sample(0, 1), "gt")[0] == [3, 4, 5]


def test_clips_cross_no_gap(frames_dir):
    (frames_dir / "a" / "00000003.png").unlink()
    clips = of_gt(frames_dir, include=["a"])
    found = {tuple(moments(clips.sample(0, i), "gt")[0]) for i in range(len(clips))}
    assert found == {(0, 1, 2), (4, 5, 6), (5, 6, 7), (6, 7, 8)}
    assert "gaps in the numbering, which no clip crosses: 1" in str(clips.report())


def test_strides_and_directions(frames_dir):
    clips = of_gt(frames_dir, stride=[1, 3], reverse=True, include=["a"])
    assert len(clips) == 3
    seen = {tuple(moments(clips.sample(epoch, 1), "gt")[0]) for epoch in range(30)}
    assert seen == {(1, 2, 3), (3, 2, 1), (1, 4, 7), (7, 4, 1)}
    assert moments(of_gt(frames_dir, stride=2).sample(0, 0), "gt")[0] == [0, 2, 4]


def test_half_of_the_clips_run_backwards(frames_dir):
    clips = of_gt(frames_dir, reverse=True)
    first = [moments(sample, "gt")[0] for sample in all_samples(clips, epochs=20)]
    backwards = sum(places[0] > places[-1] for places in first)
    assert 0.4 < backwards / len(first) < 0.6


def test_all_modalities_and_frames_are_cropped_and_turned_alike(nested_dir):
    for sample in all_samples(of_spikes(nested_dir, reverse=True), epochs=8):
        lq, gt, spikes = sample["lq"].float(), sample["gt"], sample["spikes"]
        # The planes of rows and columns are those of all frames and modalities.
        assert torch.equal(lq[:, 1:], lq[:1, 1:].expand(3, -1, -1, -1))
        assert torch.equal(spikes[:, :3], lq)
        blocks = gt.reshape(3, 3, 8, 2, 8, 2)
        on_lq = blocks.amin(dim=(3, 5)).float()
        assert torch.equal(on_lq, lq)
        assert torch.equal(spikes[:, 3:], torch.cat([lq[:, :1] + 1, lq[:, :1] + 2], dim=1))


def test_crops_reach_everywhere_and_all_symmetries(nested_dir):
    clips = of_spikes(nested_dir, include=["one"], lq_size=20)
    lefts, turns = set(), set()
    for epoch in range(40):
        lq = clips.sample(epoch, 0)["lq"][0].int()
        rows, columns = lq[1], lq[2]
        lefts.add(int(columns.min()) // 2)
        turns.add(tuple(int(v) for v in (rows[0, 0], rows[0, -1], rows[-1, 0], columns[0, 0] > 10)))
    assert lefts == {0, 1, 2, 3, 4}
    assert len(turns) == 8
    plain = of_spikes(nested_dir, augment=False).sample(0, 0)["lq"]
    assert (plain[:, 1, 1:] > plain[:, 1, :-1]).all()
    assert (plain[:, 2, :, 1:] > plain[:, 2, :, :-1]).all()


def test_time_bins_run_backwards_with_the_clip(nested_dir):
    plain = of_spikes(nested_dir, reverse=True)
    turned = of_spikes(nested_dir, reverse=True, time_bins=["spikes"])
    kinds = set()
    for one, other in zip(all_samples(plain, 4), all_samples(turned, 4), strict=True):
        is_backwards = moments(one)[0][0] > moments(one)[0][-1]
        kinds.add(is_backwards)
        expected = one["spikes"].flip(1) if is_backwards else one["spikes"]
        assert torch.equal(other["spikes"], expected)
    assert kinds == {True, False}
    with pytest.raises(DataError, match="time_bins: no input 'spike'; did you mean 'spikes'"):
        of_spikes(nested_dir, time_bins=["spike"])


def test_a_made_lq_is_that_of_the_whole_frame(tmp_path):
    folder = tmp_path / "gt" / "a"
    folder.mkdir(parents=True)
    frames = [noise(41, 50, seed=t) for t in range(3)]
    for t, pixels in enumerate(frames):
        write_image(folder / f"{t}.png", pixels)
    whole = [imresize(pixels[:40], 1 / 2) for pixels in frames]
    for cache_gib in (0, 0.01):
        clips = of_gt(tmp_path / "gt", lq_size=20, augment=False, cache_gib=cache_gib)
        lq = clips.sample(0, 0)["lq"].numpy().transpose(0, 2, 3, 1)
        left = next(x for x in range(6) if np.array_equal(whole[0][:, x : x + 20], lq[0]))
        for t in range(3):
            np.testing.assert_array_equal(lq[t], whole[t][:, left : left + 20])
            np.testing.assert_array_equal(clips.whole(0).lq(t), whole[t])


def test_one_16_bit_frame_makes_all_samples_16_bit(frames_dir):
    deep = noise(40, 48, dtype=np.uint16)
    write_image(frames_dir / "a" / "00000001.png", deep)
    clips = of_gt(frames_dir, augment=False)
    assert clips.report().is_16_bit
    sample = clips.sample(0, 0)
    assert sample["gt"].dtype == sample["lq"].dtype == torch.uint16
    whole = clips.whole(0)
    np.testing.assert_array_equal(whole.gt(1), deep)
    assert int(whole.gt(2)[0, 0, 0]) == 20 * 257
    assert_same(all_samples(clips), all_samples(of_gt(frames_dir, augment=False, cache_gib=0)))


@pytest.mark.parametrize("dtype", ["float16", "int8", "int16", "int32", "uint8"])
def test_tensors_keep_their_dtype(nested_dir, dtype):
    for path in (nested_dir / "train").rglob("*.npy"):
        write_tensor(path.with_suffix(".pt"), np.load(path).astype(dtype))
        path.unlink()
    sample = of_spikes(nested_dir, augment=False).sample(0, 0)
    assert sample["spikes"].dtype == getattr(torch, dtype)
    assert torch.equal(sample["spikes"][:, 1].int(), sample["lq"][:, 1].int())


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("float64", "float32"),
        (">f4", "float32"),
        ("int64", "int32"),
        ("uint32", "int32"),
        ("uint64", "int32"),
        ("uint16", "uint16"),
        ("bool", "uint8"),
    ],
)
@pytest.mark.parametrize("cache", ["decoded", "encoded"])
def test_other_numbers_are_read_and_named(nested_dir, stored, read, cache):
    plain = of_spikes(nested_dir, augment=False).sample(0, 0)["spikes"]
    for path in (nested_dir / "train").rglob("*.npy"):
        np.save(path, np.load(path).astype(stored))
    clips = of_spikes(nested_dir, augment=False, cache=cache)
    spikes = clips.sample(0, 0)["spikes"]
    assert spikes.dtype == getattr(torch, read)
    expected = plain > 0 if stored == "bool" else plain
    assert torch.equal(spikes.float(), expected.float())
    name = np.dtype(stored).name
    text = f"input spikes: 5 channels of {read}" + (f" ({name} in the files)" * (name != read))
    assert text in str(clips.report()).splitlines()[3]


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (2**40, "int64", "holds int64 from 0 to 1099511627776, beyond int32"),
        (2**31, "uint32", "holds uint32 from 0 to 2147483648, beyond int32"),
        (float("nan"), "float32", "no finite numbers of float32"),
        (1e300, "float64", "no finite numbers of float32"),
        (float("inf"), "float16", "no finite numbers of float16"),
    ],
)
def test_values_that_cannot_be_read(nested_dir, value, dtype, words):
    for path in (nested_dir / "train" / "one").rglob("*.npy"):
        np.save(path, np.zeros((5, 20, 24), dtype))
    path = nested_dir / "train" / "one" / "spike_vox" / "00000002.npy"
    voxel = np.load(path)
    voxel[1, 2, 3] = value
    np.save(path, voxel)
    clips = of_spikes(nested_dir, include=["one"])
    with pytest.raises(DataError, match=words):
        clips.sample(0, 0)
    assert [str(path) in line for line in clips.verify()] == [True]


def test_further_inputs_keep_their_names(nested_dir):
    modalities = {**MODALITIES, "again": "sharp_small", "spikes": "spike_vox"}
    for name in ("one", "two"):
        write_frames(
            nested_dir / "train" / name / "sharp_small", 8 if name == "one" else 6, (20, 24)
        )
    clips = of_spikes(nested_dir, modalities=modalities)
    assert dict(clips.extra_channels) == {"again": 3, "spikes": 5}
    for sample in all_samples(clips):
        assert sample["again"].dtype == torch.uint8
        assert torch.equal(sample["again"][:, 1:].int() * 2, sample["lq"][:, 1:].int())
        assert torch.equal(sample["spikes"][:, :3].int(), sample["lq"].int())


# Purity.


@pytest.mark.parametrize(
    "change",
    [
        {"cache_gib": 0},
        {"cache": "encoded"},
        {"cache": "encoded", "cache_gib": 0},
        {"cache_gib": 10_000 / 2**30},
    ],
)
@pytest.mark.parametrize("make", ["gt", "spikes"])
def test_the_cache_changes_no_byte(frames_dir, nested_dir, make, change):
    def clips(**changes):
        common = {"reverse": True, "stride": [1, 2], "lq_size": 12}
        if make == "gt":
            return of_gt(frames_dir, **common, **changes)
        return of_spikes(nested_dir, **common, **changes)

    cached = clips()
    reference = all_samples(cached)
    cached.preload()
    assert_same(all_samples(cached), reference)
    assert_same(all_samples(clips(**change)), reference)


def test_seeds_and_epochs_change_samples(frames_dir):
    clips = of_gt(frames_dir)
    assert_same([clips.sample(3, 2)], [clips.sample(3, 2)])
    assert_same([clips.sample(3, 2)], [of_gt(frames_dir).sample(3, 2)])
    for other in (clips.sample(4, 2), of_gt(frames_dir, seed=1).sample(3, 2)):
        assert not torch.equal(clips.sample(3, 2)["gt"], other["gt"])


@pytest.mark.parametrize("cache", ["decoded", "encoded"])
def test_workers_change_nothing(nested_dir, cache):
    batches = []
    for num_workers in (0, 2):
        clips = of_spikes(nested_dir, reverse=True, cache=cache)
        stream = TrainLoader(clips, 2, num_workers=num_workers, seed=3)
        batches.append([next(stream) for _ in range(8)])
        stream.close()
    assert_same(*batches)


def test_in_ram_tells_whether_workers_pay(frames_dir):
    assert of_gt(frames_dir).in_ram
    assert not of_gt(frames_dir, cache="encoded").in_ram
    assert not of_gt(frames_dir, cache_gib=0).in_ram


def test_preloaded_frames_need_no_file(frames_dir):
    clips, steps = of_gt(frames_dir), []
    reference = all_samples(clips, 1)
    again = of_gt(frames_dir, cache="encoded")
    again.preload(lambda done, total: steps.append((done, total)))
    assert steps[-1] == (16, 16)
    for path in frames_dir.rglob("*.png"):
        path.unlink()
    assert_same(all_samples(again, 1), reference)


# Validation.


def test_whole_sequences(nested_dir):
    clips = ClipDataset(
        2,
        root=str(nested_dir),
        split="train",
        modalities=MODALITIES,
        cache_gib=0,
        ranges={"one": [2, 7]},
    )
    assert len(clips) == 2
    assert clips.names() == ["one", "two"]
    whole = clips.whole(0)
    assert (whole.name, len(whole), whole.frame_name(0)) == ("one", 5, "00000002")
    assert whole.lq(1).shape == (20, 24, 3)
    assert whole.gt(1).shape == (40, 48, 3)
    spikes = whole.extras(1)["spikes"]
    assert spikes.shape == (20, 24, 5)
    np.testing.assert_array_equal(spikes[..., :3], whole.lq(1))
    assert whole.lq(1)[0, 0, 0] == 30
    with pytest.raises(IndexError):
        whole.gt(5)
    with pytest.raises(DataError, match="training clips need frames and lq_size"):
        clips.sample(0, 0)


# Reports and bad data.


def test_report(nested_dir):
    text = str(of_spikes(nested_dir, frames=4, stride=2).report())
    assert "2 sequences" not in text
    assert "spikes: 1 sequences, 8 frames, 2 clips, x2, LQ from files, 8 bit" in text
    assert "sizes: 1 of 48x40; 8 to 8 frames in a segment" in text
    assert "in memory (decoded): 8 of 8 frames" in text
    assert "GiB are free" in text
    assert "input spikes: 5 channels of float32" in text
    assert "too short for clips that span 7 frames: 1\n    two: 6 frames" in text


def test_report_of_a_cache_that_is_too_small(frames_dir):
    record = 40 * 48 * 3 + 20 * 24 * 3
    report = of_gt(frames_dir, cache_gib=(3 * record + 2000) / 2**30).report()
    assert (report.cache.held, report.cache.records) == (3, 16)
    assert report.cache.wanted_bytes == 16 * record
    assert "3 of 16 frames" in str(report)
    assert "the others are decoded at every access" in str(report)


def test_all_too_short(frames_dir):
    with pytest.raises(DataError, match=r"all 2 sequences are too short for clips that span 17"):
        of_gt(frames_dir, frames=9, stride=2)


def test_bad_sequences_raise_or_are_left_out(nested_dir):
    (nested_dir / "train" / "two" / "blur" / "00000003.png").unlink()
    with pytest.raises(Problems, match="lq has 5 frames, gt has 6"):
        of_spikes(nested_dir)
    clips = of_spikes(nested_dir, on_bad="skip")
    assert clips.names() == ["one"]
    assert len(clips.problems()) == 1
    assert "left out: 1" in str(clips.report())
    with pytest.raises(Problems):
        of_spikes(nested_dir, on_bad="skip", include=["two"])


@pytest.mark.parametrize("cache", ["decoded", "encoded"])
def test_damage_behind_the_header(frames_dir, cache):
    path = frames_dir / "a" / "00000002.png"
    path.write_bytes(path.read_bytes()[:-20])
    clips = of_gt(frames_dir, cache=cache)
    assert clips.problems() == []
    (line,) = clips.verify()
    assert line.startswith(str(path))
    for access in (lambda: clips.sample(0, 0), lambda: clips.whole(0).gt(2)):
        with pytest.raises(DataError, match=str(path)):
            access()


@pytest.mark.parametrize("cache", ["decoded", "encoded"])
def test_files_changed_after_indexing(nested_dir, cache):
    clips = of_spikes(nested_dir, cache=cache)
    write_frames(nested_dir / "train" / "one" / "sharp", 1, (44, 48))
    with pytest.raises(DataError, match="changed since it was indexed"):
        clips.sample(0, 0)
    voxel = nested_dir / "train" / "one" / "spike_vox" / "00000005.npy"
    write_tensor(voxel, np.zeros((5, 24, 20), np.float32))
    with pytest.raises(DataError, match=r"found \(5, 24, 20\) float32, expected \(5, 20, 24\)"):
        clips.sample(0, 3)
    (nested_dir / "train" / "two" / "spike_vox" / "00000005.npy").unlink()
    with pytest.raises(DataError, match="No such file"):
        clips.sample(0, 9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0},
        {"stride": 0},
        {"stride": []},
        {"every": 0},
        {"lq_size": 0},
        {"on_bad": "ignore"},
        {"cache": "raw"},
        {"ranges": {"a": [1]}},
        {"ranges": {"a": [None, 3]}},
    ],
)
def test_wrong_arguments(frames_dir, wrong):
    with pytest.raises(DataError):
        of_gt(frames_dir, **wrong)
