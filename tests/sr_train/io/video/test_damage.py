"""Damaged, cut and oddly made videos read to their end: what is there, what is lost, and where."""

from fractions import Fraction

import av
import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.io.video.decoding import Decoder
from sr_train.io.video.frames import Losses, probe, read_frames, read_timed_frames
from tests.videos import (
    make_video,
    moving,
    noisy,
    packets_of,
    plainly_decoded,
    remuxed,
    with_zeros,
)

PLAIN = {"bf": "0", "sc_threshold": "0"}
"""Each packet is shown when it is decoded."""


def read(path):
    losses = Losses()
    return list(read_timed_frames(path, losses=losses)), losses


def numbers(frames):
    return [frame.number for frame in frames]


def with_threads(monkeypatch, threads):
    """Let decoders have as many threads as on a larger machine."""
    original = Decoder.__init__

    def init(self, stream, *, hasty):
        original(self, stream, hasty=hasty)
        stream.codec_context.thread_count = threads

    monkeypatch.setattr(Decoder, "__init__", init)


def assert_at_their_times(frames, fps=25):
    assert [frame.time for frame in frames] == [
        pytest.approx(frame.number / fps, abs=2e-3) for frame in frames
    ]


@pytest.mark.parametrize("threads", [2, 16])
@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {}),
        (".mp4", "libx264", PLAIN),
        (".mov", "mjpeg", {}),
        (".mkv", "libx264", PLAIN),
        (".avi", "libx264", {}),
        (".avi", "mjpeg", {}),
        (".flv", "libx264", PLAIN),
    ],
)
def test_zeros_in_the_middle_cost_four_frames_of_a_hundred(
    tmp_path, monkeypatch, suffix, codec, options, threads
):
    """Also where many are decoded at a time, and those in work are lost with the damaged one."""
    with_threads(monkeypatch, threads)
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    source = make_video(
        tmp_path / f"a{suffix}", noisy(100), codec=codec, pixel_format=pixel_format, options=options
    )
    path = with_zeros(source, tmp_path / f"b{suffix}", 50, 53)
    frames, losses = read(path)
    assert len(frames) == 96
    assert (losses.given, len(losses.missing), losses.total) == (96, 4, 100)
    assert len(set(range(100)) - set(numbers(frames))) == 4
    assert losses.early_end is None
    assert_at_their_times(frames)
    lost = sorted(set(range(100)) - set(numbers(frames)))
    assert lost[0] >= 48
    assert lost[-1] <= 56
    assert str(losses).startswith("4 of 100 frames are damaged and missing (frame")
    assert f"{lost[0] / 25:.3f} s" in str(losses)
    if options == PLAIN or codec == "mjpeg":
        assert str(losses.missing) == "frames 50 to 53 at 2.000 s to 2.120 s"


def test_the_last_frames_may_be_the_damaged_ones(tmp_path, monkeypatch):
    with_threads(monkeypatch, 16)
    source = make_video(tmp_path / "a.mp4", noisy(30), options=PLAIN)
    frames, losses = read(with_zeros(source, tmp_path / "b.mp4", 28, 29))
    assert numbers(frames) == list(range(28))
    assert str(losses) == (
        "2 of 30 frames are damaged and missing (frames 28 to 29 at 1.120 s to 1.160 s)"
    )


def test_damage_near_the_end_takes_no_other_frames_with_it(tmp_path, monkeypatch):
    with_threads(monkeypatch, 16)
    source = make_video(tmp_path / "a.mp4", noisy(60), options=PLAIN)
    frames, losses = read(with_zeros(source, tmp_path / "b.mp4", 50, 51))
    assert numbers(frames) == [*range(50), *range(52, 60)]
    assert len(losses.missing) == 2


def test_the_first_frame_may_be_the_damaged_one(tmp_path):
    """What was made from it cannot be decoded either, up to the next key frame."""
    source = make_video(tmp_path / "a.mp4", noisy(30), options={**PLAIN, "g": "10"})
    frames, losses = read(with_zeros(source, tmp_path / "b.mp4", 0, 0))
    assert numbers(frames) == list(range(10, 30))
    assert_at_their_times(frames)
    assert len(losses.missing) == 10
    assert losses.undecodable_start == 0


