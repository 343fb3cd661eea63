"""Video files in: every frame, in order and by number, in its colours."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.io.video.frames import (
    FrameReader,
    Orientation,
    probe,
    read_frames,
    read_timed_frames,
)
from tests.videos import make_video, moving

NTSC = Fraction(30000, 1001)
EXACT = {"codec": "ffv1", "pixel_format": "bgr0"}


def test_probe_tells_size_rate_and_tracks(tmp_path):
    path = make_video(tmp_path / "a.mp4", moving(10), NTSC, audio="aac")
    info = probe(path)
    assert (info.width, info.height, info.fps, info.frames, info.frames_exact) == (
        48,
        32,
        NTSC,
        10,
        True,
    )
    assert (info.codec, info.bits, info.dtype, info.chroma) == ("h264", 8, "uint8", "420")
    assert info.orientation == Orientation()
    assert (info.audio, info.aspect) == (("aac",), 1)
    assert info.duration == 10 / NTSC


def test_a_file_that_counts_no_frames_is_estimated(tmp_path):
    info = probe(make_video(tmp_path / "a.mkv", moving(12)))
    assert (info.frames, info.frames_exact) == (12, False)


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_frames_of_a_lossless_file_are_those_written(tmp_path, suffix):
    frames = moving(7)
    path = make_video(tmp_path / f"a{suffix}", frames, **EXACT)
    np.testing.assert_array_equal(list(read_frames(path)), frames)
    np.testing.assert_array_equal(list(read_frames(path, start=4)), frames[4:])
    np.testing.assert_array_equal(list(read_frames(io.BytesIO(path.read_bytes()))), frames)


def test_more_bits_are_kept(tmp_path):
    frames = [frame.astype(np.uint16) * 257 for frame in moving(2)]
    path = make_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="gbrp16le")
    assert probe(path).dtype == "uint16"
    np.testing.assert_array_equal(list(read_frames(path)), frames)


@pytest.mark.parametrize("height", [96, 720])
@pytest.mark.parametrize("tagged", [None, 1, 5])
@pytest.mark.parametrize("full", [False, True])
def test_the_matrix_and_range_of_the_file_are_used(tmp_path, height, tagged, full):
    """The stored samples are worked out by hand from BT.601 and BT.709."""
    is_709 = tagged == 1 or (tagged is None and height == 720)
    kr, kb = (0.2126, 0.0722) if is_709 else (0.299, 0.114)
    red, green, blue = rgb = np.array([200, 40, 90])
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    gain = (1, 1) if full else (219 / 255, 224 / 255)
    samples = [(0 if full else 16) + gain[0] * luma, *(128 + gain[1] * c for c in chroma)]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv444p"
        stream.codec_context.color_range = 2 if full else 1
        if tagged is not None:
            stream.codec_context.colorspace = tagged
        planes = [np.full((height, 64), round(sample), np.uint8) for sample in samples]
        frame = av.VideoFrame.from_ndarray(np.stack(planes), "yuv444p")
        frame.pts = 0
        frame.color_range = 2 if full else 1
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (pixels,) = read_frames(path)
    assert np.abs(pixels.astype(int) - rgb).max() <= 2
    assert probe(path).is_full_range == full


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_each_of_the_eight_orientations_is_applied(tmp_path, rotation, mirrored):
    """As PyAV says them: turned counter-clockwise first, left and right exchanged then."""
    frames = moving(2)
    frames[0][:12, :16] = 250
    plain = make_video(tmp_path / "a.mp4", frames, pixel_format="yuv444p")
    turned = make_video(
        tmp_path / "b.mp4", frames, pixel_format="yuv444p", rotation=rotation, mirrored=mirrored
    )
    expected = np.rot90(next(read_frames(plain)), rotation // 90)
    expected = expected[:, ::-1] if mirrored else expected
    np.testing.assert_array_equal(next(read_frames(turned)), expected)
    np.testing.assert_array_equal(next(read_timed_frames(turned)).pixels, expected)
    info = probe(turned)
    assert (info.height, info.width) == expected.shape[:2]
    assert info.orientation.is_transposed == (rotation % 180 != 0)


def test_the_nearest_orientation_is_taken(tmp_path):
    source = make_video(tmp_path / "a.mp4", moving(1), rotation=70)
    assert probe(source).orientation == Orientation(True, flips_rows=True)


def test_times_of_a_variable_rate(tmp_path):
    times = [0, 40, 100, 300, 320]
    path = make_video(tmp_path / "a.mkv", moving(5), times=times)
    assert [frame.time for frame in read_timed_frames(path)] == [Fraction(t, 1000) for t in times]


def test_bad_files_are_named(tmp_path, caplog):
    good = make_video(tmp_path / "a.mp4", moving(8))
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:-600])
    (tmp_path / "text.mp4").write_text("no video at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("cut.mp4", "text.mp4", "empty.mp4"):
        for use in (probe, FrameReader, lambda path: list(read_frames(path))):
            with pytest.raises(DataError, match=name):
                use(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        probe(tmp_path / "none.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        container.mux([*stream.encode(silence), *stream.encode(None)])
    with pytest.raises(DataError, match=r"no video stream \(found: audio\)"):
        probe(tmp_path / "sound.mkv")
