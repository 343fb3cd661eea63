"""`infer` on videos that are damaged, of all containers, or hold more than an image."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from archs.compact import SRVGGNetCompact
from sr_train.io.images import read_image
from sr_train.io.video.frames import probe, read_timed_frames
from tests.sr_train.io.video.test_stream_copy import film
from tests.videos import make_video, moving, noisy, with_zeros

PLAIN = {"bf": "0", "sc_threshold": "0"}
NET = ["arch=compact", "arch.num_feat=4", "arch.num_conv=1", "scale=2", "device=cpu"]


@pytest.fixture
def infer(command, in_folder):
    torch.manual_seed(0)
    torch.save(SRVGGNetCompact(2, num_feat=4, num_conv=1).state_dict(), in_folder / "net.pth")
    return lambda *words: command("infer", "checkpoint=net.pth", *NET, *words)


def test_a_damaged_packet_costs_its_frames_and_no_more(infer, in_folder):
    source = make_video(in_folder / "a.mp4", noisy(40, 32, 48), options=PLAIN, audio="aac")
    with_zeros(source, in_folder / "b.mp4", 20, 23)
    done = infer("input=b.mp4", "output=big.mp4")
    done.fails_with("b.mp4: 4 of 40 frames are damaged and missing (frames 20 to 23 at 0.800 s")
    assert "36 frames written to big.mp4" in done.out
    frames = list(read_timed_frames(in_folder / "big.mp4"))
    numbers = [*range(20), *range(24, 40)]
    assert [frame.time for frame in frames] == [Fraction(number, 25) for number in numbers]
    assert probe(in_folder / "big.mp4").audio == ("aac",)


def test_images_keep_the_numbers_of_their_frames(infer, in_folder):
    source = make_video(in_folder / "a.mp4", noisy(12, 32, 48), options=PLAIN)
    with_zeros(source, in_folder / "b.mp4", 5, 6)
    infer("input=b.mp4", "output=out").fails_with("2 of 12 frames are damaged and missing")
    names = sorted(path.name for path in (in_folder / "out").iterdir())
    assert names == [f"{number:08d}.png" for number in (*range(5), *range(7, 12))]
    infer("input=a.mp4", "output=whole").succeeds()
    np.testing.assert_array_equal(
        read_image(in_folder / "out/00000003.png").pixels,
        read_image(in_folder / "whole/00000003.png").pixels,
    )


def test_a_cut_video_is_done_as_far_as_it_goes(infer, in_folder):
    source = make_video(in_folder / "a.mkv", noisy(40, 32, 48), options=PLAIN)
    data = source.read_bytes()
    (in_folder / "b.mkv").write_bytes(data[: len(data) // 2])
    done = infer("input=b.mkv", "output=big.mkv")
    done.fails_with("b.mkv: it ends early, at ", "of 40 frames are missing")
    assert 5 < len(list(read_timed_frames(in_folder / "big.mkv"))) < 35


def test_what_a_video_loses_is_said(infer, in_folder):
    film(in_folder / "a.mkv", "subrip", font=True)
    done = infer("input=a.mkv", "output=b.mp4").succeeds()
    assert "a.mkv: a subtitle track (subrip, spa) is left out" in done.out
    assert "a.mkv: an attached file (f.ttf) is left out" in done.out
    done = infer("input=a.mkv", "output=c.mkv").succeeds()
    assert "left out" not in done.out
    with av.open(str(in_folder / "c.mkv")) as container:
        kinds = [stream.type for stream in container.streams]
    assert kinds == ["video", "audio", "audio", "subtitle", "attachment"]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".gif", "gif"),
        (".wmv", "wmv2"),
        (".m2ts", "libx264"),
        (".mts", "libx264"),
        (".3gp", "mpeg4"),
        (".flv", "libx264"),
        (".y4m", "rawvideo"),
        (".ogv", "libvpx"),
        (".vob", "mpeg2video"),
    ],
)
def test_containers_of_all_kinds_come_in(infer, in_folder, suffix, codec):
    pixel_format = "rgb8" if codec == "gif" else "yuv420p"
    name = f"a{suffix}"
    made = make_video(
        in_folder / (name if suffix != ".mts" else "a.ts"),
        moving(6),
        codec=codec,
        pixel_format=pixel_format,
    )
    made.rename(in_folder / name)
    (in_folder / "in").mkdir()
    (in_folder / name).rename(in_folder / "in" / name)
    done = infer("input=in", "output=out").succeeds()
    assert "left out" not in done.out
    (written,) = (in_folder / "out").iterdir()
    frames = list(read_timed_frames(written))
    assert len(frames) == 6
    assert frames[0].pixels.shape == (64, 96, 3)
    infer(f"input=in/{name}", f"output=o{suffix}").fails_with(f"cannot write '{suffix}'", ".mp4")
    assert not (in_folder / f"o{suffix}").exists()


def test_av1_into_mov_is_said_before_the_work(infer, in_folder):
    make_video(in_folder / "a.mp4", moving(3, 64, 64))
    infer("input=a.mp4", "output=b.mov", "video.codec=av1").fails_with(
        ".mov cannot hold av1; use .mp4"
    )
    assert not (in_folder / "b.mov").exists()
