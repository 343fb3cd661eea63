"""Video files out: opened again, they hold what was written."""

import contextlib
import re
from fractions import Fraction

import av
import numpy as np
import pytest

from sr_train.api.errors import ConfigError, DataError
from sr_train.io.video.codecs import CONTAINERS, parse_codec, pixel_format_for
from sr_train.io.video.frames import probe, read_frames, read_timed_frames
from sr_train.io.video.writer import CODECS, VideoWriter, encoding_problems
from tests.videos import make_video, moving

NTSC = Fraction(30000, 1001)


def write(path, frames, fps=25, times=None, **settings):
    size = (frames[0].shape[1], frames[0].shape[0])
    with VideoWriter(path, size, fps, **settings) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, None if times is None else times[number])
    return path


def apart(a, b):
    return np.abs(np.stack(a).astype(float) - np.stack(b)).mean()


CASES = [(codec, suffix) for codec in CODECS for suffix in (".mp4", ".mkv")]


@pytest.mark.parametrize(("codec", "suffix"), [*CASES, ("av1", ".webm"), ("h264", ".mov")])
def test_every_codec_gives_the_frames_back(tmp_path, codec, suffix):
    frames = moving(8, 64, 80)
    path = write(tmp_path / f"a{suffix}", frames, NTSC, codec=codec)
    back = list(read_frames(path))
    info = probe(path)
    assert (len(back), info.fps, info.width, info.height) == (8, NTSC, 80, 64)
    assert apart(back, frames) < (1e-9 if codec == "ffv1" else 3)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_clips_of_a_few_frames(tmp_path, codec, count):
    path = write(tmp_path / "a.mp4", moving(count, 128, 64), codec=codec)
    assert len(list(read_frames(path))) == count


def test_lossless_is_lossless_in_16_bit(tmp_path):
    frames = [frame.astype(np.uint16) * 257 + 3 for frame in moving(3)]
    path = write(tmp_path / "a.mkv", frames, codec="ffv1", bits=16)
    np.testing.assert_array_equal(list(read_frames(path)), frames)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_more_bits_become_ten(tmp_path, codec):
    frames = [frame.astype(np.uint16) * 257 for frame in moving(3, 64, 64)]
    path = write(tmp_path / "a.mkv", frames, codec=codec, bits=16)
    info = probe(path)
    assert (info.pixel_format, info.dtype) == ("yuv420p10le", "uint16")
    assert apart(list(read_frames(path)), frames) / 257 < 3


def test_quality_is_the_crf(tmp_path):
    frames = [
        np.random.default_rng(n).integers(0, 255, (64, 64, 3)).astype(np.uint8) for n in range(3)
    ]
    sizes = [
        write(tmp_path / f"{quality}.mp4", frames, quality=quality).stat().st_size
        for quality in (0, 17, 40)
    ]
    assert sizes[0] > 1.2 * sizes[1] > 2 * sizes[2]
    default = write(tmp_path / "a.mp4", frames)
    assert default.read_bytes() == (tmp_path / "17.mp4").read_bytes()


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize("height", [96, 720])
def test_a_colour_is_stored_in_the_matrix_that_is_tagged(tmp_path, codec, height):
    """The samples are worked out by hand: BT.709 for HD, BT.601 below, studio range."""
    kr, kb = (0.2126, 0.0722) if height == 720 else (0.299, 0.114)
    red, green, blue = rgb = (200, 40, 90)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    expected = [
        16 + 219 / 255 * luma,
        128 + 224 / 255 * (blue - luma) / (2 - 2 * kb),
        128 + 224 / 255 * (red - luma) / (2 - 2 * kr),
    ]
    path = write(tmp_path / "a.mp4", [np.full((height, 96, 3), rgb, np.uint8)] * 2, codec=codec)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        planes = [np.frombuffer(plane, np.uint8)[0] for plane in frame.planes]
        context = stream.codec_context
        tags = (int(frame.colorspace), int(context.color_range))
    np.testing.assert_allclose(planes, expected, atol=2)
    assert tags == ((1 if height == 720 else 6), 1)
    assert np.abs(next(read_frames(path)).astype(int) - rgb).max() <= 3


