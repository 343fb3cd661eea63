"""What lies beside the image: copied where the container can hold it, named where not."""

import struct
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.io.video.frames import probe, read_timed_frames
from sr_train.io.video.writer import VideoWriter
from tests.videos import make_video, moving

STYLES = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, "
    b"PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, "
    b"StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, "
    b"MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,"
    b"100,0,0,1,1,0,2,10,10,10,0\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, "
    b"MarginL, MarginR, MarginV, Effect, Text\r\n"
)
CHAPTERS = [
    {"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "A"}},
    {"id": 2, "start": 500, "end": 999, "time_base": Fraction(1, 1000), "metadata": {"title": "B"}},
]


def film(path, subtitles, *, font=False, tags=None):
    """Write a second of video with two sound tracks, subtitles, chapters and tags."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata.update(language="eng")
        sounds = [out.add_stream("aac", rate=48000, layout="mono") for _ in range(2)]
        sounds[0].metadata.update(language="ger", title="Deutsch")
        sounds[0].disposition = 0
        sounds[1].metadata.update(language="fre")
        sounds[1].disposition = av.stream.Disposition.default | av.stream.Disposition.dub
        if subtitles == "mov_text":
            words = out.add_stream("mov_text")
            words.codec_context.subtitle_header = STYLES
            words.codec_context.time_base = Fraction(1, 1000)
            words.codec_context.open()
        else:
            words = out.add_mux_stream(subtitles, time_base=Fraction(1, 1000))
        words.metadata.update(language="spa")
        words.disposition = av.stream.Disposition.forced
        out.metadata.update(title="Film", comment="C", **(tags or {}))
        if font:
            out.add_attachment("f.ttf", "application/x-truetype-font", b"font")
        out.set_chapters(CHAPTERS)
        packets = []
        for number, pixels in enumerate(moving(25, 48, 64)):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = number
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for sound in sounds:
            for start in range(0, 47104, 1024):
                part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = 48000, start, Fraction(1, 48000)
                packets += sound.encode(part)
            packets += sound.encode(None)
        for number, text in enumerate([b"hello", b"world"]):
            size = struct.pack(">H", len(text)) if subtitles == "mov_text" else b""
            packet = av.Packet(size + text)
            packet.pts = packet.dts = 500 * number
            packet.duration, packet.time_base, packet.stream = 400, Fraction(1, 1000), words
            packets.append(packet)
        out.start_encoding()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path


def rewritten(source, target, **settings):
    info = probe(source)
    with VideoWriter(
        target, (info.width, info.height), info.fps, like=info, copy_from=source, **settings
    ) as writer:
        for frame in read_timed_frames(source):
            writer.write(frame.pixels, frame.time)
    return writer.notes


def texts(path):
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        packets = [packet for packet in container.demux(stream) if packet.size > 2]
        return [(float(packet.pts * packet.time_base), bytes(packet)[-5:]) for packet in packets]


def tracks(path):
    """Return (kind, language, title, flags) of all but chapters, which MP4 keeps in a track."""
    with av.open(str(path)) as container:
        return [
            (stream.type, stream.metadata.get("language"), stream.disposition)
            for stream in container.streams
            if stream.type != "data"
        ]


@pytest.mark.parametrize(("suffix", "subtitles"), [(".mkv", "subrip"), (".mp4", "mov_text")])
def test_all_is_kept_where_the_container_can_hold_it(tmp_path, suffix, subtitles):
    source = film(tmp_path / f"a{suffix}", subtitles, font=suffix == ".mkv")
    path = tmp_path / f"b{suffix}"
    assert rewritten(source, path) == []
    assert tracks(path) == tracks(source)
    kinds = [kind for kind, *_ in tracks(path)]
    assert kinds[:4] == ["video", "audio", "audio", "subtitle"]
    assert texts(path) == texts(source) == [(0.0, b"hello"), (0.5, b"world")]
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "Film"
        titles = [chapter["metadata"]["title"] for chapter in container.chapters()]
        starts = [chapter["start"] * chapter["time_base"] for chapter in container.chapters()]
        if suffix == ".mkv":
            assert container.streams.audio[0].metadata["title"] == "Deutsch"
            assert container.streams[4].metadata["filename"] == "f.ttf"
            assert container.streams[4].data == b"font"
    assert (titles, starts) == (["A", "B"], [0, Fraction(1, 2)])


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_what_does_not_fit_is_named_a_line_each(tmp_path, suffix):
    source = film(tmp_path / "a.mkv", "subrip", font=True, tags={"MOOD": "grim"})
    notes = rewritten(source, tmp_path / f"b{suffix}")
    kind = suffix[1:]
    assert notes[0] == (
        f"a subtitle track (subrip, spa) is left out: {kind} cannot hold it; .mkv may"
    )
    assert notes[1] == "an attached file (f.ttf) is left out: only .mkv holds files"
    assert f"tags that {kind} does not hold: MOOD" in notes
    lost = [note for note in notes if "loses its" in note]
    assert bool(lost) == (suffix == ".mov")
    if lost:
        assert lost == ["an audio track (aac, fre) loses its language fre, flag dub"]
    assert [kind for kind, *_ in tracks(tmp_path / f"b{suffix}")] == ["video", "audio", "audio"]
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        # There, a title has its place in the name of the handler.
        assert container.streams.audio[0].metadata["handler_name"] == "Deutsch"


def test_a_cover_a_second_video_and_data_are_named(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        streams.append(out.add_stream("mjpeg", rate=25))
        for stream in streams:
            stream.width, stream.height = 48, 32
            stream.pix_fmt = "yuvj420p" if stream.name == "mjpeg" else "yuv420p"
        streams[2].disposition = av.stream.Disposition.attached_pic
        for number, pixels in enumerate(moving(3)):
            for stream in streams[: 3 if number == 0 else 2]:
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts = number
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    notes = rewritten(tmp_path / "a.mp4", tmp_path / "b.mkv")
    assert notes == [
        "a video track (h264) is left out: only one video track is written",
        "the cover image is left out: it does not move",
    ]


def test_sound_can_be_left_out(tmp_path):
    source = film(tmp_path / "a.mkv", "subrip")
    assert rewritten(source, tmp_path / "b.mkv", audio=False) == []
    assert [kind for kind, *_ in tracks(tmp_path / "b.mkv")] == ["video", "subtitle"]
    webm = make_video(tmp_path / "c.mkv", moving(3, 64, 64), audio="aac")
    rewritten(webm, tmp_path / "d.webm", codec="av1", audio=False)
    assert probe(tmp_path / "d.webm").audio == ()


def test_sound_of_an_unknown_codec_is_an_error_that_names_it(tmp_path):
    source = make_video(tmp_path / "a.mkv", moving(3), audio="aac")
    data = source.read_bytes()
    (tmp_path / "b.mkv").write_bytes(data.replace(b"A_AAC", b"A_QQQ"))
    assert probe(tmp_path / "b.mkv").audio == ("unknown",)
    with pytest.raises(DataError, match=r"its audio \(unknown\) cannot go into matroska"):
        rewritten(tmp_path / "b.mkv", tmp_path / "c.mkv")
    assert rewritten(tmp_path / "b.mkv", tmp_path / "c.mkv", audio=False) == []


def test_damaged_sound_does_not_lose_the_job(tmp_path):
    source = make_video(tmp_path / "a.mp4", moving(50), audio="aac")
    with av.open(str(source)) as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    data = bytearray(source.read_bytes())
    for position, size in places[10:14]:
        data[position : position + size] = bytes(size)
    (tmp_path / "b.mp4").write_bytes(data)
    rewritten(tmp_path / "b.mp4", tmp_path / "c.mp4")
    assert len(list(read_timed_frames(tmp_path / "c.mp4"))) == 50


def test_times_of_sound_rise_where_files_were_put_behind_each_other(tmp_path):
    source = make_video(tmp_path / "a.ts", moving(40), audio="aac")
    (tmp_path / "b.ts").write_bytes(source.read_bytes() * 2)
    rewritten(tmp_path / "b.ts", tmp_path / "c.mkv")
    with av.open(str(tmp_path / "c.mkv")) as container:
        stream = container.streams.audio[0]
        times = [packet.pts for packet in container.demux(stream) if packet.size]
        end = float(times[-1] * stream.time_base)
    assert all(b > a for a, b in pairwise(times))
    assert end == pytest.approx(2 * 40 / 25, abs=0.2)
    assert len(list(read_timed_frames(tmp_path / "c.mkv"))) == 80
