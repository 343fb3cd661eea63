"""Clips and images go through one validator; a clip counts once, however long it is."""

from dataclasses import dataclass

import numpy as np
import pytest

from sr_train.api.errors import ConfigError
from sr_train.api.logger import Logger
from sr_train.engine.live_validation import LiveValidation
from sr_train.engine.validator import Validator
from sr_train.inference.clips import frame_by_frame
from sr_train.metrics import TemporalDifference
from tests.toys import stripes


class Clip:
    """Frames whose truth is brighter by their number than what bicubic makes."""

    def __init__(self, name, count):
        self.name = name
        self.count = count
        self.read = []

    def __len__(self):
        return self.count

    def frame_name(self, t):
        return f"{t:03d}"

    def lq(self, t):
        return np.full((20, 24, 3), 10 * t, np.uint8)

    def gt(self, t):
        self.read.append(t)
        return np.full((40, 48, 3), 10 * t + t, np.uint8)

    def extras(self, t):
        return {"spikes": np.full((20, 24, 5), t, np.float32)}


@dataclass
class Image:
    name: str
    lq: np.ndarray
    gt: np.ndarray


class Set:
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def whole(self, index):
        return self.items[index]


def bias(pred, gt, scale):
    return float(gt.astype(int).mean() - pred.astype(int).mean())


def test_a_clip_counts_once_however_long_it_is():
    sets = {"x": Set(Clip("long", 5), Clip("short", 2))}
    metrics = {"bias": bias, "jump": TemporalDifference("rgb")}
    validator = Validator(sets, metrics, 2)
    scores = validator.run(frame_by_frame(validator.bicubic))
    assert scores.images["x"]["long"] == pytest.approx({"bias": 2.0, "jump": 1.0})
    assert scores.images["x"]["short"] == pytest.approx({"bias": 0.5, "jump": 1.0})
    assert scores.mean("x") == pytest.approx({"bias": 1.25, "jump": 1.0})


def test_frames_go_through_as_they_come_with_their_extras():
    clip = Clip("c", 4)
    asked = []

    def upscale(frames, name):
        assert name == "x/c"
        for frame in frames:
            asked.append(float(frame["spikes"].mean()))
            assert len(clip.read) == len(asked) - 1, "the truth is read when its frame is made"
            yield np.repeat(np.repeat(frame["lq"], 2, 0), 2, 1)

    seen = []
    Validator({"x": Set(clip)}, {"bias": bias}, 2).run(upscale, seen.append)
    assert asked == [0, 1, 2, 3]
    assert [s.name for s in seen] == ["c/000", "c/001", "c/002", "c/003"]
    assert [s.is_last for s in seen] == [False, False, False, True]


@pytest.mark.parametrize("change", [-1, 1])
def test_as_many_frames_must_come_out_as_went_in(change):
    def upscale(frames, name):
        made = [np.repeat(np.repeat(frame["lq"], 2, 0), 2, 1) for frame in frames]
        yield from (made + made)[: len(made) + change]

    with pytest.raises(ValueError, match="zip"):
        Validator({"x": Set(Clip("c", 3))}, {"bias": bias}, 2).run(upscale)


def test_images_and_clips_may_be_mixed():
    gt = stripes(16, 20)
    sets = {"stills": Set(Image("p", gt[::2, ::2].copy(), gt)), "clips": Set(Clip("c", 2))}
    validator = Validator(sets, {"bias": bias}, 2)
    scores = validator.run(frame_by_frame(validator.bicubic))
    assert list(scores.images["stills"]) == ["p"]
    assert list(scores.images["clips"]) == ["c"]


def test_a_metric_of_neighbours_needs_clips():
    gt = stripes(16, 20)
    sets = {"stills": Set(Image("p", gt[::2, ::2].copy(), gt))}
    validator = Validator(sets, {"jump": TemporalDifference("rgb")}, 2)
    with pytest.raises(ConfigError, match=r"metrics\.jump.*data\.val\.stills.*validate on clips"):
        validator.run(frame_by_frame(validator.bicubic))


def test_the_middle_frame_of_a_clip_is_shown(tmp_path):
    class Names(Logger):
        def __init__(self):
            self.names = []

        def scalars(self, values, step): ...

        def image(self, name, pixels, step):
            self.names.append(name)

    logger = Names()
    validator = Validator({"x": Set(Clip("a", 5), Clip("b", 2))}, {"bias": bias}, 2)
    live = LiveValidation(validator, lambda: frame_by_frame(validator.bicubic), tmp_path, logger)
    live(1)
    assert logger.names == ["x/a/002", "x/b/001"]
