"""What data sets offer: defaults, and one form for images and clips of any origin."""

import pickle

import numpy as np
import pytest
import torch

from sr_train.api.dataset import (
    ClipInMemory,
    SetFile,
    TrainDataset,
    WholeClip,
    WholeImage,
    adopt,
    as_clip,
)
from sr_train.api.errors import DataError


def test_an_image_is_a_clip_of_one_frame_without_a_name():
    image = WholeImage("a/b", np.zeros((2, 3, 3), np.uint8), np.ones((4, 6, 3), np.uint8))
    clip = as_clip(image)
    assert (clip.name, len(clip), clip.frame_name(0)) == ("a/b", 1, "")
    assert clip.lq(0) is image.lq
    assert clip.gt(0) is image.gt
    assert not clip.extras(0)


def test_a_clip_stays_what_it_is():
    clip = ClipInMemory("c", [{"lq": np.zeros(1), "gt": np.ones(1), "m": np.ones(2)}], ["f"])
    assert as_clip(clip) is clip
    assert list(clip.extras(0)) == ["m"]
    with pytest.raises(IndexError):
        clip.lq(1)


class Own(WholeClip):
    """The least that a clip of one's own needs."""

    name = "own"

    def __len__(self):
        return 2

    def lq(self, t):
        return np.full((1, 1, 3), t, np.uint8)

    def gt(self, t):
        return self.lq(t)


def test_a_clip_of_ones_own_needs_three_methods():
    assert as_clip(Own()).frame_name(1) == "1"
    assert not Own().extras(0)


def test_a_clip_needs_no_base_class():
    alike = type("Alike", (), {key: getattr(Own, key) for key in dir(WholeClip) if key[0] != "_"})
    alike.name, alike.__len__ = "alike", Own.__len__
    clip = alike()
    assert as_clip(clip) is clip


class Least(TrainDataset):
    """What the docstring asks for."""

    def __len__(self):
        return 3

    def sample(self, epoch, index):
        if index == 2:
            raise KeyError("lost")
        return {"lq": torch.zeros(3, 2, 2), "gt": torch.zeros(3, 4, 4)}


class Alike:
    """The same without a base class, and with a property."""

    in_ram = True
    num_frames = 5
    scale = 2

    def __len__(self):
        return 2

    def whole(self, index):
        return WholeImage(f"p{index}", np.zeros((2, 2, 3)), np.zeros((4, 4, 3)))


@pytest.mark.parametrize("kind", [Least, Alike])
def test_all_that_is_optional_has_a_default(kind):
    made = adopt(kind())
    count = len(made)
    assert str(made.report()) == f"{kind.__name__}: {count} items"
    assert len(made.fingerprint()) == 16
    assert made.fingerprint() == adopt(kind()).fingerprint()
    assert made.warnings(8) == made.gt_files() == made.newly_damaged() == []
    assert made.whole_sizes() is None
    assert made.cached() == "nothing is kept in memory"
    assert made.fill() is None
    assert made.verify() == (["item 2: KeyError: 'lost'"] if kind is Least else [])


def test_a_set_without_the_base_class_keeps_what_it_has():
    made = adopt(Alike())
    assert isinstance(made, TrainDataset)
    assert (type(made).__name__, made.in_ram, made.num_frames, made.scale) == ("Alike", True, 5, 2)
    assert made.whole(1).name == "p1"
    again = pickle.loads(pickle.dumps(made))
    assert (len(again), again.num_frames) == (2, 5)
    assert not hasattr(made, "nothing")


def test_a_set_with_the_base_class_stays_itself():
    made = Least()
    assert adopt(made) is made


def test_a_fingerprint_is_of_the_files_and_not_of_where_they_lie():
    class Files(Least):
        def __init__(self, *files):
            self.files = files

        def gt_files(self):
            return [SetFile(path, size) for path, size in self.files]

    one, copied, other = Files(("/a/x", 3)), Files(("/b/x", 3)), Files(("/a/x", 4))
    assert one.fingerprint() == copied.fingerprint() != other.fingerprint()


def test_what_is_neither_image_nor_clip_is_told():
    with pytest.raises(DataError, match="tuple without name, lq, gt; expected a WholeImage"):
        as_clip((np.zeros(3), np.zeros(3)))
