"""Damage behind headers with on_bad=skip: who stands in, who is told, and what is scored."""

import errno
import logging
import os
import pickle
from collections import Counter

import av
import numpy as np
import pytest
import torch

from data.cache.filling import CacheFiller
from data.clips import ClipDataset
from data.images import ImageDataset
from data.index import frame_files
from data.index.damage import BadFileError, Damage, DamageLog, stand_ins
from data.loading.stream import TrainLoader
from sr_train.api.errors import DataError, Problems
from sr_train.io.images import read_image
from tests.data.conftest import fill, write_frames, write_nested
from tests.data.test_clips import MODALITIES, all_samples, assert_same, moments
from tests.videos import make_video, moving


def cut(path):
    """Damage a file behind its header."""
    path.write_bytes(path.read_bytes()[:-200])


def numbered(folder, count, **kinds):
    return fill(folder, [f"n{n:02}" for n in range(count)], **kinds)


def skipping(folder, **more):
    return ImageDataset(str(folder), 2, **{"lq_size": 8, "on_bad": "skip", **more})


def every_sample(images, epochs=3):
    return [images.sample(e, index) for e in range(epochs) for index in range(len(images))]


# Who stands in.


def test_stand_ins_are_drawn_by_numbers_alone_and_end_with_everyone():
    first = list(stand_ins(3, 5, 7, 20))
    assert first[0] == 7
    assert first == list(stand_ins(3, 5, 7, 20))
    assert set(first) == set(range(20))
    assert set(first[-19:]) == set(range(20)) - {7}
    others = [tuple(stand_ins(*at, 20))[1:5] for at in ((3, 6, 7), (3, 5, 8), (4, 5, 7))]
    assert len({*others, tuple(first[1:5])}) == 4


def test_no_neighbour_of_damage_is_seen_more_often():
    """Half of a set may be damaged in a row: the others stand in, each as often as the rest."""
    seen = Counter()
    for epoch in range(20):
        for index in range(100):
            seen[next(n for n in stand_ins(0, epoch, index, 100) if n >= 50)] += 1
    assert set(seen) == set(range(50, 100))
    assert max(seen.values()) < 2 * 2000 / 50


@pytest.mark.parametrize("kind", ["damaged", "gone", "changed", "pipe-like"])
def test_whole_images_stand_in_and_change_nothing_else(tmp_path, kind):
    folder = numbered(tmp_path, 6)
    reference = every_sample(skipping(folder, cache_gib=0))
    images, again = skipping(folder), skipping(folder, cache_gib=0)
    if kind == "damaged":
        cut(folder / "n03.png")
    elif kind == "changed":
        fill(folder, ["n03"], (44, 44))
    else:
        (folder / "n03.png").unlink()
        if kind == "pipe-like":
            (folder / "n03.png").mkdir()
    samples = every_sample(images)
    assert_same(samples, every_sample(again))
    assert_same(samples, every_sample(pickle.loads(pickle.dumps(again))))
    wholes = [read_image(folder / f"n{n:02}.png").pixels for n in (0, 1, 2, 4, 5)]
    for at, (old, new) in enumerate(zip(reference, samples, strict=True)):
        if at % 6 != 3:
            assert torch.equal(old["gt"], new["gt"])
            continue
        pixels = {tuple(p) for p in new["gt"].permute(1, 2, 0).reshape(-1, 3).tolist()}
        holders = [w for w in wholes if pixels <= {tuple(p) for p in w.reshape(-1, 3).tolist()}]
        assert len(holders) == 1
    ((path, why),) = images.newly_damaged()
    assert path == str(folder / "n03.png")
    assert why.startswith(path)
    assert images.newly_damaged() == []


@pytest.mark.parametrize("side", ["gt", "lq"])
def test_damage_on_either_side_of_a_pair(paired_dirs, side):
    gt, lq = paired_dirs
    cut({"gt": gt, "lq": lq}[side] / "q.png")
    for cache_gib in (0, "auto"):
        images = ImageDataset(str(gt), 2, str(lq), lq_size=8, on_bad="skip", cache_gib=cache_gib)
        for epoch in range(3):
            sample = images.sample(epoch, 1)
            halved = sample["gt"].numpy()[:, ::2, ::2]
            np.testing.assert_array_equal(halved, sample["lq"].numpy())
        assert [path for path, _ in images.newly_damaged()] == [
            str({"gt": gt, "lq": lq}[side] / "q.png")
        ]


def test_with_on_bad_error_it_ends_with_the_name(tmp_path):
    folder = numbered(tmp_path, 4)
    cut(folder / "n02.png")
    images = skipping(folder, on_bad="error")
    with pytest.raises(DataError, match=r"n02\.png: .*; on_bad=skip continues without such files"):
        images.sample(0, 2)
    fill(folder, ["n02"])
    assert images.sample(0, 2)["gt"].shape == (3, 16, 16)
    assert images.newly_damaged() == []


