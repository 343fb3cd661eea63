"""Clips are cut where a frame cannot be had, and where frames change."""

import signal
from pathlib import Path

import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.inference.feeding import Feeder, Label, Unread
from sr_train.utils.signals import Stop, Stopped


class NoExtra:
    """Further inputs of a network that takes none; some frames have a damaged one."""

    def __init__(self, damaged=()):
        self.damaged = damaged

    def of(self, name, number):
        if number in self.damaged:
            raise DataError(f"spikes/{number}.npy: damaged")
        return {}


def frame(number, size=4, dtype=np.uint8, error=None):
    def read():
        if error is not None:
            raise error
        return np.full((size, size, 3), number, dtype), Label(str(number), number=number)

    return Unread(Path(f"in/{number}.png"), read)


def fed(frames, feeder):
    """Return the numbers of the frames of each clip."""
    return [[int(each["lq"][0, 0, 0]) for each in clip] for clip in feeder.clips(iter(frames))]


def test_what_follows_a_frame_that_cannot_be_read_is_a_clip_of_its_own():
    frames = [
        frame(n, error=DataError(f"in/{n}.png: cut") if n in (0, 3, 4) else None) for n in range(7)
    ]
    feeder = Feeder(NoExtra(), Stop(""), may_change=True)
    assert fed(frames, feeder) == [[1, 2], [5, 6]]
    assert feeder.left_out == [f"in/{n}.png: cut" for n in (0, 3, 4)]
    assert [label.number for label in feeder.labels] == [1, 2, 5, 6]


def test_what_follows_damage_in_a_video_is_a_clip_of_its_own():
    feeder = Feeder(NoExtra(), Stop(""), may_change=False)
    assert fed([frame(n) for n in (0, 1, 4, 5)], feeder) == [[0, 1], [4, 5]]
    assert feeder.left_out == []


def test_a_damaged_further_input_takes_its_frame_with_it():
    feeder = Feeder(NoExtra(damaged=[1]), Stop(""), may_change=True)
    assert fed([frame(n) for n in range(3)], feeder) == [[0], [2]]
    assert feeder.left_out == ["in/1.png: spikes/1.npy: damaged"]


@pytest.mark.parametrize("change", [{"size": 6}, {"dtype": np.uint16}])
@pytest.mark.parametrize(("may_change", "expected"), [(True, [[0, 1], [2]]), (False, [[0, 1, 2]])])
def test_a_change_of_size_or_depth_begins_a_clip_where_that_may_be(change, may_change, expected):
    feeder = Feeder(NoExtra(), Stop(""), may_change)
    assert fed([frame(0), frame(1), frame(2, **change)], feeder) == expected


def test_runs_follow_each_other():
    feeder = Feeder(NoExtra(), Stop(""), may_change=True)
    assert fed([frame(0), frame(1)], feeder) == [[0, 1]]
    assert fed([frame(7), frame(8)], feeder) == [[7, 8]]
    assert fed([], feeder) == []


def test_a_defect_is_no_damage_and_a_signal_ends_the_feeding():
    feeder = Feeder(NoExtra(), Stop(""), may_change=True)
    with pytest.raises(KeyError):
        fed([frame(0), frame(1, error=KeyError("x"))], feeder)
    stop = Stop("")
    stop.requested = signal.SIGTERM
    with pytest.raises(Stopped):
        fed([frame(0)], Feeder(NoExtra(), stop, may_change=True))