def test_frames_that_are_made_up_in_part_are_given_and_told(tmp_path):
    source = make_video(tmp_path / "a.mp4", noisy(30), codec="mpeg4", options={"g": "10"})
    data = bytearray(source.read_bytes())
    packet = packets_of(source)[12]
    half = packet.size // 2
    data[packet.pos + half : packet.pos + packet.size] = bytes(packet.size - half)
    (tmp_path / "b.mp4").write_bytes(data)
    frames, losses = read(tmp_path / "b.mp4")
    assert numbers(frames) == list(range(30))
    assert str(losses) == "1 of 30 frames is damaged in parts (frame 12 at 0.480 s)"


def test_what_is_before_the_damage_is_given_once_and_unchanged(tmp_path):
    source = make_video(tmp_path / "a.mp4", noisy(60), options={"g": "20"})
    path = with_zeros(source, tmp_path / "b.mp4", 45, 45)
    whole = {frame.number: frame.pixels for frame in read_timed_frames(source)}
    frames, _ = read(path)
    assert len(set(numbers(frames))) == len(frames) == 59
    for frame in frames[:40]:
        np.testing.assert_array_equal(frame.pixels, whole[frame.number])


def test_a_frame_of_another_size_is_missing(tmp_path):
    """As a damaged header says, or a broadcast that switches."""
    first = make_video(tmp_path / "a.ts", moving(10, 64, 80), options={"g": "5"})
    second = make_video(tmp_path / "b.ts", moving(10, 48, 64), options={"g": "5"})
    (tmp_path / "c.ts").write_bytes(first.read_bytes() + second.read_bytes())
    frames, losses = read(tmp_path / "c.ts")
    assert {frame.pixels.shape for frame in frames} == {(64, 80, 3)}
    assert (len(frames), losses.total) == (10, 20)
    assert "10 of 20 frames are damaged and missing (frames 10 to 19" in str(losses)


def test_damage_between_packets_is_seen_by_the_gap(tmp_path):
    """The demuxer steps over it without a word; in AVI, times then are those of the index."""
    for suffix in (".mkv", ".avi", ".flv"):
        options = {"cluster_time_limit": "480"} if suffix == ".mkv" else {}
        codec = "ffv1" if suffix == ".mkv" else "mjpeg" if suffix == ".avi" else "libx264"
        first = make_video(
            tmp_path / "a.mkv",
            noisy(60),
            codec=codec,
            pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p",
            options={"g": "12"} if codec == "ffv1" else PLAIN if codec == "libx264" else {},
        )
        source = remuxed(first, tmp_path / f"b{suffix}", options=options)
        data = bytearray(source.read_bytes())
        packet = packets_of(source)[16]
        data[packet.pos - 30 : packet.pos + 30] = bytes(60)
        path = tmp_path / f"c{suffix}"
        path.write_bytes(data)
        frames, losses = read(path)
        assert len(frames) < 60, suffix
        assert losses.total == 60, suffix
        assert numbers(frames)[-1] == 59
        assert_at_their_times(frames)
        assert losses.missing.spans[0].first in {15, 16}