def test_what_is_the_fault_of_the_machine_is_not_skipped(tmp_path, monkeypatch):
    def fails(path):
        try:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    images = skipping(numbered(tmp_path, 3), cache_gib=0)
    monkeypatch.setattr(frame_files, "read_image", fails)
    with pytest.raises(DataError, match="Too many open files"):
        images.sample(0, 0)
    assert images.newly_damaged() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_of_damage_alone_ends_with_an_error(tmp_path, num_workers):
    folder = numbered(tmp_path, 5)
    for path in folder.iterdir():
        cut(path)
    stream = TrainLoader(skipping(folder), 2, num_workers=num_workers)
    with pytest.raises(DataError, match=r"nothing is left to train on, every file is damaged"):
        next(stream)


# Workers, ranks, positions, the cache.


def batches(stream, count):
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


@pytest.mark.parametrize("cache_gib", [0, 0.00005, "auto"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_nobody_has_to_ask_who_stands_in(tmp_path, num_workers, cache_gib):
    folder = numbered(tmp_path, 11)
    for number in (2, 3, 9):
        cut(folder / f"n{number:02}.png")
    whole = batches(TrainLoader(skipping(folder), 4, seed=9, num_workers=0, prefetch=0), 12)
    stream = TrainLoader(skipping(folder, cache_gib=cache_gib), 4, seed=9, num_workers=num_workers)
    assert_same(batches(stream, 5), whole[:5])
    resumed = TrainLoader(skipping(folder), 4, seed=9, num_workers=num_workers)
    resumed.seek(5)
    assert_same(batches(resumed, 7), whole[5:])
    shares = [
        batches(TrainLoader(skipping(folder), 2, seed=9, rank=rank, world_size=2), 6)
        for rank in range(2)
    ]
    for number, pair in enumerate(zip(*shares, strict=True)):
        both = torch.stack([each["gt"] for each in pair], dim=1).flatten(0, 1)
        assert torch.equal(both, whole[number]["gt"])


def test_filling_goes_on_past_damage(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = numbered(tmp_path, 9)
    for number in (0, 4):
        cut(folder / f"n{number:02}.png")
    images, steps = skipping(folder), []
    work = CacheFiller(images)
    work.start()
    work.join()
    assert "7 of 9 images in memory" in caplog.messages[-1]
    assert len(images.newly_damaged()) == 2
    again = skipping(folder)
    again.preload(lambda *done: steps.append(done))
    assert steps[-1][0] == steps[-1][1]
    with pytest.raises(DataError, match=str(folder)):
        skipping(folder, on_bad="error", augment=False, seed=1).preload()


# What the log says.


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_file_is_named_once(tmp_path, num_workers, caplog):
    folder = numbered(tmp_path, 8)
    for number in (2, 5):
        cut(folder / f"n{number:02}.png")
    batches(TrainLoader(skipping(folder), 4, num_workers=num_workers), 30)
    text = "\n".join(caplog.messages)
    for number in (2, 5):
        assert text.count(str(folder / f"n{number:02}.png")) == 1
    assert caplog.messages[-1] == "2 damaged files were met and left out (on_bad=skip)"


def test_a_long_list_is_capped_and_counted(caplog):
    log = DamageLog()
    for _ in range(2):
        log.add((f"{n}.png", f"{n}.png: damaged") for n in range(200_000))
    log.close()
    log.close()
    assert len(caplog.messages) == 22
    assert "check decode=true" in caplog.messages[-2]
    assert caplog.messages[-1].startswith("200000 damaged files")


def test_damage_remembers_a_frame_and_tells_a_file_once():
    damage, tried = Damage(is_skipped=True), []

    def make(number):
        with damage.watched(number):
            tried.append(number)
            if number < 3:
                raise BadFileError("a.mp4", f"a.mp4: frame {number} is damaged")

    for _ in range(2):
        damage.replace([0, 1, 2, 3], make)
    assert tried == [0, 1, 2, 3, 3]
    assert damage.take() == [("a.mp4", "a.mp4: frame 0 is damaged")]
    with pytest.raises(BadFileError, match="frame 1"):
        damage.check(range(1, 4))


# Clips.


def clips_of(folder, **changes):
    common = {"frames": 3, "lq_size": 8, "cache_gib": 0.01, "on_bad": "skip"}
    return ClipDataset(2, gt=str(folder), **{**common, **changes})


def test_clips_with_a_damaged_frame_are_replaced(frames_dir):
    reference = all_samples(clips_of(frames_dir))
    cut(frames_dir / "a" / "00000003.png")
    clips = clips_of(frames_dir)
    samples = all_samples(clips)
    for at, (old, new) in enumerate(zip(reference, samples, strict=True)):
        if at % 12 in (1, 2, 3):
            places, sequence = moments(new, "gt")
            assert 3 not in places or sequence == 1
            assert len(places) == 3
        else:
            assert_same([old], [new])
    assert [path for path, _ in clips.newly_damaged()] == [str(frames_dir / "a" / "00000003.png")]
    for change in ({"cache_gib": 0}, {"cache": "encoded"}, {"cache_gib": 10_000 / 2**30}):
        assert_same(all_samples(clips_of(frames_dir, **change)), samples)
    clips = clips_of(frames_dir, augment=True)
    clips.preload()
    assert clips.cached().startswith("15 of 16 frames in memory")
    assert_same(all_samples(clips), samples)


@pytest.mark.parametrize("modality", ["blur", "sharp", "spike_vox"])
@pytest.mark.parametrize("cache", ["decoded", "encoded"])
def test_any_modality_may_be_damaged(tmp_path, modality, cache):
    root = write_nested(tmp_path, {"one": 8, "two": 6})
    (path,) = (root / "train" / "one" / modality).glob("00000004.*")
    common = {"root": str(root), "split": "train", "modalities": MODALITIES, "on_bad": "skip"}
    clips = ClipDataset(2, **common, frames=3, lq_size=8, cache=cache, cache_gib=0.01)
    whole = all_samples(clips)
    path.unlink()
    clips, again = (clips_of_root(root, cache, gone=path) for _ in range(2))
    samples = all_samples(clips)
    assert_same(samples, all_samples(pickle.loads(pickle.dumps(again))))
    assert sum(torch.equal(a["gt"], b["gt"]) for a, b in zip(whole, samples, strict=True)) >= 14
    assert [found for found, _ in clips.newly_damaged()] == [str(path)]


def clips_of_root(root, cache, gone):
    """A set that was indexed while a file was still there."""
    common = {"root": str(root), "split": "train", "modalities": MODALITIES, "on_bad": "skip"}
    whole = next(gone.parent.iterdir())
    gone.write_bytes(whole.read_bytes())
    clips = ClipDataset(2, **common, frames=3, lq_size=8, cache=cache, cache_gib=0)
    gone.unlink()
    return clips


def test_damage_in_the_middle_of_a_video(tmp_path):
    """Its whole frames are used, and no way to them makes a difference."""
    (tmp_path / "gt").mkdir()
    for seed, name in enumerate("ab"):
        make_video(tmp_path / "gt" / f"{name}.mp4", moving(24, seed=seed), options={"g": "4"})
    path = tmp_path / "gt" / "a.mp4"
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0)]
    start, size = packets[9]
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    clips = clips_of(tmp_path / "gt", cache_gib=0)
    samples = all_samples(clips)
    assert [found for found, _ in clips.newly_damaged()] == [str(path)]
    for change in ({"cache": "encoded"}, {}):
        assert_same(all_samples(clips_of(tmp_path / "gt", **change)), samples)
    filled = clips_of(tmp_path / "gt", reverse=False)
    filled.preload()
    assert 24 <= int(filled.cached().split()[0]) < 48
    assert_same(all_samples(filled), samples)
    assert ClipDataset(2, gt=str(tmp_path / "gt"), on_bad="skip").names() == ["b"]


def test_clips_of_damage_alone(frames_dir):
    for path in frames_dir.rglob("*.png"):
        cut(path)
    with pytest.raises(DataError, match="nothing is left to train on"):
        clips_of(frames_dir).sample(0, 0)


# Validation.


def test_validation_scores_the_same_whole_images_each_time(tmp_path):
    folder = numbered(tmp_path, 5)
    for number in (0, 3):
        cut(folder / f"n{number:02}.png")
    images = ImageDataset(str(folder), 2, on_bad="skip", cache_gib=0)
    assert images.names() == ["n01", "n02", "n04"]
    assert [images.whole(index).name for index in range(len(images))] == images.names()
    assert len(images.problems()) == 2
    assert str(folder / "n03.png") in str(images.report())
    assert "left out: 2" in str(images.report())
    assert [line.split(":")[0] for line in images.verify()] == [
        str(folder / f"n{number:02}.png") for number in (0, 3)
    ]
    assert images.fingerprint() != ImageDataset(str(folder), 2).fingerprint()
    with pytest.raises(DataError, match="n00"):
        ImageDataset(str(folder), 2).whole(0)
    (folder / "n02.png").unlink()
    with pytest.raises(DataError, match="n02"):
        images.whole(1)


def test_validation_leaves_out_sequences_with_a_damaged_frame(frames_dir):
    cut(frames_dir / "a" / "00000005.png")
    clips = ClipDataset(2, gt=str(frames_dir), on_bad="skip")
    assert (clips.names(), len(clips)) == (["b/c"], 1)
    assert "00000005.png: " in str(clips.report())
    assert "; a is left out" in str(clips.report())
    assert len(clips.verify()) == 1
    cut(frames_dir / "b" / "c" / "00000000.png")
    with pytest.raises(Problems, match="2 problems"):
        ClipDataset(2, gt=str(frames_dir), on_bad="skip")


def test_validation_of_damage_alone(tmp_path):
    cut(write_frames(tmp_path, 1) / "00000000.png")
    with pytest.raises(Problems, match=r"00000000\.png"):
        ImageDataset(str(tmp_path), 2, on_bad="skip")