def test_colours_of_the_input_are_kept(tmp_path):
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, 16
        context.color_range = 1
        context.sample_aspect_ratio = Fraction(4, 3)
        frame = av.VideoFrame.from_ndarray(moving(1, 64, 64)[0], "rgb24")
        frame.pts = 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    info = probe(source)
    frames = list(read_frames(source))
    out = probe(write(tmp_path / "b.mp4", frames, info.fps, like=info))
    assert out.colour == info.colour
    assert (out.colour.matrix, out.colour.primaries, out.colour.transfer) == (9, 9, 16)
    assert out.aspect == info.aspect == Fraction(4, 3)
    assert apart(list(read_frames(tmp_path / "b.mp4")), frames) < 3


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "ffv1"])
def test_odd_sizes_are_kept(tmp_path, codec):
    frames = moving(3, 65, 71)
    path = write(tmp_path / "a.mkv", frames, codec=codec)
    assert (probe(path).width, probe(path).height) == (71, 65)
    assert apart(list(read_frames(path)), frames) < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_times_of_a_variable_rate_are_kept(tmp_path, suffix, codec):
    times = [0, 40, 100, 300, 320, 1000]
    source = make_video(tmp_path / "in.mkv", moving(6, 64, 64), times=times)
    info = probe(source)
    timed = list(read_timed_frames(source))
    path = write(
        tmp_path / f"a{suffix}",
        [frame.pixels for frame in timed],
        info.fps,
        [frame.time for frame in timed],
        like=info,
        codec=codec,
    )
    assert [frame.time for frame in read_timed_frames(path)] == [Fraction(t, 1000) for t in times]


@pytest.mark.parametrize("rate", [25, NTSC, Fraction(24000, 1001), 60])
@pytest.mark.parametrize("way", [(".mkv", ".mp4"), (".mp4", ".mkv"), (".ts", ".mp4")])
def test_an_even_rate_stays_exact_between_containers(tmp_path, rate, way):
    """Matroska rounds times to milliseconds; the rate must not suffer from it."""
    source = make_video(tmp_path / f"in{way[0]}", moving(20), rate)
    info = probe(source)
    assert info.fps == rate
    timed = list(read_timed_frames(source))
    frames, times = [t.pixels for t in timed], [t.time for t in timed]
    path = write(tmp_path / f"a{way[1]}", frames, info.fps, times, like=info)
    out = probe(path)
    assert out.fps == rate
    assert abs(float(out.duration or 20 / rate) - float(20 / rate)) < 2e-3
    assert len(list(read_frames(path))) == 20


def heard(path):
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [bytes(p) for p in container.demux(stream) if p.dts is not None]
        name = stream.codec_context.name
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "mono", 16000)
        parts = [
            part.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for part in resampler.resample(frame)
        ]
    return name, packets, np.concatenate(parts)


@pytest.mark.parametrize(
    ("suffix", "audio", "out"),
    [
        (".mp4", "aac", ".mp4"),
        (".mp4", "aac", ".mkv"),
        (".mkv", "aac", ".mp4"),
        (".mkv", "libopus", ".mp4"),
        (".mkv", "flac", ".mkv"),
        (".mov", "pcm_s16le", ".mkv"),
        (".ts", "aac", ".mkv"),
    ],
)
def test_audio_is_copied_as_it_is(tmp_path, suffix, audio, out):
    source = make_video(tmp_path / f"in{suffix}", moving(25), audio=audio)
    info = probe(source)
    timed = list(read_timed_frames(source))
    path = write(
        tmp_path / f"a{out}",
        [t.pixels for t in timed],
        info.fps,
        [t.time for t in timed],
        like=info,
        copy_from=source,
    )
    before, after = heard(source), heard(path)
    assert after[0] == before[0]
    # A transport stream puts a header before each packet.
    assert suffix == ".ts" or after[1] == before[1]
    # Containers differ in whether they tell how many samples an encoder puts in front.
    assert abs(len(after[2]) - len(before[2])) <= 1024
    assert probe(path).audio == info.audio
    starts = []
    for file in (source, path):
        with av.open(str(file)) as container:
            sound = container.streams.audio[0]
            image = container.streams.video[0]
            sound_at = (sound.start_time or 0) * sound.time_base
            starts.append(float(sound_at - (image.start_time or 0) * image.time_base))
    # What an encoder puts in front lies before the image's start where it is not cut away.
    same = suffix == out
    assert starts[0] == pytest.approx(starts[1], abs=2e-3 if same else 0.07)


