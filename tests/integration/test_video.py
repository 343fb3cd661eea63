"""`infer` on videos and folders of frames, opened again."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from archs.basicvsr import BasicVSR
from archs.compact import SRVGGNetCompact
from archs.temporal import TemporalWindow
from sr_train.inference.clips import ClipUpscaler
from sr_train.inference.extras import Extra
from sr_train.io.images import read_image, write_image
from sr_train.io.video.frames import Orientation, probe, read_frames, read_timed_frames
from sr_train.io.video.writer import VideoWriter
from tests.toys import fill
from tests.videos import make_video, moving

NTSC = Fraction(30000, 1001)


def temporal(extra=0):
    channels = 3 * (3 + extra)
    inner = SRVGGNetCompact(2, in_channels=channels, num_feat=4, num_conv=1)
    return TemporalWindow(inner, 3, {"spikes": extra} if extra else None)


WINDOW = ["arch=compact_temporal", "arch.frames=3", "arch.net.num_feat=4", "arch.net.num_conv=1"]
NETS = {
    "image": (
        lambda: SRVGGNetCompact(2, num_feat=4, num_conv=1),
        ["arch=compact", "arch.num_feat=4", "arch.num_conv=1"],
    ),
    "window": (temporal, [*WINDOW, "arch.net.in_channels=9"]),
    "spikes": (
        lambda: temporal(2),
        [*WINDOW, "arch.net.in_channels=15", "+arch.extra_inputs={spikes: 2}"],
    ),
    "recurrent": (
        lambda: BasicVSR(2, mid_channels=4, num_blocks=1),
        ["arch=basicvsr", "arch.mid_channels=4", "arch.num_blocks=1"],
    ),
}


@pytest.fixture
def infer(command, in_folder):
    """Return a function that runs `infer` with a random network of some kind."""

    def run(kind, *words):
        make, arch = NETS[kind]
        torch.manual_seed(0)
        torch.save(make().state_dict(), in_folder / f"{kind}.pth")
        return command("infer", f"checkpoint={kind}.pth", *arch, "scale=2", "device=cpu", *words)

    return run


def frames_in(folder, count=4, first=0):
    folder.mkdir(parents=True)
    for number, frame in enumerate(moving(count, seed=first)):
        write_image(folder / f"f{number + 8}.png", frame)
    return folder


@pytest.mark.parametrize("kind", ["image", "window"])
def test_a_video_becomes_a_video_of_twice_the_size(infer, in_folder, kind):
    source = make_video(in_folder / "clip.mp4", moving(13), NTSC, audio="aac")
    done = infer(kind, "input=clip.mp4", "output=out/big.mp4", "tiling.frames=6").succeeds()
    assert "13 frames written to out/big.mp4" in done.out
    before, after = probe(source), probe(in_folder / "out/big.mp4")
    assert (after.width, after.height) == (96, 64)
    assert (after.fps, after.frames, after.audio) == (NTSC, 13, ("aac",))
    assert after.duration == before.duration
    assert len(list(read_frames(in_folder / "out/big.mp4"))) == 13
    times = [
        [frame.time for frame in read_timed_frames(path)]
        for path in (source, in_folder / "out/big.mp4")
    ]
    assert times[0] == times[1]
    assert [path.name for path in (in_folder / "out").iterdir()] == ["big.mp4"]


@pytest.mark.slow
def test_the_recurrent_network_in_chunks(infer, in_folder):
    make_video(in_folder / "clip.mkv", moving(12))
    words = ["input=clip.mkv", "tiling.frames=8", "tiling.frame_overlap=4"]
    infer("recurrent", *words, "output=a.mkv", "video.codec=ffv1").succeeds()
    infer("recurrent", "input=clip.mkv", "output=b.mkv", "video.codec=ffv1").succeeds()
    chunked, whole = (
        np.stack(list(read_frames(in_folder / name))).astype(int) for name in ("a.mkv", "b.mkv")
    )
    assert chunked.shape == (12, 64, 96, 3)
    assert np.abs(chunked - whole).mean() < 1


@pytest.mark.slow
def test_where_chunks_of_a_recurrent_network_meet():
    """Forty frames in chunks of 20: less than a twentieth of an 8-bit step off the whole clip.

    The images move by some steps a frame; chunks that share no frame are off by 50 times more.
    """
    torch.manual_seed(0)
    net = BasicVSR(2, mid_channels=8, num_blocks=1)
    frames = [{"lq": frame.astype(np.uint16) * 257} for frame in moving(40)]

    def run(**settings):
        upscale = ClipUpscaler(net, net.spec, tile=None, **settings)
        return np.stack(list(upscale(frames, "clip"))) / 257

    whole, chunked = run(frames=None), run(frames=20, frame_overlap=10)
    apart = np.abs(chunked - whole).mean((1, 2, 3))
    jump = np.abs(np.diff(chunked - whole, axis=0)).mean((1, 2, 3))
    assert apart.max() < 0.05
    assert jump.max() < 0.01 * np.abs(np.diff(whole, axis=0)).mean()
    cut = np.abs(run(frames=20, frame_overlap=0) - whole).mean((1, 2, 3))
    assert cut.max() > 50 * apart.max()


def test_options_of_the_video(infer, in_folder):
    make_video(in_folder / "clip.mp4", moving(3), audio="aac")
    infer("image", "input=clip.mp4", "output=a.mkv", "video.codec=ffv1", "video.audio=false")
    info = probe(in_folder / "a.mkv")
    assert (info.codec, info.audio) == ("ffv1", ())
    infer("image", "input=clip.mp4", "output=b.mp4", "video.quality=45").succeeds()
    infer("image", "input=clip.mp4", "output=c.mp4", "video.quality=1").succeeds()
    sizes = [(in_folder / name).stat().st_size for name in ("b.mp4", "c.mp4")]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("kind", ["image", "window"])
def test_between_videos_and_folders(infer, in_folder, kind):
    frames_in(in_folder / "frames", 4)
    to_video = ["input=frames", "output=a.mkv", "fps=24000/1001", "video.codec=ffv1"]
    infer(kind, *to_video).succeeds()
    assert probe(in_folder / "a.mkv").fps == Fraction(24000, 1001)
    infer(kind, "input=frames", "output=b").succeeds()
    names = ["f8.png", "f9.png", "f10.png", "f11.png"]
    assert sorted(path.name for path in (in_folder / "b").iterdir()) == sorted(names)
    images = [read_image(in_folder / "b" / name).pixels for name in names]
    np.testing.assert_array_equal(list(read_frames(in_folder / "a.mkv")), images)

    with VideoWriter(in_folder / "c.mkv", (48, 32), 24, "ffv1") as writer:
        for frame in moving(4):
            writer.write(frame)
    infer(kind, "input=c.mkv", "output=d", "suffix='_{x2}'", "format=tif").succeeds()
    names = [f"{number:08d}_{{x2}}.tif" for number in range(4)]
    assert sorted(path.name for path in (in_folder / "d").iterdir()) == names
    again = [read_image(in_folder / "d" / name).pixels for name in names]
    np.testing.assert_array_equal(again, images)


def test_a_folder_of_sequences_and_videos(infer, in_folder):
    frames_in(in_folder / "in/one", 3)
    frames_in(in_folder / "in/two/deep", 2, first=5)
    make_video(in_folder / "in/two/clip.mp4", moving(3))
    make_video(in_folder / "in/two/clip.avi", moving(2))
    (in_folder / "in/notes.txt").write_text("x")
    done = infer("window", "input=in", "output=in/out").succeeds()
    assert "left out: 1 (notes.txt)" in done.out
    out = in_folder / "in/out"
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == [
        "one/f10.png",
        "one/f8.png",
        "one/f9.png",
        "two/clip_avi.mp4",
        "two/clip_mp4.mp4",
        "two/deep/f8.png",
        "two/deep/f9.png",
    ]
    assert len(list(read_frames(out / "two/clip_avi.mp4"))) == 2


def test_images_and_videos_of_a_folder_for_an_image_network(infer, in_folder):
    fill(in_folder / "in", 2)
    make_video(in_folder / "in/clip.mp4", moving(3))
    done = infer("image", "input=in", "output=out").succeeds()
    assert "left out" not in done.out
    found = sorted(path.name for path in (in_folder / "out").iterdir())
    assert found == ["clip.mp4", "p0.png", "p1.png"]
    assert probe(in_folder / "out/clip.mp4").width == 96


def spikes_in(folder, *names):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        tensor = torch.rand(2, 32, 48, generator=torch.Generator().manual_seed(number))
        torch.save(tensor, folder / f"{name}.pt")


def test_further_inputs_lie_in_folders(infer, in_folder):
    for number, name in enumerate(("one", "two")):
        frames_in(in_folder / "in" / name, 3, first=number)
        spikes_in(in_folder / "spikes" / name, "8", "9", "10")
    words = ["input=in", "output=out"]
    infer("spikes", *words).fails_with("extra.spikes", "2 channels", "add extra.spikes=FOLDER")
    infer("window", *words, "+extra.spikes=spikes").fails_with("takes no such input")
    infer("spikes", *words, "+extra.spike=spikes").fails_with("did you mean 'spikes'")
    infer("spikes", *words, "+extra.spikes=spikes").succeeds()
    assert len(list((in_folder / "out").rglob("*.png"))) == 6

    np.save(in_folder / "spikes/one/9.npy", np.zeros((2, 32, 47), np.float32))
    (in_folder / "spikes/one/9.pt").unlink()
    infer("spikes", "input=in/one", "output=out", "+extra.spikes=spikes/one").fails_with(
        "in/one, frame 1", "spikes is (32, 47, 2), expected (32, 48, 2)"
    )
    (in_folder / "spikes/one/9.npy").unlink()
    infer("spikes", *words, "+extra.spikes=spikes").fails_with(
        "spikes/one: spikes has 2 frames, lq has 3: spikes lacks f9", "1 of 2 inputs failed"
    )


def test_further_inputs_belong_to_frames_by_name_or_number_and_never_by_place(infer, in_folder):
    """One frame less at the start and one more at the end: each would get its neighbour's."""
    frames_in(in_folder / "in", 3)
    spikes_in(in_folder / "right", "spk_010", "spk_009", "spk_008")
    spikes_in(in_folder / "shifted", "spk_009", "spk_010", "spk_011")
    spikes_in(in_folder / "other", "0", "1", "2")
    words = ["input=in", "output=out"]
    infer("spikes", *words, "+extra.spikes=right").succeeds()
    infer("spikes", *words, "+extra.spikes=shifted").fails_with(
        "shifted: spikes has 3 frames, lq has 3: spikes lacks f8; lq lacks spk_011"
    )
    infer("spikes", *words, "+extra.spikes=other").fails_with(
        "neither names nor numbers agree: spikes has 0, 1, 2, lq has f8, f9, f10"
    )


