"""Frames by number: exactly those that plain decoding from the start gives, whatever holds them."""

import random
from fractions import Fraction

import av
import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.io.video import reader as reader_module
from sr_train.io.video.colour import ToRGB, bits_of, orientation_of
from sr_train.io.video.frames import FrameReader, Losses, read_frames, read_timed_frames
from tests.videos import (
    make_video,
    moving,
    noisy,
    packets_of,
    plainly_decoded,
    remuxed,
    with_zeros,
)

COUNT = 26
X265 = "log-level=none:pools=none:frame-threads=1"
KINDS = {
    "h264": ("libx264", "yuv420p", {"g": "8"}),
    "h264 without B": ("libx264", "yuv420p", {"g": "8", "bf": "0"}),
    "h264 open": ("libx264", "yuv420p", {"g": "8", "bf": "3", "x264-params": "open-gop=1"}),
    "h264 refresh": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=8"}),
    "h264 fields": ("libx264", "yuv420p", {"g": "8", "x264-params": "interlaced=1"}),
    "hevc": ("libx265", "yuv420p", {"x265-params": f"{X265}:keyint=8:min-keyint=8"}),
    "hevc open": (
        "libx265",
        "yuv420p",
        {"x265-params": f"{X265}:keyint=8:min-keyint=8:open-gop=1:bframes=4"},
    ),
    "mpeg4": ("mpeg4", "yuv420p", {"g": "8"}),
    "mpeg4 with B": ("mpeg4", "yuv420p", {"g": "8", "bf": "2"}),
    "mpeg2": ("mpeg2video", "yuv420p", {"g": "8", "bf": "2"}),
    "mpeg1": ("mpeg1video", "yuv420p", {"g": "8", "bf": "2"}),
    "mjpeg": ("mjpeg", "yuvj420p", {}),
    "ffv1": ("ffv1", "yuv420p", {"g": "8"}),
    "vp8": ("libvpx", "yuv420p", {"g": "8", "cpu-used": "8", "lag-in-frames": "8"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"g": "8", "cpu-used": "8", "lag-in-frames": "8"}),
    "av1": ("libsvtav1", "yuv420p", {"g": "8", "preset": "12"}),
    "prores": ("prores_ks", "yuv422p10le", {}),
    "wmv2": ("wmv2", "yuv420p", {"g": "8"}),
    "flv1": ("flv", "yuv420p", {"g": "8"}),
    "gif": ("gif", "rgb8", {}),
    "raw": ("rawvideo", "yuv420p", {}),
}
PLACES = {
    "mp4": "h264/h264 without B/h264 open/h264 refresh/h264 fields/hevc/hevc open/mpeg4 with B/"
    "mpeg2/mjpeg/ffv1/vp9/av1",
    "mov": "h264/hevc open/mpeg4/mjpeg/prores",
    "mkv": "h264/h264 open/h264 refresh/hevc/mpeg4 with B/mpeg2/mjpeg/ffv1/vp8/vp9/av1",
    "avi": "h264/h264 without B/h264 open/h264 refresh/h264 fields/mpeg4/mpeg4 with B/mpeg2/"
    "mjpeg/ffv1/vp8/vp9/av1/wmv2/flv1/raw",
    "ts": "h264/h264 open/hevc open/mpeg4/mpeg2/mpeg1",
    "m2ts": "h264 open",
    "mpg": "mpeg1/mpeg2/h264/hevc",
    "vob": "mpeg2",
    "webm": "vp8/vp9/av1",
    "flv": "h264/h264 open/hevc/av1/flv1",
    "wmv": "h264/wmv2/mpeg4 with B/mpeg2/vp8",
    "3gp": "h264/mpeg4",
    "ogv": "vp8",
    "nut": "h264/mpeg4 with B/mjpeg",
    "mxf": "h264/mpeg2/prores",
    "h264": "h264/h264 open",
    "hevc": "hevc/hevc open",
    "m2v": "mpeg2",
    "m1v": "mpeg1",
    "mjpeg": "mjpeg",
    "ivf": "vp8/vp9/av1",
    "obu": "av1",
    "gif": "gif",
    "y4m": "raw",
}
CASES = [(kind, suffix) for suffix, kinds in PLACES.items() for kind in kinds.split("/")]
UNEVEN = [40 * n for n in (0, 1, 2, 5, 6, 7, 8, 9, 10, 20, 21, 22, *range(24, 38))]


def made(folder, kind, suffix, times=None):
    codec, pixel_format, options = KINDS[kind]
    return make_video(
        folder / f"a.{suffix}",
        moving(COUNT, 64, 80),
        codec=codec,
        pixel_format=pixel_format,
        options=options,
        times=times,
    )


