"""Video files whose writing ends early: what is done is whole, playable, and told from the rest."""

import signal
from fractions import Fraction

import av
import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.io.video import writer as writer_module
from sr_train.io.video.frames import Losses, probe, read_timed_frames
from sr_train.io.video.writer import CODECS, VideoWriter
from tests.videos import make_video, moving

CASES = [(codec, suffix) for codec in CODECS for suffix in (".mp4", ".mkv")]


def played(path):
    """Return the frames of a file that must be whole."""
    losses = Losses()
    frames = list(read_timed_frames(path, losses=losses))
    assert not losses, str(losses)
    return frames


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(("codec", "suffix"), CASES)
def test_what_is_done_is_kept_under_another_name(tmp_path, caplog, codec, suffix, error):
    path = tmp_path / f"a{suffix}"
    path.write_text("an older one")
    frames = moving(23, 64, 80)

    def break_off():
        with VideoWriter(path, (80, 64), 25, codec) as writer:
            for frame in frames:
                writer.write(frame)
            assert len(names(tmp_path)) == 2
            raise error
        return writer

    with pytest.raises(error):
        break_off()
    assert set(names(tmp_path)) == {f"a{suffix}", f"a.partial{suffix}"}
    assert path.read_text() == "an older one"
    found = played(tmp_path / f"a.partial{suffix}")
    assert [frame.time for frame in found] == [Fraction(number, 25) for number in range(23)]
    assert np.abs(found[-1].pixels.astype(int) - frames[-1]).mean() < 3
    assert f"a.partial{suffix}" in caplog.text
    assert "23 frames" in caplog.text


def test_finishing_early_by_will(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", (48, 32), 25) as writer:
        for frame in moving(7):
            writer.write(frame)
        assert writer.finish_early() == tmp_path / "a.partial.mp4" == writer.partial
    assert names(tmp_path) == ["a.partial.mp4"]
    assert len(played(tmp_path / "a.partial.mp4")) == 7
    with VideoWriter(tmp_path / "b.mp4", (48, 32), 25) as writer:
        assert writer.finish_early() is None
    assert names(tmp_path) == ["a.partial.mp4"]


def test_nothing_is_left_of_a_file_without_frames(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", (48, 32), 25):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_goes_as_far_as_the_frames(tmp_path, suffix):
    source = make_video(tmp_path / "in.mp4", moving(100), audio="aac")
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, (48, 32), 25, like=probe(source), copy_from=source) as writer:
        for frame in list(read_timed_frames(source))[:50]:
            writer.write(frame.pixels, frame.time)
        writer.finish_early()
    path = tmp_path / f"a.partial{suffix}"
    assert len(played(path)) == 50
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        end = float((packets[-1].pts + packets[-1].duration) * stream.time_base)
    assert end == pytest.approx(2, abs=0.15)


def test_a_signal_at_any_moment_loses_no_frame_that_was_written(tmp_path):
    """Ctrl-C comes while the encoder works; what it has made must reach the file."""
    frames = moving(40, 128, 160)
    for step in range(20):
        begun = 0
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            with VideoWriter(tmp_path / f"{step}.mkv", (160, 128), 25) as writer:
                signal.setitimer(signal.ITIMER_REAL, 0.05 + 0.0037 * step)
                for frame in frames * 50:
                    begun = writer.written
                    writer.write(frame)
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGALRM, before)
        kept = len(played(writer.partial)) if writer.partial else 0
        assert kept in {begun, begun + 1}


def test_a_disk_that_is_full_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def write():
        with VideoWriter(tmp_path / "a.mkv", (48, 32), 25, "ffv1") as writer:
            writer.write(moving(1)[0])
            monkeypatch.setattr(writer_module, "_TAKE_FIRST", full)
            writer.write(moving(1)[0])

    with pytest.raises(DataError, match=r"a\.mkv: cannot be written: No space left"):
        write()
    assert names(tmp_path) == []
