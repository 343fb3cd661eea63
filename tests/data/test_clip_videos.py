"""ClipDataset on video files: the frames of the file, whichever way they come."""

import io

import numpy as np
import pytest
import torch

from data.clips import ClipDataset
from data.index.videos import FileInMemory
from data.loading.stream import TrainLoader
from sr_train.api.errors import DataError, Problems
from sr_train.io.video.frames import read_frames
from sr_train.ops.resize import imresize
from tests.data.conftest import write_frames
from tests.data.test_clips import all_samples, assert_same
from tests.videos import make_video, moving


@pytest.fixture
def videos_dir(tmp_path):
    """GT of `a.mp4` (8 frames) and `b/c.mkv` (6), 48x32, with key frames in between."""
    folder = tmp_path / "gt"
    (folder / "b").mkdir(parents=True)
    make_video(folder / "a.mp4", moving(8), options={"g": "3"})
    make_video(folder / "b" / "c.mkv", moving(6, seed=1), options={"g": "4"})
    return folder


def of_videos(folder, **changes):
    common = {"frames": 3, "lq_size": 8, "cache_gib": 0.01, "reverse": True}
    return ClipDataset(2, gt=str(folder), **{**common, **changes})


def test_a_video_is_a_sequence(videos_dir):
    clips = of_videos(videos_dir, frames=None)
    assert clips.names() == ["a", "b/c"]
    whole = clips.whole(0)
    assert (len(whole), whole.frame_name(2)) == (8, "00000002")
    frames = list(read_frames(videos_dir / "a.mp4"))
    for t in (5, 0, 7):
        np.testing.assert_array_equal(whole.gt(t), frames[t])
        np.testing.assert_array_equal(whole.lq(t), imresize(frames[t], 1 / 2))


def test_ranges_of_a_video(videos_dir):
    whole = of_videos(videos_dir, frames=None, ranges={"a": [3, 6]}).whole(0)
    assert [whole.frame_name(t) for t in range(len(whole))] == ["00000003", "00000004", "00000005"]
    frames = list(read_frames(videos_dir / "a.mp4"))
    np.testing.assert_array_equal(whole.gt(0), frames[3])
    loaded = of_videos(videos_dir, frames=None, ranges={"a": [3, 6]})
    loaded.preload()
    np.testing.assert_array_equal(loaded.whole(0).gt(1), frames[4])


@pytest.mark.parametrize("change", [{"cache_gib": 0}, {"cache": "encoded"}])
def test_the_cache_changes_no_byte(videos_dir, change):
    reference = all_samples(of_videos(videos_dir))
    assert_same(all_samples(of_videos(videos_dir, **change)), reference)


@pytest.mark.parametrize(("cache", "records"), [("decoded", 14), ("encoded", 2)])
def test_preloaded_videos_need_no_file(videos_dir, cache, records):
    reference = all_samples(of_videos(videos_dir, cache_gib=0))
    clips, steps = of_videos(videos_dir, cache=cache), []
    clips.preload(lambda done, total: steps.append((done, total)))
    assert steps == [(number, records) for number in range(1, records + 1)]
    for path in videos_dir.rglob("*.m*"):
        path.unlink()
    assert_same(all_samples(clips), reference)


def test_filling_decodes_each_frame_once(videos_dir, monkeypatch):
    given = []

    def counted(source, start=0):
        for pixels in read_frames(source, start):
            given.append(str(source))
            yield pixels

    monkeypatch.setattr("data.cache.clip_frames.read_frames", counted)
    monkeypatch.delattr("data.index.videos.OpenVideos.frame")
    of_videos(videos_dir).preload()
    assert len(given) == 14


def test_lq_of_the_same_name_and_folders_beside_videos(videos_dir, tmp_path):
    lq = tmp_path / "lq"
    (lq / "b").mkdir(parents=True)
    make_video(lq / "a.avi", [frame[::2, ::2] for frame in moving(8)], codec="ffv1")
    write_frames(lq / "b" / "c", 6, (16, 24), 2)
    clips = of_videos(videos_dir, lq=str(lq))
    assert clips.report().lq == "from files"
    whole = clips.whole(0)
    np.testing.assert_array_equal(whole.lq(4), list(read_frames(lq / "a.avi"))[4])
    assert clips.whole(1).lq(4)[0, 0, 0] == 40


def test_counts_that_differ(videos_dir, tmp_path):
    lq = tmp_path / "lq"
    (lq / "b").mkdir(parents=True)
    make_video(lq / "a.mp4", moving(7, 16, 24))
    make_video(lq / "b" / "c.mp4", moving(6, 16, 24))
    with pytest.raises(Problems, match=r"a\.mp4: lq has 7 frames, but gt has 8"):
        of_videos(videos_dir, lq=str(lq))


def test_what_is_no_video(videos_dir):
    path = videos_dir / "d.mp4"
    path.write_text("no video")
    with pytest.raises(Problems, match=r"d\.mp4.*not a video"):
        of_videos(videos_dir)
    clips = of_videos(videos_dir, on_bad="skip")
    assert clips.names() == ["a", "b/c"]
    path.unlink()
    make_video(videos_dir / "a.mkv", moving(8))
    with pytest.raises(Problems, match=r"is there several times \(\.mkv, \.mp4\); keep one"):
        of_videos(videos_dir)


def test_a_video_that_was_changed(videos_dir):
    clips = of_videos(videos_dir, cache_gib=0)
    make_video(videos_dir / "a.mp4", moving(4))
    with pytest.raises(DataError, match="changed since it was indexed"):
        clips.whole(0).gt(5)
    clips = of_videos(videos_dir)
    make_video(videos_dir / "b" / "c.mkv", moving(4))
    with pytest.raises(DataError, match="it ends after 4 frames"):
        clips.preload()


@pytest.mark.parametrize("cache", ["decoded", "encoded"])
def test_workers_change_nothing(videos_dir, cache):
    batches = []
    for num_workers in (0, 2):
        clips = of_videos(videos_dir, cache=cache, cache_gib=0 if cache == "decoded" else 0.01)
        # Readers that are open in this process are of no use in another.
        clips.sample(0, 0)
        stream = TrainLoader(clips, 2, num_workers=num_workers, seed=3)
        batches.append([next(stream) for _ in range(6)])
        stream.close()
    assert_same(*batches)


def test_videos_of_more_than_8_bits(tmp_path):
    deep = [frame.astype(np.uint16) * 257 for frame in moving(4)]
    make_video(tmp_path / "a.mkv", deep, codec="ffv1", pixel_format="gbrp10le")
    sample = of_videos(tmp_path).sample(0, 0)
    assert sample["gt"].dtype == torch.uint16
    assert sample["gt"].int().max() > 255


def test_a_file_in_memory_reads_like_a_file():
    data = np.arange(50, dtype=np.uint8)
    ours, theirs = FileInMemory(data, "x"), io.BytesIO(data.tobytes())
    for call in (
        lambda f: f.read(7),
        lambda f: f.seek(-5, io.SEEK_END),
        lambda f: f.read(100),
        lambda f: f.tell(),
        lambda f: f.seek(3),
        lambda f: f.seek(4, io.SEEK_CUR),
        lambda f: f.read(),
    ):
        assert call(ours) == call(theirs)
