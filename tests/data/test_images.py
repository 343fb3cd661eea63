import os
import pickle

import numpy as np
import pytest
import torch

from data.images import ImageDataset
from sr_train.api.errors import DataError, Problems
from sr_train.io.images import read_image, to_rgb, write_image
from sr_train.ops.resize import imresize
from tests.data.conftest import fill, noise


def crop(sample):
    return sample["lq"].permute(1, 2, 0).numpy(), sample["gt"].permute(1, 2, 0).numpy()


def symmetries(image):
    for turned in (image, image.swapaxes(0, 1)):
        for rows in (1, -1):
            for columns in (1, -1):
                yield turned[::rows, ::columns]


def find(part, whole):
    """Return (symmetry, top, left) of the one place where the crop comes from."""
    side = part.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(whole, (side, side), axis=(0, 1))
    places = []
    for number, turned in enumerate(symmetries(part)):
        match = (windows == turned.transpose(2, 0, 1)).all(axis=(2, 3, 4))
        places += [(number, int(top), int(left)) for top, left in np.argwhere(match)]
    assert len(places) == 1
    return places[0]


@pytest.mark.parametrize("cache_gib", ["auto", 0])
def test_paired_crops_are_aligned_in_every_symmetry(paired_dirs, cache_gib):
    gt, lq = paired_dirs
    images = ImageDataset(str(gt), 2, str(lq), lq_size=8, cache_gib=cache_gib)
    seen = set()
    for epoch in range(60 if cache_gib else 5):
        for index, name in enumerate("pqr"):
            lq_crop, gt_crop = crop(images.sample(epoch, index))
            np.testing.assert_array_equal(lq_crop.repeat(2, axis=0).repeat(2, axis=1), gt_crop)
            if cache_gib:
                seen.add(find(lq_crop, read_image(lq / f"{name}.png").pixels))
    if cache_gib:
        assert {place[0] for place in seen} == set(range(8))
        # 30x41 pixels: crops of 8 reach every corner region, and no place is favoured.
        assert {min(place[1] for place in seen), max(place[1] for place in seen)} == {0, 22}
        assert {min(place[2] for place in seen), max(place[2] for place in seen)} <= {0, 1, 32, 33}
        assert len(seen) > 120


