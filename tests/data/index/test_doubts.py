"""What makes one doubt a set: told where it is so, and never of an honest set."""

import shutil

import cv2
import numpy as np
import pytest

from data.clips import ClipDataset
from data.images import ImageDataset
from data.index.doubts import Sized, doubts_about_sizes, spread
from data.index.folders import resolve_root
from sr_train.api.dataset import SetFile
from sr_train.commands.checks.overlap import overlap, overlap_warning
from sr_train.io.images import read_image, to_rgb, write_image
from sr_train.ops.resize import imresize
from tests.data.conftest import noise, write_frames, write_nested
from tests.data.test_clips import MODALITIES

PHOTOS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket", "brick")


@pytest.fixture(scope="module")
def photos():
    """Real photographs of at most 320x240 pixels, RGB."""
    folder = resolve_root("pkg://skimage/data")
    paths = [next(folder.glob(f"{name}.*")) for name in PHOTOS]
    return [to_rgb(read_image(path).pixels)[:240, :320] for path in paths]


def motion(pixels):
    kernel = np.zeros((11, 11), np.float32)
    kernel[5] = 1 / 11
    turn = cv2.getRotationMatrix2D((5, 5), 30, 1)
    return cv2.filter2D(pixels, -1, cv2.warpAffine(kernel, turn, (11, 11)))


def noisy(pixels, sigma):
    draw = np.random.default_rng(0)
    return np.clip(pixels + draw.normal(0, sigma, pixels.shape), 0, 255).astype(np.uint8)


def compressed(pixels):
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], 1)


def resized(pixels, factor):
    small = imresize(pixels, 1 / factor)
    return cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)


HONEST = {
    "blur": lambda p: cv2.GaussianBlur(p, (0, 0), 2),
    "motion": motion,
    "weak noise": lambda p: noisy(p, 5),
    "noise": lambda p: noisy(p, 25),
    "strong noise": lambda p: noisy(p, 70),
    "jpeg": compressed,
    "dark": lambda p: noisy((p * 0.15).astype(np.uint8), 3),
    "haze": lambda p: (p * 0.3 + 160).astype(np.uint8),
    "gamma": lambda p: (255 * (p / 255.0) ** 2.2).astype(np.uint8),
    "blur and noise": lambda p: noisy(cv2.GaussianBlur(p, (0, 0), 2), 20),
    "resized": lambda p: resized(p, 4),
    "a pixel off": lambda p: np.roll(p, 1, axis=1),
    "16 bit": lambda p: noisy(p, 10).astype(np.uint16) * 257,
    "2x smaller": lambda p: imresize(p, 1 / 2),
    "4x smaller": lambda p: imresize(p, 1 / 4),
    "smaller and noisy": lambda p: noisy(imresize(p, 1 / 2), 25),
}


def pair_folders(root, photos, degrade):
    """Write gt/NUMBER.png and lq/NUMBER.png; returns both folders."""
    for number, pixels in enumerate(photos):
        for side, each in (("gt", pixels), ("lq", degrade(pixels))):
            (root / side).mkdir(parents=True, exist_ok=True)
            write_image(root / side / f"{number}.png", each)
    return root / "gt", root / "lq"


def warnings_of(gt, lq, scale=1, **more):
    return ImageDataset(str(gt), scale, str(lq), **more).warnings()


@pytest.mark.parametrize("kind", HONEST)
def test_honest_sets_are_not_doubted(tmp_path, photos, kind):
    gt, lq = pair_folders(tmp_path, photos, HONEST[kind])
    scale = {"2x smaller": 2, "4x smaller": 4, "smaller and noisy": 2}.get(kind, 1)
    assert warnings_of(gt, lq, scale) == []
    assert ImageDataset(str(gt), 2).warnings() == []