def test_each_frame_gets_the_further_input_of_its_number(infer, in_folder, monkeypatch):
    frames_in(in_folder / "in", 4)
    (in_folder / "spikes").mkdir()
    for number in (8, 9, 10, 11):
        values = np.full((2, 32, 48), number, np.float32)
        np.save(in_folder / f"spikes/spk_{number:03}.npy", values)
    seen = []
    original = Extra.of

    def note(self, name, number):
        found = original(self, name, number)
        seen.append((name, float(found["spikes"].max())))
        return found

    monkeypatch.setattr(Extra, "of", note)
    infer("spikes", "input=in", "output=out", "+extra.spikes=spikes").succeeds()
    assert seen == [("f8", 8.0), ("f9", 9.0), ("f10", 10.0), ("f11", 11.0)]


def test_further_inputs_of_a_video_come_in_order_and_all_of_them(infer, in_folder):
    make_video(in_folder / "clip.mp4", moving(3))
    words = ["input=clip.mp4", "output=big.mp4"]
    for folder, names in (
        ("whole", "0 1 2"),
        ("gap", "0 1 3"),
        ("less", "0 1"),
        ("more", "0 1 2 3"),
    ):
        spikes_in(in_folder / folder, *names.split())
    infer("spikes", *words, "+extra.spikes=whole").succeeds()
    (in_folder / "big.mp4").unlink()
    infer("spikes", *words, "+extra.spikes=gap").fails_with("gap", "after 1 comes 3")
    infer("spikes", *words, "+extra.spikes=less").fails_with("less: 2 tensors", "has 3 frames")
    infer("spikes", *words, "+extra.spikes=more").fails_with("more: 4 tensors", "has 3 frames")
    assert not (in_folder / "big.mp4").exists()