def test_no_augmentation_keeps_images_upright(paired_dirs):
    gt, lq = paired_dirs
    images = ImageDataset(str(gt), 2, str(lq), lq_size=8, augment=False)
    for epoch in range(10):
        lq_crop, _ = crop(images.sample(epoch, 1))
        assert find(lq_crop, read_image(lq / "q.png").pixels)[0] == 0


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_made_lq_is_the_crop_of_the_whole_resized_image(tmp_path, scale, channels):
    folder = fill(tmp_path, ["x", "y"], (67, 83), channels=channels)
    cached = ImageDataset(str(folder), scale, lq_size=7, augment=False)
    decoded = ImageDataset(str(folder), scale, lq_size=7, augment=False, cache_gib=0)
    for index, name in enumerate("xy"):
        gt = to_rgb(read_image(folder / f"{name}.png").pixels)
        gt = gt[: 67 // scale * scale, : 83 // scale * scale]
        whole = imresize(gt, 1 / scale)
        for epoch in range(6):
            sample = cached.sample(epoch, index)
            for key, value in decoded.sample(epoch, index).items():
                assert torch.equal(value, sample[key])
            lq_crop, gt_crop = crop(sample)
            _, top, left = find(gt_crop, gt)
            assert top % scale == 0
            assert left % scale == 0
            top, left = top // scale, left // scale
            np.testing.assert_array_equal(lq_crop, whole[top : top + 7, left : left + 7])


def test_sample_is_a_pure_function(gt_dir):
    images = ImageDataset(str(gt_dir), 2, lq_size=8)
    again = pickle.loads(pickle.dumps(images))
    order = [(epoch, index) for epoch in range(3) for index in range(7)]
    first = {at: images.sample(*at) for at in order}
    for at in reversed(order):
        for other in (images, again):
            assert all(torch.equal(first[at][key], v) for key, v in other.sample(*at).items())
    batch = images.batch(order)
    assert all(torch.equal(batch["gt"][n], first[at]["gt"]) for n, at in enumerate(order))
    other_seed = ImageDataset(str(gt_dir), 2, lq_size=8, seed=1)
    assert not torch.equal(other_seed.batch(order)["gt"], batch["gt"])
    assert len({first[epoch, 0]["gt"].numpy().tobytes() for epoch in range(3)}) == 3


def test_whole_is_cropped_to_the_scale(tmp_path):
    folder = fill(tmp_path, ["x"], (41, 50))
    whole = ImageDataset(str(folder), 3).whole(0)
    stored = read_image(folder / "x.png").pixels[:39, :48]
    assert whole.name == "x"
    np.testing.assert_array_equal(whole.gt, stored)
    np.testing.assert_array_equal(whole.lq, imresize(stored, 1 / 3))


@pytest.mark.parametrize("cache_gib", [0, "auto"])
def test_mixed_depths_grey_and_alpha(tmp_path, cache_gib):
    deep, grey = noise(24, 24, 3, np.uint16), noise(24, 24, 1)
    write_image(tmp_path / "deep.png", deep)
    write_image(tmp_path / "grey.png", grey)
    write_image(tmp_path / "with_alpha.png", noise(24, 24, 3), noise(24, 24, 1)[..., 0])
    images = ImageDataset(str(tmp_path), 2, lq_size=12, augment=False, cache_gib=cache_gib)
    report = images.report()
    assert report.is_16_bit
    assert report.with_alpha == 1
    sample = images.sample(0, 1)
    assert sample["gt"].dtype == sample["lq"].dtype == torch.uint16
    np.testing.assert_array_equal(crop(sample)[1], grey.repeat(3, 2).astype(np.uint16) * 257)
    expected = imresize(grey, 1 / 2).repeat(3, 2).astype(np.uint16) * 257
    np.testing.assert_array_equal(crop(sample)[0], expected)
    np.testing.assert_array_equal(crop(images.sample(0, 0))[1], deep)
    np.testing.assert_array_equal(images.whole(0).gt, deep)


def test_bad_images_raise_or_are_left_out(tmp_path):
    fill(tmp_path, ["good", "small"], (40, 40))
    fill(tmp_path, ["small"], (10, 40))
    (tmp_path / "text.png").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(Problems) as caught:
        ImageDataset(str(tmp_path), 2, lq_size=16)
    assert len(caught.value.problems) == 2
    images = ImageDataset(str(tmp_path), 2, lq_size=16, on_bad="skip")
    assert images.names() == ["good"]
    assert images.problems() == caught.value.problems
    report = images.report()
    assert [os.path.basename(path) for path, _ in report.left_out] == ["small.png", "text.png"]
    text = str(report)
    assert "left out: 2" in text
    assert str(tmp_path / "text.png") in text
    assert "1 .txt" in text


def test_nothing_usable_raises_even_when_skipping(tmp_path):
    (tmp_path / "text.png").write_text("x")
    with pytest.raises(Problems, match=r"text\.png"):
        ImageDataset(str(tmp_path), 2, on_bad="skip")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("cache_gib", [0, "auto"])
def test_damage_behind_the_header(gt_dir, suffix, cache_gib):
    fill(gt_dir, ["damaged"], suffix=suffix)
    path = gt_dir / f"damaged{suffix}"
    path.write_bytes(path.read_bytes()[:-600])
    images = ImageDataset(str(gt_dir), 2, lq_size=8, cache_gib=cache_gib)
    assert images.problems() == []
    (line,) = images.verify()
    assert line.startswith(str(path))
    number = images.names().index("damaged")
    for access in (lambda: images.sample(0, number), lambda: images.whole(number)):
        with pytest.raises(DataError, match=str(path)):
            access()
    if cache_gib:
        with pytest.raises(DataError, match=str(path)):
            images.preload()


def test_file_changed_after_indexing(gt_dir):
    images = ImageDataset(str(gt_dir), 2, lq_size=8)
    fill(gt_dir, ["a1"], (44, 44))
    with pytest.raises(DataError, match="changed since it was indexed: found 44x44"):
        images.sample(0, 0)
    (gt_dir / "a2.png").unlink()
    with pytest.raises(DataError, match="No such file"):
        images.sample(0, 1)


def test_report_counts(tmp_path):
    fill(tmp_path, ["x"], (41, 50))
    fill(tmp_path, ["y"], (60, 44))
    images = ImageDataset(str(tmp_path), 2, cache_gib=8000 / 2**30)
    report = images.report()
    assert (report.images, report.pairs, report.cropped) == (2, 0, 1)
    assert (report.min_size, report.max_size) == ((41, 44), (60, 50))
    assert report.cache.wanted_bytes == 3 * (40 * 50 + 20 * 25 + 60 * 44 + 30 * 22)
    assert (report.cache.held, report.cache.num_bytes) == (1, 6016 + 1536)
    assert not images.in_ram
    assert "1 of 2 images" in str(report)
    assert "decoded at every access" in str(report)


def test_preload_reports_progress(gt_dir):
    images, steps = ImageDataset(str(gt_dir), 2, lq_size=8), []
    images.preload(lambda done, total: steps.append((done, total)))
    assert steps == [(number, 7) for number in range(1, 8)]
    for file in gt_dir.rglob("*.png"):
        file.unlink()
    assert images.sample(0, 3)["gt"].shape == (3, 16, 16)


def test_names(gt_dir):
    assert ImageDataset(str(gt_dir), 2).name == "gt"
    assert ImageDataset(f"{gt_dir}/", 2, name="mine").name == "mine"


@pytest.mark.parametrize(
    "wrong", [{"scale": 0}, {"lq_size": 0}, {"on_bad": "ignore"}, {"gt": []}]
)  # fmt: skip
def test_wrong_arguments(gt_dir, wrong):
    with pytest.raises(DataError):
        ImageDataset(**{"gt": str(gt_dir), "scale": 2, **wrong})


def test_training_needs_a_crop_size(gt_dir):
    with pytest.raises(DataError, match="lq_size"):
        ImageDataset(str(gt_dir), 2).sample(0, 0)
