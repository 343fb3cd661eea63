"""ClipDataset on videos whose frames are hard to number: none is taken for another."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.clips import ClipDataset
from data.index import videos
from data.index.tracks import find_parallel
from data.index.videos import OpenVideos, count_frames
from sr_train.api.errors import DataError
from sr_train.inference.finding import find
from sr_train.io.suffixes import VIDEO_SUFFIXES
from sr_train.io.video.codecs import WRITABLE_SUFFIXES
from sr_train.io.video.frames import read_timed_frames
from tests.videos import make_video, moving, noisy, with_zeros

PLAIN = {"g": "10", "bf": "0", "sc_threshold": "0"}


def test_training_takes_every_name_that_infer_takes(tmp_path):
    names = {f"clip{number}{suffix.upper()}" for number, suffix in enumerate(VIDEO_SUFFIXES)}
    for name in names:
        (tmp_path / name).touch()
    used = {each.path.name for each in find([tmp_path], tmp_path / "out").files if each.is_video}
    trained = {Path(place).name for place in find_parallel({"gt": tmp_path}).places.values()}
    assert used == trained == names
    assert {".m4v", ".ts", ".mpg", ".mpeg", ".gif", ".wmv", ".y4m"} | WRITABLE_SUFFIXES < (
        VIDEO_SUFFIXES
    )


@pytest.mark.parametrize("options", [{}, {"g": "9", "bf": "3"}])
def test_h264_in_avi_as_a_data_set(tmp_path, options):
    """Its demuxer guesses when frames are shown, and wrongly so."""
    path = make_video(tmp_path / "a.avi", moving(40, 48, 64), options=options)
    expected = [frame.pixels for frame in read_timed_frames(path)]
    assert len(expected) == 40
    whole = ClipDataset(2, gt=str(tmp_path), frames=None, lq_size=8, cache_gib=0).whole(0)
    assert len(whole) == 40
    for number in [17, 3, 39, 0, 20, *range(40)]:
        np.testing.assert_array_equal(whole.gt(number), expected[number], str(number))
    clips = ClipDataset(2, gt=str(tmp_path), frames=3, lq_size=8, cache_gib=0.01)
    clips.preload()
    assert all(isinstance(clips.sample(n, 0)["gt"], torch.Tensor) for n in range(len(clips)))


def test_a_damaged_frame_is_an_error_with_its_number_and_the_others_stay(tmp_path):
    source = make_video(tmp_path / "a.mp4", noisy(30), options=PLAIN)
    path = str(with_zeros(source, tmp_path / "b.mp4", 12, 13))
    assert count_frames(path) == 30
    readers = OpenVideos()
    for number in (25, 14, 5, 13, 22, 11, 19, 20):
        if 12 <= number < 20:
            with pytest.raises(DataError, match=f"frame {number} "):
                readers.frame(path, number)
        else:
            expected = readers.frame(str(source), number)
            np.testing.assert_array_equal(readers.frame(path, number), expected)


def test_a_damaged_frame_does_not_open_the_file_anew(tmp_path, monkeypatch):
    source = make_video(tmp_path / "a.avi", noisy(30), options=PLAIN)
    path = str(with_zeros(source, tmp_path / "b.avi", 12, 13))
    count_frames(path)
    opened = []
    original = videos.FrameReader

    def reader(*args):
        opened.append(args)
        return original(*args)

    monkeypatch.setattr(videos, "FrameReader", reader)
    monkeypatch.setattr("sr_train.io.video.reader.build_index", None)
    readers = OpenVideos()
    for number in (12, 13, 14, 3, 12):
        if number >= 12:
            with pytest.raises(DataError, match=f"frame {number} "):
                readers.frame(path, number)
        else:
            readers.frame(path, number)
    assert len(opened) == 1


def test_a_cut_video_is_warned_about(tmp_path, caplog):
    source = make_video(tmp_path / "a.mkv", noisy(40), options=PLAIN)
    data = source.read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) // 2])
    assert 5 < count_frames(str(tmp_path / "b.mkv")) < 35
    assert "b.mkv: it ends early" in caplog.text
    assert "of 40 frames are missing" in caplog.text