def test_scenes_in_one_folder_are_upscaled_as_those_in_folders_of_their_own(infer, in_folder):
    """A window of three frames at the end of one scene must not see the next one."""
    (in_folder / "flat").mkdir()
    for number, scene in enumerate(("city", "walk", "zoo")):
        (in_folder / "apart" / scene).mkdir(parents=True)
        for t, frame in enumerate(moving(5, seed=number), start=1):
            write_image(in_folder / f"flat/{scene}_{t:03}.png", frame)
            write_image(in_folder / f"apart/{scene}/{scene}_{t:03}.png", frame)
    done = infer("window", "input=flat", "output=a").succeeds()
    assert "flat: 3 scenes, each a clip of its own: city, walk, zoo" in done.out
    assert "5 frames written to a (walk)" in done.out
    infer("window", "input=apart", "output=b").succeeds()
    infer("window", "input=flat", "output=c.mkv", "fps=25", "video.codec=ffv1").succeeds()
    names = [f"{scene}_{t:03}.png" for scene in ("city", "walk", "zoo") for t in range(1, 6)]
    flat = [read_image(in_folder / "a" / name).pixels for name in names]
    apart = [read_image(path).pixels for path in sorted((in_folder / "b").rglob("*.png"))]
    np.testing.assert_array_equal(flat, apart)
    np.testing.assert_array_equal(list(read_frames(in_folder / "c.mkv")), flat)


