"""The few items that stand for a validation set, and what is asked of them."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from sr_train.api.dataset import TrainDataset, WholeClip
from sr_train.api.errors import DataError
from sr_train.api.network import NetSpec
from sr_train.commands.checks.samples import Item, first_items, moderate, smallest

X2 = NetSpec(scale=2)


def test_no_other_size_is_smaller_in_all():
    sizes = [(1, 12, 40), (1, 40, 12), (1, 40, 40), (1, 12, 41), (3, 12, 40)]
    assert smallest(sizes) == [(1, 12, 40), (1, 40, 12)]
    assert smallest([(2, 50, 50), (9, 10, 10)]) == [(2, 50, 50), (9, 10, 10)]


@pytest.mark.parametrize(
    ("side", "largest", "expected"), [(100, 256, 100), (256, 256, 256), (257, 256, 193)]
)
def test_a_side_that_is_cut_keeps_its_remainder(side, largest, expected):
    assert moderate(side, largest) == expected
    assert moderate(side, largest) % 64 == side % 64


def image(height, width, name="p", scale=2, dtype=np.uint8):
    gt = np.zeros((height * scale, width * scale, 3), dtype)
    return SimpleNamespace(name=name, lq=np.zeros((height, width, 3), dtype), gt=gt)


class Images(TrainDataset):
    def __init__(self, *sizes, tells=True):
        self.items = [image(*size, name=f"p{n}") for n, size in enumerate(sizes)]
        self.read = []
        if tells:
            self.whole_sizes = lambda: [(1, *item.lq.shape[:2]) for item in self.items]

    def __len__(self):
        return len(self.items)

    def whole(self, index):
        self.read.append(index)
        return self.items[index]


def nothing(path, label):
    return nullcontext()


def test_only_the_smallest_are_read():
    images = Images((30, 30), (12, 40), (50, 60), (40, 12), (13, 41))
    items = first_items("data.val.x", images, X2, nothing)
    assert images.read == [1, 0, 3]
    assert [item.name for item in items] == ["p1", "p0", "p3"]
    assert isinstance(items[0], WholeClip)
    assert [str(item) for item in items] == ["40x12", "30x30", "12x40"]


def test_of_a_set_that_tells_no_sizes_the_first_items_are_read():
    images = Images(*[(20, 20)] * 11, tells=False)
    first_items("data.val.x", images, X2, nothing)
    assert images.read == list(range(8))


def test_large_images_are_cut():
    (item,) = first_items("data.val.x", Images((700, 1000)), X2, nothing)
    assert item.lq(0).shape == (252, 232, 3)
    assert item.gt(0).shape == (504, 464, 3)


class Clip:
    name = "c"

    def __init__(self, count, spikes):
        self.count, self.spikes = count, spikes

    def __len__(self):
        return self.count

    def frame_name(self, t):
        return f"f{t}"

    def lq(self, t):
        return image(20, 24).lq

    def gt(self, t):
        return image(20, 24).gt

    def extras(self, t):
        return {"spikes": self.spikes}


class Clips:
    def __init__(self, *lengths, spikes=None):
        values = np.zeros((20, 24, 5), np.float32) if spikes is None else spikes
        self.clips = [Clip(length, values) for length in lengths]

    def __len__(self):
        return len(self.clips)

    def whole_sizes(self):
        return [(len(clip), 20, 24) for clip in self.clips]

    def whole(self, index):
        return self.clips[index]


@pytest.mark.parametrize(("least", "frames"), [(1, 2), (4, 2)])
def test_the_shortest_clip_is_taken_and_few_frames_of_it(least, frames):
    spec = NetSpec(scale=2, takes_clips=True, min_frames=least)
    (item,) = first_items("data.val.x", Clips(9, 2, 50), spec, nothing)
    assert len(item) == frames
    (item,) = first_items("data.val.x", Clips(9, 50), spec, nothing)
    assert len(item) == max(3, least)
    assert item.frame_name(1) == "f1"
    assert set(item.extras(0)) == {"spikes"}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (image(20, 20, scale=3), r"p: gt is \(60, 60, 3\) uint8.*gt of 40x40 pixels"),
        (SimpleNamespace(name="p", lq=None, gt=None), "p: lq is NoneType"),
        (
            SimpleNamespace(name="p", lq=image(8, 8).lq, gt=image(8, 8, dtype=np.uint16).gt),
            "uint16, but lq is .* uint8",
        ),
    ],
)
def test_items_that_are_no_pair_are_told(item, words):
    images = Images((20, 20))
    images.items = [item]
    images.whole_sizes = None
    del images.whole_sizes
    with pytest.raises(DataError, match=words):
        first_items("data.val.x", images, X2, nothing)


def test_one_value_of_a_further_input_that_is_not_finite_is_told():
    spikes = np.zeros((20, 24, 5), np.float32)
    spikes[3, 4, 1] = np.nan
    spec = NetSpec(scale=2, takes_clips=True)
    with pytest.raises(DataError, match="c: spikes holds values that are not finite"):
        first_items("data.val.x", Clips(3, spikes=spikes), spec, nothing)


def test_an_item_gives_its_frames():
    item = Item("a", [{"lq": np.zeros((2, 3, 3)), "gt": np.ones((2, 3, 3))}], [""])
    assert (len(item), item.frame_name(0), item.extras(0)) == (1, "", {})
    assert item.gt(0).all()