def test_sound_stays_with_an_image_that_does_not_start_at_zero(tmp_path):
    """A cut from a broadcast counts from when that began."""
    source = make_video(tmp_path / "in.ts", moving(25), audio="aac", start=7.5)
    with av.open(str(source)) as container:
        assert container.start_time > 7e6
    timed = list(read_timed_frames(source))
    frames, times = [t.pixels for t in timed], [t.time for t in timed]
    info = probe(source)
    path = write(tmp_path / "a.mkv", frames, 25, times, like=info, copy_from=source)
    with av.open(str(path)) as container:
        starts = [float((s.start_time or 0) * s.time_base) for s in container.streams]
    assert max(starts) < 0.2


def test_audio_that_does_not_fit_is_told_before_the_work(tmp_path):
    source = make_video(tmp_path / "in.mkv", moving(3, 64, 64), audio="aac")
    with pytest.raises(DataError, match=r"its audio \(aac\) cannot go into webm; write .mkv"):
        VideoWriter(tmp_path / "a.webm", (64, 64), 25, codec="av1", copy_from=source)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.mkv"]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no frame"), VideoWriter(tmp_path / "a.mp4", (48, 32), 25):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("a.mp4", {"codec": "h265"}, "codec 'h265' is unknown; did you mean"),
        ("a.mp4", {"codec": "vp9"}, "valid: av1, ffv1, h264, hevc"),
        ("a.gif", {}, r"cannot write '.gif'; known: .mp4, .*; a.mp4 plays everywhere"),
        ("a.wmv", {}, r"cannot write '.wmv'"),
        ("a.mk", {}, r"cannot write '.mk'; .*; did you mean '.mkv'"),
        ("a.mov", {"codec": "av1"}, r".mov cannot hold av1; use .mp4 or .m4v or .mkv or .webm"),
        ("a.mov", {"codec": "ffv1"}, r".mov cannot hold ffv1; .*or codec h264 or hevc"),
        ("a.mp4", {"quality": 52}, "video.quality=52: expected 0"),
        ("a.mkv", {"codec": "ffv1", "quality": 3}, "ffv1 is lossless"),
        (
            "a.mp4",
            {"pixel_format": "yuv420"},
            "video.pixel_format=yuv420: none.*did you mean 'yuv420p'",
        ),
        ("a.webm", {}, ".webm cannot hold h264"),
    ],
)
def test_impossible_wishes(tmp_path, name, settings, words):
    with pytest.raises(ConfigError, match=words):
        VideoWriter(tmp_path / name, (48, 32), 25, **settings)


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("h264", "h264"),
        ("H.264", "h264"),
        ("x264", "h264"),
        ("h265", "hevc"),
        ("H265", "hevc"),
        ("libx265", "hevc"),
        ("AV1", "av1"),
        ("ffv1", "ffv1"),
    ],
)
def test_words_for_codecs(text, codec):
    assert parse_codec(text) == codec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vp9", "video.codec=vp9: expected one of h264, hevc, av1, ffv1$"),
        ("h266", "video.codec=h266: expected one of .*; did you mean 'h26"),
        ("", "video.codec=: expected one of"),
    ],
)
def test_words_that_are_no_codec(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_codec(text)


def test_a_missing_encoder_names_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"libx264", "ffv1"})
    with pytest.raises(ConfigError, match=r"lacks libsvtav1; it has h264, ffv1"):
        VideoWriter(tmp_path / "a.mp4", (64, 64), 25, codec="av1")


