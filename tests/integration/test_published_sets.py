"""Data sets as their authors publish them: unzipped, and trained on by the shipped config."""

import pytest

from sr_train.io.images import write_image
from tests.toys import clip_words, fill, metrics_rows, no_validation, stripes, toy_words


def of_set(words, name):
    """Return toy words with a shipped data set in place of the toy's folders."""
    kept = [w for w in no_validation(*words)[:-1] if not w.startswith(("dataset=", "data.train."))]
    return ["train", *kept, f"dataset=[{name}]", "data.root=sets"]


def results(folder):
    return (folder / "runs/toy/results.csv").read_text()


@pytest.mark.parametrize(("kind", "count"), [("sep", 7), ("tri", 3)])
def test_vimeo_90k_by_its_lists(command, in_folder, kind, count):
    root = in_folder / "sets" / ("vimeo_septuplet" if kind == "sep" else "vimeo_triplet")
    for name in ("00001/0001", "00001/0002", "00002/0001", "00002/0008"):
        fill(root / "sequences" / name, count)
        for number in range(count):
            image = root / "sequences" / name / f"p{number}.png"
            image.rename(image.with_name(f"im{number + 1}.png"))
    (root / f"{kind}_trainlist.txt").write_text("00001/0001\n00002/0001\n")
    (root / f"{kind}_testlist.txt").write_text("00001/0002\n\n")
    words = of_set(clip_words(in_folder), "vimeo90k")
    if kind == "tri":
        for place, part in (("train", "train"), ("val.vimeo90k", "test")):
            words += [
                f"data.{place}.gt=sets/vimeo_triplet/sequences",
                f"data.{place}.list_file=sets/vimeo_triplet/tri_{part}list.txt",
            ]
    done = command(*words).succeeds()
    assert f"data.train: sequences: 2 sequences, {2 * count} frames, " in done.out
    assert f"data.val.vimeo90k: sequences: 1 sequences, {count} frames" in done.out
    assert "00001/0002" in results(in_folder)
    (root / f"{kind}_trainlist.txt").write_text("00001/0001\n00009/0009\n")
    command(*words, "name=other").fails_with(f"{kind}_trainlist.txt: names '00009/0009'")


@pytest.fixture
def gopro(in_folder):
    """Two sequences to train on and one to test on, x1, numbered from 47 on."""
    for place in ("train/GOPR0372_07_00", "train/GOPR0384_11_00", "test/GOPR0384_11_05"):
        for side in ("blur", "blur_gamma", "sharp"):
            folder = in_folder / "sets/GOPRO_Large" / place / side
            folder.mkdir(parents=True)
            for number in range(47, 52):
                write_image(folder / f"{number:06}.png", stripes(40, 48, seed=number))
    return in_folder


def test_gopro_as_unzipped_in_clips(command, gopro):
    words = of_set(clip_words(gopro), "gopro")
    done = command(*words, "scale=1", "arch.net.scale=1").succeeds()
    assert "data.train: GOPRO_Large: 2 sequences, 10 frames, 6 clips, x1" in done.out
    assert "GOPR0384_11_05" in results(gopro)
    gamma = [f"data.{place}.modalities.lq=blur_gamma" for place in ("train", "val.gopro")]
    command(*words, "scale=1", "arch.net.scale=1", "name=gamma", *gamma).succeeds()


def test_gopro_as_unzipped_in_images(command, gopro):
    done = command(*of_set(toy_words(gopro), "gopro_images"), "scale=1").succeeds()
    assert "data.train: train: 10 images, 10 with an LQ file, x1" in done.out
    assert "GOPR0384_11_05/000047" in results(gopro)
    assert metrics_rows(gopro / "runs/toy", "val/gopro/psnr_y")