@pytest.mark.parametrize(
    ("suffix", "codec", "says_total"),
    [
        (".mkv", "libx264", True),
        (".webm", "libvpx-vp9", True),
        (".avi", "libx264", True),
        (".flv", "libx264", True),
        (".ts", "libx264", False),
        (".m2ts", "libx264", False),
        (".y4m", "rawvideo", False),
        (".gif", "gif", False),
    ],
)
def test_a_file_that_was_cut_says_so(tmp_path, suffix, codec, says_total):
    options = {"cpu-used": "8"} if codec == "libvpx-vp9" else {}
    pixel_format = "rgb8" if codec == "gif" else "yuv420p"
    source = make_video(
        tmp_path / f"a{suffix}",
        noisy(50),
        codec=codec,
        pixel_format=pixel_format,
        options=options,
    )
    data = source.read_bytes()
    path = tmp_path / f"b{suffix}"
    path.write_bytes(data[: len(data) * 6 // 10 // 188 * 188 + 50])
    frames, losses = read(path)
    assert 10 < len(frames) < 45
    assert losses.early_end.startswith("it ends early, at ")
    if says_total:
        assert losses.total == 50
        assert f"{losses.cut_off} of 50 frames " in str(losses)
    assert losses.missing.spans == [] or losses.missing.spans[0].first >= len(frames) - 1


def test_an_avi_may_be_cut_anywhere(tmp_path):
    source = make_video(tmp_path / "a.avi", noisy(30), codec="mjpeg", pixel_format="yuvj420p")
    data = source.read_bytes()
    packet = packets_of(source)[20]
    for place in (*range(packet.pos - 12, packet.pos + 3), packet.pos + packet.size):
        (tmp_path / "b.avi").write_bytes(data[:place])
        frames, losses = read(tmp_path / "b.avi")
        assert len(frames) in {19, 20, 21}, place
        assert losses.early_end, place
        assert losses.total == 30, place


def test_an_mp4_that_was_cut_behind_its_index_says_so(tmp_path, caplog):
    source = make_video(tmp_path / "a.mp4", noisy(50), options=PLAIN)
    whole = remuxed(source, tmp_path / "b.mp4", options={"movflags": "faststart"})
    data = whole.read_bytes()
    (tmp_path / "c.mp4").write_bytes(data[: len(data) // 2])
    frames, losses = read(tmp_path / "c.mp4")
    assert 15 < len(frames) < 35
    assert losses.total == 50
    assert "it ends early" in str(losses)
    assert len(list(read_timed_frames(tmp_path / "c.mp4"))) == len(frames)
    assert "c.mp4: " in caplog.text
    assert "of 50 frames are missing" in caplog.text


def test_sound_that_lasts_longer_is_no_early_end(tmp_path):
    """The container is as long as its longest track."""
    for suffix in (".mkv", ".mp4", ".mov", ".avi", ".flv", ".ts"):
        path = tmp_path / f"a{suffix}"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            sound = out.add_stream("aac", rate=16000, layout="mono")
            packets = []
            for number, pixels in enumerate(moving(10)):
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts = number
                packets += stream.encode(frame)
            packets += stream.encode(None)
            for start in range(0, 48000, 1024):
                part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = 16000, start, Fraction(1, 16000)
                packets += sound.encode(part)
            packets += sound.encode(None)
            out.start_encoding()
            for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
                out.mux(packet)
        frames, losses = read(path)
        assert (len(frames), str(losses)) == (10, ""), suffix


@pytest.mark.parametrize("hidden", [1, 10, 25])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_an_edit_list_is_no_damage(tmp_path, suffix, hidden):
    source = make_video(tmp_path / "a.mp4", moving(40), options={"g": "12"})
    path = remuxed(source, tmp_path / f"b{suffix}", shift=hidden * 512)
    expected = len(plainly_decoded(path))
    frames, losses = read(path)
    assert (len(frames), str(losses), losses.notes) == (expected, "", [])
    assert probe(path).frames == expected
    assert len(list(read_frames(path))) == expected
    assert frames[0].time == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "10", "bf": "3", "x264-params": "open-gop=1"}),
        ("libx265", {"x265-params": "log-level=none:keyint=10:min-keyint=10:open-gop=1:bframes=4"}),
        ("mpeg2video", {"g": "10", "bf": "2"}),
    ],
)
@pytest.mark.parametrize("further", [0, 3])
def test_a_start_in_the_middle_is_told_but_no_damage(tmp_path, suffix, codec, options, further):
    """From a key frame whose first followers need others before it, or from behind one."""
    source = make_video(tmp_path / f"a{suffix}", moving(40, 64, 80), codec=codec, options=options)
    keys = [number for number, packet in enumerate(packets_of(source)) if packet.is_keyframe]
    start = keys[1] + further
    path = remuxed(source, tmp_path / f"b{suffix}", lambda number: number >= start)
    expected = plainly_decoded(path)
    frames, losses = read(path)
    assert not losses, str(losses)
    assert numbers(frames) == list(range(len(expected)))
    assert len(list(read_frames(path))) == len(expected)
    left_out = losses.undecodable_start
    if further:
        assert left_out > 0
    if left_out:
        assert f"{left_out} frame" in losses.notes[0]
        assert "cannot be decoded without what was before" in losses.notes[0]