def test_sizes_that_cannot_be_encoded(tmp_path):
    with pytest.raises(DataError, match=r"hevc cannot encode 48x32; .* at least 64"):
        VideoWriter(tmp_path / "a.mp4", (48, 32), 25, codec="hevc")
    with pytest.raises(DataError, match=r"h264 cannot keep 47x32 in yuv420p; use yuv444p"):
        VideoWriter(tmp_path / "a.mp4", (47, 32), 25, pixel_format="yuv420p")
    with pytest.raises(DataError, match="cannot be written"):
        VideoWriter(tmp_path / "none" / "a.mp4", (48, 32), 25)
    with (
        pytest.raises(ValueError, match="expected 48x32 RGB"),
        VideoWriter(tmp_path / "a.mp4", (48, 32), 25) as writer,
    ):
        writer.write(np.zeros((48, 32, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def muxed(path, codec, container, pixel_format, size):
    """Try to write three frames with PyAV alone; return whether they come back."""
    try:
        with av.open(str(path), "w", format=CONTAINERS[container]) as out:
            options = {"x265-params": "log-level=none"} if codec == "hevc" else {}
            stream = out.add_stream(CODECS[codec].encoder, rate=25, options=options)
            stream.width, stream.height = size
            stream.pix_fmt = pixel_format
            for number in range(3):
                frame = av.VideoFrame.from_ndarray(np.zeros((*size[::-1], 3), np.uint8), "rgb24")
                frame.pts = number
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    except (ValueError, av.FFmpegError):
        return False
    with av.open(str(path)) as given:
        return len(list(given.decode(video=0))) == 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [(96, 64), (97, 64), (96, 65), (97, 65)])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("codec", CODECS)
def test_the_table_of_containers_and_codecs_is_what_can_be_muxed(
    tmp_path, codec, container, size, bits
):
    path = tmp_path / f"a{container}"
    problems = encoding_problems(path, codec)
    pixel_format = pixel_format_for(path, codec, None, size, bits, "420")
    assert muxed(path, codec, container, pixel_format, size) == (not problems)
    if problems:
        assert f"{container} cannot hold {codec}; use " in problems[0]


@pytest.mark.parametrize(
    ("codec", "given", "size", "written", "note"),
    [
        ("h264", "yuv444p", (64, 64), "yuv444p", None),
        ("h264", "yuv422p", (64, 64), "yuv422p", None),
        ("h264", "yuv422p10le", (64, 64), "yuv422p10le", None),
        ("hevc", "yuv444p10le", (64, 64), "yuv444p10le", None),
        ("h264", "yuv422p", (63, 64), "yuv444p", None),
        ("h264", "yuv422p", (64, 63), "yuv422p", None),
        ("h264", "yuv420p", (64, 63), "yuv444p", None),
        ("av1", "yuv444p", (64, 64), "yuv420p", "its 4:4:4 colours become yuv420p"),
        ("h264", "yuv444p12le", (64, 64), "yuv444p10le", "its 12 bits become 10"),
        ("h264", "bgr0", (64, 64), "yuv420p", "its RGB colours become yuv420p; .*yuv444p keeps"),
        ("ffv1", "yuv444p12le", (64, 64), "gbrp16le", None),
        ("h264", "gray", (64, 64), "yuv420p", None),
    ],
)
def test_the_fineness_of_colours_is_kept_or_named(tmp_path, codec, given, size, written, note):
    source = make_video(
        tmp_path / "a.mkv", moving(2, *size[::-1]), codec="ffv1", pixel_format=given
    )
    info = probe(source)
    frames = list(read_timed_frames(source))
    path = tmp_path / "b.mkv"
    bits = 16 if info.bits > 8 else 8
    with VideoWriter(path, size, 25, codec, like=info, bits=bits) as writer:
        for frame in frames:
            writer.write(frame.pixels, frame.time)
    assert probe(path).pixel_format == written
    assert len(writer.notes) == (note is not None)
    assert note is None or re.match(note, writer.notes[0])
    back = np.stack(list(read_frames(path))).astype(float)
    apart = np.abs(back - np.stack([frame.pixels for frame in frames])).mean()
    assert apart / (257 if bits == 16 else 1) < 4


@pytest.mark.parametrize(
    ("codec", "pixel_format", "options", "words"),
    [
        ("libx264", "yuv420p", {"x264-params": "interlaced=1"}, "interlaced"),
        ("ffv1", "bgra", {}, r"transparency \(alpha\) is left out"),
        ("ffv1", "yuva420p", {}, r"transparency \(alpha\) is left out"),
        (
            "libx265",
            "yuv420p10le",
            {
                "x265-params": "log-level=none:master-display=G(13250,34500)B(7500,3000)R(34000,"
                "16000)WP(15635,16450)L(10000000,1):max-cll=1000,400:hdr10=1"
            },
            r"^left out: HDR10 data \(mastering display, light levels\)$",
        ),
        ("libx264", "yuv420p", {}, None),
    ],
)
def test_what_the_pixels_lack_is_named(tmp_path, codec, pixel_format, options, words):
    path = tmp_path / "a.mkv"
    make_video(path, moving(2, 64, 80), codec=codec, pixel_format=pixel_format, options=options)
    notes = probe(path).notes
    assert len(notes) == (words is not None)
    assert words is None or re.search(words, notes[0])


def test_alpha_beside_the_image_and_in_a_gif_is_named(tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w") as out:
        stream = out.add_stream("libvpx-vp9", rate=25, options={"cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.metadata["alpha_mode"] = "1"
        frame = av.VideoFrame.from_ndarray(moving(1)[0], "rgb24")
        frame.pts = 0
        out.mux([*stream.encode(frame), *stream.encode(None)])
    assert "alpha" in probe(tmp_path / "a.webm").notes[0]
    opaque = make_video(tmp_path / "b.gif", moving(2), codec="gif", pixel_format="rgb8")
    assert probe(opaque).notes == ()
    data = bytearray(opaque.read_bytes())
    at = data.index(b"\x21\xf9\x04")
    # Colour 0 of the first frame is transparent.
    data[at + 3] |= 1
    data[at + 6] = data[data.index(b",", at) + 20]
    opaque.write_bytes(data)
    assert len(probe(opaque).notes) <= 1


def test_missing_frames_leave_even_times_even(tmp_path):
    """A Matroska file rounds to milliseconds; what comes behind a gap must not."""
    source = make_video(tmp_path / "a.mkv", moving(30), NTSC)
    info = probe(source)
    timed = [frame for frame in read_timed_frames(source) if frame.number not in {7, 8, 20}]
    path = write(
        tmp_path / "b.mp4",
        [frame.pixels for frame in timed],
        info.fps,
        [frame.time for frame in timed],
        like=info,
    )
    times = [frame.time for frame in read_timed_frames(path)]
    assert times == [frame.number / NTSC for frame in timed]


def test_a_rate_that_cannot_be_stored_becomes_the_nearest(tmp_path):
    wanted = Fraction("25.123456789")
    with VideoWriter(tmp_path / "a.mkv", (48, 32), wanted, "ffv1") as writer:
        for frame in moving(3):
            writer.write(frame)
    assert abs(writer.fps / wanted - 1) < 1e-9
    assert max(writer.fps.numerator, writer.fps.denominator) < 2**31
    assert len(list(read_frames(tmp_path / "a.mkv"))) == 3
    for fps in (Fraction(10**12, 3), Fraction(1, 10**12), Fraction(0)):
        with pytest.raises(ConfigError, match=r"frames per second; expected 0\.0001 to 1000000"):
            VideoWriter(tmp_path / "b.mkv", (48, 32), fps, "ffv1")


def test_encoders_are_silent(tmp_path, capfd):
    for codec in CODECS:
        for number, size in enumerate([(64, 64), (65, 71), (200, 64)]):
            path = tmp_path / f"{codec}{number}.mkv"
            write(path, moving(2, size[1], size[0]), codec=codec)
            data = bytearray(path.read_bytes())
            data[len(data) // 2 :: 7] = bytes(len(data[len(data) // 2 :: 7]))
            path.write_bytes(data)
            with contextlib.suppress(DataError):
                list(read_timed_frames(path))
    found = capfd.readouterr()
    assert (found.out, found.err) == ("", "")