def as_rgb(frames):
    convert = ToRGB(bits_of(frames[0]), orientation_of(frames[0]))
    return [convert(frame) for frame in frames]


def assert_same(path, count=COUNT):
    """Compare sequential reading, and access by number in any order, with plain decoding."""
    expected = as_rgb(plainly_decoded(path))
    assert len(expected) == count
    losses = Losses()
    timed = list(read_timed_frames(path, losses=losses))
    assert not losses, str(losses)
    assert [frame.number for frame in timed] == list(range(count))
    np.testing.assert_array_equal([frame.pixels for frame in timed], expected)
    draw = random.Random(0)
    order = [draw.randrange(count) for _ in range(12)] + list(range(0, count, 3))
    with FrameReader(path) as reader:
        assert len(reader) == count
        for number in order:
            np.testing.assert_array_equal(reader[number], expected[number], str(number))
        with pytest.raises(IndexError):
            reader[count]
    return [frame.time for frame in timed]


@pytest.mark.parametrize(("kind", "suffix"), CASES)
def test_frames_by_number_are_those_of_plain_decoding(tmp_path, kind, suffix):
    times = assert_same(made(tmp_path, kind, suffix))
    steps = np.diff([float(time) for time in times])
    np.testing.assert_allclose(steps, 1 / 25, atol=1e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
@pytest.mark.parametrize("kind", ["h264", "h264 open", "hevc"])
def test_a_variable_rate_changes_nothing(tmp_path, kind, suffix):
    times = assert_same(made(tmp_path, kind, suffix, UNEVEN))
    assert [round(time * 1000) for time in times] == UNEVEN


@pytest.mark.parametrize("kind", ["h264", "hevc open", "mpeg4 with B", "mjpeg", "vp9"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_that_start_below_zero(tmp_path, kind, suffix):
    """An edit list, in MP4, lets the first frames be decoded only; in Matroska all are shown."""
    source = made(tmp_path, kind, "mp4")
    hidden = 11
    path = remuxed(source, tmp_path / f"b.{suffix}", shift=hidden * 512)
    assert_same(path, COUNT - hidden if suffix == "mp4" else COUNT)


@pytest.mark.parametrize("kind", ["h264", "h264 open", "hevc"])
def test_times_that_are_wrong_are_not_trusted(tmp_path, kind):
    """As of files that were AVIs once: each packet is said to be shown when it is decoded."""

    def say(number, packet):
        packet.pts = packet.dts = 40 * number

    source = made(tmp_path, kind, "mkv")
    times = assert_same(remuxed(source, tmp_path / "b.mkv", change=say))
    np.testing.assert_allclose(np.diff([float(time) for time in times]), 1 / 25, atol=1e-3)
    with FrameReader(tmp_path / "b.mkv") as reader:
        assert reader.index.was_decoded


def test_times_that_come_twice(tmp_path):
    source = made(tmp_path, "h264 without B", "mkv")
    path = tmp_path / "b.mkv"
    remuxed(source, path, change=lambda n, packet: setattr(packet, "dts", None))
    data = bytearray(path.read_bytes())
    # The time of a block is in its second and third byte, behind the number of its track.
    fourth, fifth = packets_of(path)[4:6]
    head = [data.rindex(b"\x81", 0, packet.pos + 4) for packet in (fourth, fifth)]
    data[head[1] + 1 : head[1] + 3] = data[head[0] + 1 : head[0] + 3]
    path.write_bytes(data)
    assert sorted(packet.pts for packet in packets_of(path)).count(160) == 2
    times = assert_same(path)
    assert times == sorted(set(times))


def test_files_behind_each_other(tmp_path):
    """Times begin anew in the middle; frames and their steps go on."""
    source = made(tmp_path, "h264", "ts")
    (tmp_path / "b.ts").write_bytes(source.read_bytes() * 2)
    times = assert_same(tmp_path / "b.ts", 2 * COUNT)
    np.testing.assert_allclose(np.diff([float(time) for time in times]), 1 / 25, atol=1e-3)


def vop(data, *, is_coded=True):
    """Return whether bytes are a coded image of MPEG-4, or make one that is not coded."""
    return data[data.index(b"\x00\x00\x01\xb6") :] if is_coded else b"\x00\x00\x01\xb6\x50\x00"


def test_packed_b_frames(tmp_path):
    """As DivX and Xvid write them: a packet with two images, then one with none."""
    source = made(tmp_path, "mpeg4 with B", "avi")
    packets = [bytes(packet) for packet in packets_of(source)]
    images = [packet[packet.index(b"\x00\x00\x01\xb6") + 4] >> 6 for packet in packets]
    with av.open(str(source)) as given, av.open(str(tmp_path / "b.avi"), "w") as out:
        written = out.add_stream_from_template(given.streams.video[0])
        number, laid = 0, []
        while number < len(packets):
            run = 1
            while number + run < len(packets) and images[number + run] == 2:
                run += 1
            # The B-frames (2) of each image in its packet; one placeholder for each.
            laid.append(b"".join(packets[number : number + min(run, 2)]))
            laid += [vop(b"", is_coded=False)] * (min(run, 2) - 1)
            laid += packets[number + 2 : number + run]
            number += run
        mark = b"\x00\x00\x01\xb2DivX503b1393p"
        at = laid[0].index(b"\x00\x00\x01\xb6")
        laid[0] = laid[0][:at] + mark + laid[0][at:]
        for place, data in enumerate(laid):
            packet = av.Packet(data)
            packet.pts = packet.dts = place
            packet.time_base = Fraction(1, 25)
            packet.stream = written
            packet.is_keyframe = images[place] == 0 if place else True
            out.mux(packet)
    frames = plainly_decoded(tmp_path / "b.avi")
    assert_same(tmp_path / "b.avi", len(frames))


def fed(monkeypatch):
    count = []
    original = reader_module.Decoder.feed

    def feed(self, *args):
        count.append(1)
        return original(self, *args)

    monkeypatch.setattr(reader_module.Decoder, "feed", feed)
    return count


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "flv", "h264"])
def test_no_more_is_decoded_than_needed(tmp_path, monkeypatch, suffix):
    path = made(tmp_path, "h264 without B", suffix)
    with FrameReader(path) as reader:
        count = fed(monkeypatch)
        for number in range(COUNT):
            reader[number]
        assert len(count) == COUNT
        count.clear()
        reader[17]
        # From the key frame at 16.
        assert len(count) <= 4


def test_an_index_serves_other_readers(tmp_path, monkeypatch):
    path = made(tmp_path, "h264", "avi")
    with FrameReader(path) as reader:
        index = reader.index
        expected = reader[20]
    monkeypatch.setattr(reader_module, "build_index", None)
    with FrameReader(path, index) as reader:
        np.testing.assert_array_equal(reader[20], expected)
    other = make_video(tmp_path / "b.avi", moving(COUNT, 64, 80, seed=1), options={"g": "8"})
    with FrameReader(other, index) as reader, pytest.raises(DataError, match="changed since"):
        reader[20]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_damaged_frames_are_refused_and_no_other_takes_their_number(tmp_path, suffix):
    """Two frames are zeros, and the rest of their group was made from them."""
    options = {"g": "8", "bf": "0", "sc_threshold": "0"}
    source = make_video(tmp_path / f"a.{suffix}", noisy(COUNT), options=options)
    path = with_zeros(source, tmp_path / f"b.{suffix}", 10, 11)
    with FrameReader(source) as whole, FrameReader(path) as reader:
        assert len(reader) == COUNT
        for number in [20, 5, 12, 9, 16, 25, 3, *range(COUNT)]:
            if 10 <= number <= 15:
                with pytest.raises(DataError, match=rf"b\.{suffix}: frame {number} "):
                    reader[number]
            else:
                np.testing.assert_array_equal(reader[number], whole[number])
    frames = read_frames(path)
    assert len([next(frames) for _ in range(10)]) == 10
    with pytest.raises(DataError, match="frame 10 "):
        next(frames)


def test_frames_that_are_not_even_packets_any_more(tmp_path):
    """Damage between packets of a Matroska file costs the rest of its cluster."""
    options = {"g": "12", "bf": "0", "sc_threshold": "0"}
    first = make_video(tmp_path / "a.mp4", noisy(60), options=options)
    source = remuxed(first, tmp_path / "a.mkv", options={"cluster_time_limit": "480"})
    data = bytearray(source.read_bytes())
    packet = packets_of(source)[16]
    data[packet.pos - 4 : packet.pos + 60] = bytes(64)
    (tmp_path / "b.mkv").write_bytes(data)
    refused = []
    with FrameReader(source) as whole, FrameReader(tmp_path / "b.mkv") as reader:
        assert len(reader) == 60
        for number in range(60):
            try:
                pixels = reader[number]
            except DataError:
                refused.append(number)
            else:
                np.testing.assert_array_equal(pixels, whole[number], str(number))
    # The key frame at 24 is in the cluster too.
    assert refused == list(range(16, 36))