def test_a_rate_that_varies_is_no_damage(tmp_path):
    times = [0, 40, 80, 120, 160, 900, 940, 980, 3000, 3040]
    for suffix in (".mkv", ".mp4", ".ts", ".flv", ".avi"):
        path = make_video(tmp_path / f"a{suffix}", moving(10), options=PLAIN, times=times)
        frames, losses = read(path)
        assert not losses, f"{suffix}: {losses}"
        assert [round(frame.time * 1000) for frame in frames] == times, suffix


def test_a_time_far_off_is_not_believed(tmp_path):
    """A bit of a time stamp says 115 days."""

    def change(number, packet):
        if number == 10:
            packet.pts += 10_000_000_000

    source = make_video(tmp_path / "a.mkv", moving(20), options=PLAIN)
    path = remuxed(source, tmp_path / "b.mkv", change=change)
    frames, losses = read(path)
    assert not losses
    assert [float(frame.time) for frame in frames] == pytest.approx(
        [number / 25 for number in range(20)], abs=2e-3
    )


def test_more_than_a_few_places_are_counted(tmp_path):
    source = make_video(
        tmp_path / "a.mov", noisy(40), codec="mjpeg", pixel_format="yuvj420p", options={}
    )
    path = source
    for place in range(2, 38, 4):
        path = with_zeros(path, tmp_path / f"{place}.mov", place, place)
    frames, losses = read(path)
    assert (len(frames), len(losses.missing.spans)) == (31, 9)
    assert "; and 4 places more)" in str(losses)


def test_huge_frames_are_not_believed(tmp_path):
    """60000x60000 in a header of a few bytes: no memory is asked for."""
    path = make_video(tmp_path / "a.mp4", moving(2), codec="mjpeg", pixel_format="yuvj420p")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (60000).to_bytes(2, "big") * 2
    at = data.index(b"\xff\xc0", at + 2)
    data[at + 5 : at + 9] = (60000).to_bytes(2, "big") * 2
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.mp4: holds no frame that can be decoded"):
        probe(path)
    entry = data.index(b"mp4v") + 28
    data[entry : entry + 4] = (60000).to_bytes(2, "big") * 2
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.mp4: (too large: its header says 60000x|holds no)"):
        probe(path)


def test_the_limit_of_megapixels_holds_for_frames(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mkv", moving(2, 64, 80))
    monkeypatch.setenv("SR_TRAIN_MAX_MEGAPIXELS", "0.005")
    for use in (probe, lambda path: list(read_timed_frames(path)), lambda p: list(read_frames(p))):
        with pytest.raises(DataError, match=r"a\.mkv: too large: .* 80x64.*io.max_megapixels=1"):
            use(path)
    monkeypatch.setenv("SR_TRAIN_MAX_MEGAPIXELS", "0.006")
    assert len(list(read_frames(path))) == 2


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'a.mp4'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\na.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_lists_of_other_files_are_no_videos(tmp_path, text):
    make_video(tmp_path / "a.mp4", moving(3))
    (tmp_path / "b.mp4").write_text(text)
    with pytest.raises(DataError, match=r"b\.mp4: not a video"):
        probe(tmp_path / "b.mp4")


@pytest.mark.parametrize("name", ["10:30 clip.mp4", "pipe:.mp4", "a b'c.mp4", "caf\udce9.mp4"])
def test_names_as_people_have_them(tmp_path, monkeypatch, name):
    make_video(tmp_path / "a.mp4", moving(3)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(read_timed_frames(name))) == 3
    assert len(list(read_frames(name))) == 3


def test_tags_that_are_no_text_do_no_harm(tmp_path):
    path = make_video(tmp_path / "a.mkv", moving(3))
    data = path.read_bytes()
    at = data.index(b"Lavf")
    path.write_bytes(data[:at] + b"\xff\xfe\xfa\xfb" + data[at + 4 :])
    assert len(list(read_timed_frames(path))) == 3
