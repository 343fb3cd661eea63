"""Fingerprints that ranks compare, keys of caches, and names that are no UTF-8."""

import os
import shutil

import numpy as np
import pytest
import torch

from data.clips import ClipDataset
from data.images import ImageDataset
from sr_train.api.errors import Problems
from tests.data.conftest import fill, write_frames, write_nested, write_tensor
from tests.data.test_clips import MODALITIES


def of_images(folder, **more):
    return ImageDataset(str(folder), 2, **more).fingerprint()


def test_copies_have_one_fingerprint_and_other_data_others(gt_dir, tmp_path):
    seen = {of_images(gt_dir)}
    shutil.copytree(gt_dir, tmp_path / "copy", copy_function=shutil.copyfile)
    assert {of_images(tmp_path / "copy")} == seen
    for number, change in enumerate(
        (
            lambda folder: (folder / "z.png").rename(folder / "y.png"),
            lambda folder: (folder / "z.png").rename(folder / "sub" / "z.png"),
            lambda folder: (folder / "z.png").unlink(),
            lambda folder: fill(folder, ["z"], (40, 55)),
            lambda folder: (folder / "z.png").write_bytes(flipped(folder / "z.png")),
        )
    ):
        changed = shutil.copytree(gt_dir, tmp_path / str(number))
        change(changed)
        seen.add(of_images(changed, on_bad="error"))
    assert len(seen) == 6


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    return bytes(data)


def test_both_sides_of_pairs_count(paired_dirs, tmp_path):
    gt, lq = paired_dirs
    before = ImageDataset(str(gt), 2, str(lq)).fingerprint()
    assert before != of_images(gt)
    (lq / "p.png").rename(lq / "px2.png")
    assert ImageDataset(str(gt), 2, str(lq)).fingerprint() != before


def test_clips_too(nested_dir, tmp_path):
    def of_clips(root, **more):
        return ClipDataset(2, root=str(root), split="train", modalities=MODALITIES, **more)

    seen = {of_clips(nested_dir).fingerprint()}
    copy = shutil.copytree(nested_dir, tmp_path / "copy", copy_function=shutil.copyfile)
    assert {of_clips(copy).fingerprint()} == seen
    seen.add(of_clips(copy, ranges={"one": [1, None]}).fingerprint())
    seen.add(of_clips(copy, include=["one"]).fingerprint())
    voxel = copy / "train" / "one" / "spike_vox" / "00000000.npy"
    write_tensor(voxel, np.load(voxel) + 1)
    seen.add(of_clips(copy).fingerprint())
    assert len(seen) == 4


def test_a_cache_does_not_outlive_a_file_written_anew(gt_dir):
    old = ImageDataset(str(gt_dir), 2, lq_size=8)
    old.preload()
    status = os.stat(gt_dir / "a1.png")
    fill(gt_dir, ["a1"])
    os.truncate(gt_dir / "a1.png", status.st_size)
    os.utime(gt_dir / "a1.png", ns=(1, status.st_mtime_ns + 1))
    assert ImageDataset(str(gt_dir), 2, lq_size=8).cached().startswith("0 of 7")
    assert old.cached().startswith("7 of 7")


ODD = [b"\xff\xfe", b"e\x1b[31mred", b"new\nline", b"tab\tx", b"=cmd()", b"caf\xe9", b"x" * 245]


def put(source, folder, name):
    os.makedirs(folder, exist_ok=True)
    shutil.copy(source, os.path.join(os.fsencode(folder), name))


@pytest.fixture
def odd_images(tmp_path):
    fill(tmp_path, ["plain"])
    for name in ODD:
        put(tmp_path / "plain.png", tmp_path / "gt", name + b".png")
    return tmp_path / "gt"


@pytest.mark.parametrize("cache_gib", [0, 0.01])
def test_names_that_are_no_utf_8_or_steer_a_terminal(odd_images, cache_gib):
    images = ImageDataset(str(odd_images), 2, lq_size=8, cache_gib=cache_gib)
    assert {images.sample(0, index)["gt"].shape for index in range(7)} == {(3, 16, 16)}
    assert images.verify() == images.warnings() == []
    assert len(images.fingerprint()) == 16
    names = images.names()
    assert {r"\xff\xfe", r"e\x1b[31mred", r"new\nline", r"tab\tx", r"caf\xe9"} < set(names)
    assert [images.whole(index).name for index in range(7)] == names
    assert ImageDataset(str(odd_images), 2, include=["new*"]).names() == [r"new\nline"]


def test_what_is_said_of_them_is_one_line_each(odd_images):
    for path in os.listdir(os.fsencode(odd_images)):
        with open(os.path.join(os.fsencode(odd_images), path), "wb") as file:
            file.write(b"no image")
    fill(odd_images, ["good"])
    with pytest.raises(Problems) as caught:
        ImageDataset(str(odd_images), 2)
    report = str(ImageDataset(str(odd_images), 2, on_bad="skip").report())
    for text in (*caught.value.problems, *report.splitlines()):
        assert text.isprintable()
    assert len(caught.value.problems) == 7
    assert report.count("not an image") == 7


@pytest.mark.parametrize("cache", ["decoded", "encoded"])
def test_odd_names_of_sequences_and_tensors(tmp_path, cache):
    write_nested(tmp_path / "plain", {"one": 3}, suffix=".pt")
    for name in ODD[:6]:
        for folder in ("sharp", "blur", "spike_vox"):
            for path in (tmp_path / "plain" / "train" / "one" / folder).iterdir():
                odd = path.stem[-1].encode() + name + path.suffix.encode()
                place = os.path.join(os.fsencode(tmp_path / "odd"), name, folder.encode())
                put(path, place, odd)
    clips = ClipDataset(
        2, root=str(tmp_path / "odd"), modalities=MODALITIES, frames=3, lq_size=8, cache=cache
    )
    assert len(clips) == 6
    assert {clips.sample(0, index)["spikes"].dtype for index in range(6)} == {torch.float32}
    assert all(line.isprintable() for line in str(clips.report()).splitlines())
    whole = clips.whole(0)
    assert whole.frame_name(0).isprintable()
    assert clips.verify() == []


def test_a_hundred_problems_are_capped_counted_and_advised(tmp_path):
    fill(tmp_path, [f"n{number}" for number in range(100)], (8, 8))
    with pytest.raises(Problems) as caught:
        ImageDataset(str(tmp_path), 2, lq_size=16)
    assert caught.value.advice is None
    fill(tmp_path, ["large"], (80, 80))
    with pytest.raises(Problems, match="100 problems") as caught:
        ImageDataset(str(tmp_path), 2, lq_size=16)
    lines = str(caught.value).splitlines()
    assert len(lines) == 23
    assert lines[-2:] == ["  ... and 80 more", "on_bad=skip continues without what cannot be used"]
    write_frames(tmp_path / "clips" / "a", 2, (8, 8))
    write_frames(tmp_path / "clips" / "b", 2, (40, 40))
    with pytest.raises(Problems, match="on_bad=skip continues"):
        ClipDataset(2, gt=str(tmp_path / "clips"), lq_size=16, frames=2)