def test_flat_and_tiny_images_are_not_doubted(tmp_path):
    flat = [np.full((40, 40, 3), value, np.uint8) for value in (0, 100, 255)]
    assert warnings_of(*pair_folders(tmp_path / "flat", flat, lambda p: noisy(p, 50))) == []
    tiny = [noise(3, 2, seed=seed) for seed in range(3)]
    assert warnings_of(*pair_folders(tmp_path / "tiny", tiny, lambda p: p // 2)) == []


@pytest.mark.parametrize("kind", ["blur", "motion", "resized"])
def test_sharp_and_blurred_are_swapped(tmp_path, photos, kind):
    gt, lq = pair_folders(tmp_path, photos, HONEST[kind])
    (line,) = warnings_of(lq, gt)
    assert "lq is sharper than gt along its edges" in line
    assert "are gt and lq swapped?" in line


def test_a_larger_lq_is_swapped(tmp_path, photos):
    gt, lq = pair_folders(tmp_path, photos, lambda p: imresize(p, 1 / 2))
    with pytest.raises(Exception, match="the LQ is the larger one: are gt and lq swapped"):
        ImageDataset(str(lq), 2, str(gt))


def test_pairs_that_show_different_things(tmp_path, photos):
    gt, lq = pair_folders(tmp_path, photos, lambda p: imresize(p, 1 / 2))
    first = (lq / "0.png").read_bytes()
    for number in range(5):
        (lq / f"{number}.png").write_bytes((lq / f"{number + 1}.png").read_bytes())
    (lq / "5.png").write_bytes(first)
    (line,) = warnings_of(gt, lq, 2)
    assert "lq and gt show different things in " in line
    assert int(line.split(" of ")[0].split()[-1]) >= 4


@pytest.mark.parametrize("scale", [1, 2])
def test_pairs_that_are_shifted(tmp_path, photos, scale):
    def shifted(pixels):
        small = imresize(pixels, 1 / scale) if scale > 1 else noisy(pixels, 10)
        return np.roll(small, (2, -3), axis=(0, 1))

    gt, lq = pair_folders(tmp_path, photos, shifted)
    (line,) = warnings_of(gt, lq, scale)
    assert "lq is shifted against gt by about (-3.0, +2.0)" in line


def test_a_grey_lq_beside_a_colour_gt(tmp_path, photos):
    grey = lambda p: cv2.cvtColor(imresize(p, 1 / 2), cv2.COLOR_RGB2GRAY)  # noqa: E731
    gt, lq = pair_folders(tmp_path, photos, grey)
    (line,) = warnings_of(gt, lq, 2)
    assert "lq is grey beside a colour gt in 5 of 6 samples" in line


def test_both_sides_the_same(tmp_path, photos):
    gt, lq = pair_folders(tmp_path, photos, lambda p: p)
    (line,) = warnings_of(gt, lq)
    assert "lq and gt are the same in all of 6 samples" in line


def test_damage_is_told_and_not_raised(tmp_path, photos):
    gt, lq = pair_folders(tmp_path, photos, lambda p: noisy(p, 10))
    (lq / "3.png").write_bytes((lq / "3.png").read_bytes()[:-2000])
    (line,) = warnings_of(gt, lq)
    assert "could not be compared" in line
    assert str(lq / "3.png") in line


@pytest.mark.parametrize(
    ("large", "small", "ending", "words"),
    [
        ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2", "x2", "'DIV2K_train_LR_bicubic/X2'"),
        ("HR", "LR/X4", "", "exclude=['LR/X4/*']"),
        ("train_sharp/000", "train_sharp_bicubic/X2/000", "", "'train_sharp_bicubic/X2'"),
        (".", "thumbs", "", "'thumbs'"),
    ],
)
def test_small_versions_below_the_root_of_the_gt(tmp_path, photos, large, small, ending, words):
    factor = int(small[-1]) if small[-1].isdigit() and small[-1] in "24" else 2
    for number, pixels in enumerate(photos):
        for folder, each, end in (
            (large, pixels, ""),
            (small, imresize(pixels, 1 / factor), ending),
        ):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            write_image(tmp_path / folder / f"{number:04}{end}.png", each)
    (line,) = ImageDataset(str(tmp_path), 2).warnings()
    assert f"gt holds {len(photos)} images of " in line
    assert words in line
    if "train_sharp" not in large:
        exclude = [f"{small}/*"]
        assert ImageDataset(str(tmp_path), 2, exclude=exclude).warnings() == []


def test_frames_of_one_name_in_other_sizes_are_not_doubted(tmp_path):
    for folder, size in (("a", (40, 60)), ("b", (80, 120)), ("c", (80, 120))):
        (tmp_path / folder).mkdir()
        for t in range(4):
            write_image(tmp_path / folder / f"{t:04}.png", noise(*size, seed=hash_of(folder, t)))
    assert ImageDataset(str(tmp_path), 2).warnings() == []


def hash_of(folder, t):
    return ord(folder) * 100 + t


def test_a_name_that_all_folders_have_costs_nothing():
    items = [Sized(f"{n}/0001", 40 * (1 + n % 2), 40 * (1 + n % 2)) for n in range(50_000)]
    assert doubts_about_sizes(items, lambda _: pytest.fail("read")) == []


def test_clips_are_doubted_too(tmp_path, photos):
    for number, pixels in enumerate(photos[:3]):
        for side, each in (("sharp", pixels), ("blur", HONEST["motion"](pixels))):
            for t in range(3):
                folder = tmp_path / f"s{number}" / side
                folder.mkdir(parents=True, exist_ok=True)
                write_image(folder / f"{t}.png", np.roll(each, 5 * t, axis=1))
    right = {"gt": "sharp", "lq": "blur"}
    assert ClipDataset(1, root=str(tmp_path), modalities=right).warnings() == []
    wrong = {"gt": "blur", "lq": "sharp"}
    (line,) = ClipDataset(1, root=str(tmp_path), modalities=wrong).warnings()
    assert "are gt and lq swapped?" in line


def test_toys_and_spikes_are_not_doubted(tmp_path):
    root = write_nested(tmp_path / "nested", {"one": 8, "two": 6})
    common = {"split": "train", "modalities": MODALITIES}
    assert ClipDataset(2, root=str(root), **common).warnings() == []
    write_frames(tmp_path / "gt" / "a", 3)
    assert ClipDataset(2, gt=str(tmp_path / "gt")).warnings() == []


def test_spread():
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(2, 8) == [0, 1]
    assert spread(0, 8) == spread(5, 0) == []


# Sets that share files.


def test_validation_on_what_is_trained_on(tmp_path, photos):
    gt, _ = pair_folders(tmp_path, photos, lambda p: p)
    shutil.copytree(gt, tmp_path / "copies")
    (tmp_path / "link").symlink_to(gt)
    train = ImageDataset(str(gt), 2, exclude=["0", "1"])
    for folder, count in (("gt", 4), ("link", 4), ("copies", 4)):
        val = ImageDataset(str(tmp_path / folder), 2)
        line = overlap_warning("data.val.main", train.gt_files(), val.gt_files())
        assert line.startswith(f"data.val.main: {count} of 6 files that were looked at are trained")
        assert (str(gt) in line) == (folder != "link") or "the same as" in line
    apart = ImageDataset(str(gt), 2, include=["0", "1"])
    assert overlap_warning("x", train.gt_files(), apart.gt_files()) is None
    assert overlap_warning("x", [], apart.gt_files()) is None
    assert overlap_warning("x", train.gt_files(), []) is None


def test_parts_of_one_video_are_no_overlap():
    frames = [SetFile("a.mp4", 1000, number) for number in range(100)]
    assert overlap(frames[:80], frames[80:]) == (0, 20, None)
    assert overlap(frames[:90], frames[80:]) == (10, 20, ("a.mp4", "a.mp4"))


def test_files_of_one_size_are_told_apart(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for t in range(30):
            write_image(tmp_path / folder / f"{t}.bmp", noise(8, 8, seed=hash_of(folder[0], t)))
    one, two = (ImageDataset(str(tmp_path / folder), 2).gt_files() for folder in ("one", "two"))
    assert overlap(one, two) == (0, 30, None)
    shutil.copy(tmp_path / "one" / "29.bmp", tmp_path / "two" / "29.bmp")
    two = ImageDataset(str(tmp_path / "two"), 2).gt_files()
    assert overlap(one, two)[0] == 1
