"""What validation sets hand out: one form for images and clips of any origin."""

import numpy as np
import pytest

from sr_train.api.dataset import ClipInMemory, WholeClip, WholeImage, as_clip


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