def test_a_frame_that_cannot_be_read_is_left_out_and_the_clip_cut_there(infer, in_folder):
    """As damage in a video: the rest is done, and no window of three frames spans the hole."""
    frames_in(in_folder / "in", 7)
    for names in ((8, 9, 10), (12, 13, 14)):
        (in_folder / f"apart/{names[0]}").mkdir(parents=True)
        for name in names:
            data = (in_folder / f"in/f{name}.png").read_bytes()
            (in_folder / f"apart/{names[0]}/f{name}.png").write_bytes(data)
    whole = (in_folder / "in/f11.png").read_bytes()
    (in_folder / "in/f11.png").write_bytes(whole[: len(whole) // 2])
    done = infer("window", "input=in", "output=a")
    done.fails_with("in: 1 frame cannot be read: in/f11.png: ")
    assert "6 frames written to a" in done.out
    infer("window", "input=apart", "output=b").succeeds()
    names = [f"f{number}.png" for number in (8, 9, 10, 12, 13, 14)]
    assert sorted(path.name for path in (in_folder / "a").iterdir()) == sorted(names)
    for name in names:
        [apart] = (in_folder / "b").rglob(name)
        np.testing.assert_array_equal(
            read_image(in_folder / "a" / name).pixels, read_image(apart).pixels
        )
    video = ["input=in", "output=c.mkv", "fps=25", "video.codec=ffv1"]
    infer("image", *video).fails_with("in: 1 frame cannot be read")
    times = [frame.time for frame in read_timed_frames(in_folder / "c.mkv")]
    assert [round(float(time), 3) for time in times] == [0.0, 0.04, 0.08, 0.16, 0.2, 0.24]


def test_a_folder_of_which_nothing_can_be_read(infer, in_folder):
    (in_folder / "in").mkdir()
    for number in range(2):
        (in_folder / f"in/{number}.png").write_text("nonsense")
    infer("window", "input=in", "output=a").fails_with("in/0.png: not an image")
    infer("window", "input=in", "output=a.mp4", "fps=25").fails_with("in/0.png: not an image")
    assert not (in_folder / "a.mp4").exists()


def test_frames_of_several_sizes_are_clips_of_their_own(infer, in_folder):
    frames_in(in_folder / "in", 2)
    for number, frame in enumerate(moving(2, 30, 40), start=10):
        write_image(in_folder / f"in/f{number}.png", frame)
    infer("window", "input=in", "output=a").succeeds()
    shapes = [read_image(in_folder / f"a/f{n}.png").pixels.shape[:2] for n in (8, 9, 10, 11)]
    assert shapes == [(64, 96), (64, 96), (60, 80), (60, 80)]


def test_a_further_input_that_cannot_be_read_takes_its_frame_with_it(infer, in_folder):
    frames_in(in_folder / "in", 3)
    spikes_in(in_folder / "spikes", "8", "9", "10")
    (in_folder / "spikes/9.pt").write_bytes(b"nonsense")
    infer("spikes", "input=in", "output=a", "+extra.spikes=spikes").fails_with(
        "in: 1 frame cannot be read", "spikes/9.pt"
    )
    assert sorted(path.name for path in (in_folder / "a").iterdir()) == ["f10.png", "f8.png"]


def test_frames_of_several_sizes_make_no_video(infer, in_folder):
    frames_in(in_folder / "in", 3)
    write_image(in_folder / "in/f9.png", moving(1, 30, 48)[0])
    infer("image", "input=in", "output=o.mp4", "fps=25").fails_with(
        "in/f9.png: is 48x30, but f8.png is 48x32", "frames of one size"
    )
    assert not (in_folder / "o.mp4").exists()


def test_one_bad_video_is_reported_and_the_rest_done(infer, in_folder):
    make_video(in_folder / "clip.mp4", moving(3))
    (in_folder / "in").mkdir()
    (in_folder / "clip.mp4").rename(in_folder / "in/b.mp4")
    (in_folder / "in/a.mp4").write_text("nothing")
    infer("window", "input=in", "output=out").fails_with("1 of 2 inputs failed", "in/a.mp4")
    assert [path.name for path in (in_folder / "out").iterdir()] == ["b.mp4"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["input=clip.mp4", "output=clip.mp4"], ["clip.mp4 is an input"]),
        (["input=clip.mp", "output=o.mp4"], ["did you mean 'clip.mp4'"]),
        (["input=clip.mp4", "output=o.png"], ["o.png: names one image", "folder or a video"]),
        (["input=clip.mp4", "output=o.avi"], ["cannot write '.avi'", "output=o.mp4", ".mkv"]),
        (["input=clip.mp4", "output=o.wmv"], ["cannot write '.wmv'", "output=o.mp4"]),
        (["input=frames", "output=o.heic"], ["cannot write '.heic'", "output=o.png"]),
        (
            ["input=clip.mp4", "output=o.mp4", "video.codec=h26"],
            ["video.codec=h26", "did you mean"],
        ),
        (["input=clip.mp4", "output=o.mp4", "video.codek=h264"], ["video.codek"]),
        (
            ["input=clip.mp4", "output=o.mp4", "video.quality=99"],
            ["video.quality=99", "0 (best) to 51"],
        ),
        (["input=clip.mp4", "output=o.mp4", "fps=25"], ["fps", "leave it out"]),
        (["input=frames", "output=o.mp4"], ["add fps=25"]),
        (["input=frames", "output=o.mp4", "fps=fast"], ["fps=fast", "30000/1001"]),
        (["input=frames", "output=frames"], ["is an input"]),
        (["input=frames/f8.png", "output=o"], ["this network takes clips"]),
        (["input=text.mp4", "output=o.mp4"], ["text.mp4", "not a video"]),
        (["input=empty", "output=o"], ["nothing to upscale", "empty"]),
        (["input=clip.mp4", "output=o.webm", "video.codec=av1"], ["its audio (aac)", "webm"]),
        (["input=frames", "output=o", "tiling.frames=2"], ["frames=2: expected at least 3"]),
        (["input=frames", "output=o", "format=gif"], ["gif"]),
    ],
)
def test_what_cannot_be_is_told(infer, in_folder, words, parts):
    make_video(in_folder / "clip.mp4", moving(3), audio="aac")
    frames_in(in_folder / "frames", 3)
    (in_folder / "text.mp4").write_text("nothing")
    (in_folder / "empty").mkdir()
    before = {path for path in in_folder.rglob("*") if path.is_file()}
    infer("window", *words).fails_with(*parts)
    after = {path for path in in_folder.rglob("*") if path.is_file()}
    assert after - before == {in_folder / "window.pth"}


def test_rotation_and_colours_of_the_input_are_kept(infer, in_folder):
    make_video(in_folder / "clip.mp4", moving(2), rotation=90)
    infer("image", "input=clip.mp4", "output=big.mp4").succeeds()
    info = probe(in_folder / "big.mp4")
    assert (info.width, info.height, info.orientation) == (64, 96, Orientation())
    with av.open(str(in_folder / "big.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (6, 1)
