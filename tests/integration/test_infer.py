"""`infer` as people use it: many inputs, of which some fail, and an end that comes early."""

import os
import signal
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from archs.compact import SRVGGNetCompact
from sr_train.config.preflight import use_problems
from sr_train.config.schema import InferConfig
from sr_train.io.images import read_image, write_image
from sr_train.io.video.frames import read_frames
from sr_train.monitoring import console as console_module
from tests.toys import ROOT, fill, process, stripes, toy_words
from tests.videos import make_video, moving

NET = ["arch=compact", "arch.num_feat=4", "arch.num_conv=1", "scale=2", "device=cpu"]

OWN = """
import os
import signal

import torch
from sr_train.api.network import NetSpec
from torch import nn


class Net(nn.Module):
    '''Repeats pixels; at some calls it does what a user or a machine does to a program.'''

    at = {}
    calls = 0

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.gain = nn.Parameter(torch.ones(()))
        self.spec = NetSpec(scale=scale)

    def forward(self, lq):
        Net.calls += 1
        for number in Net.at.get(Net.calls, ()):
            if isinstance(number, Exception):
                raise number
            os.kill(os.getpid(), number)
        pred = lq * self.gain
        return pred.repeat_interleave(self.scale, -2).repeat_interleave(self.scale, -1)
"""


@pytest.fixture
def infer(command, in_folder):
    """Return a function that runs `infer` with a small network."""
    torch.manual_seed(0)
    torch.save(SRVGGNetCompact(2, num_feat=4, num_conv=1).state_dict(), in_folder / "net.pth")
    return lambda *words: command("infer", "checkpoint=net.pth", *NET, *words)


@pytest.fixture
def own(command, in_folder):
    """Return a function that runs `infer` with a network that does something at its n-th call."""
    (in_folder / "halting").mkdir()
    (in_folder / "halting/net.py").write_text(OWN)
    torch.save({"gain": torch.ones(())}, in_folder / "own.pth")
    words = ["plugins=[halting]", "+arch._target_=halting.net.Net", "+arch.scale=2", "scale=2"]

    def run(at, *more):
        from halting.net import Net

        Net.at, Net.calls = at, 0
        return command("infer", "checkpoint=own.pth", *words, "device=cpu", *more)

    return run


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Inputs and outputs.


def test_one_image_to_one_file(infer, in_folder):
    fill(in_folder / "in", 1, (12, 16))
    infer("input=in/p0.png", "output=new/o.tif").succeeds()
    assert read_image(in_folder / "new/o.tif").pixels.shape == (24, 32, 3)
    infer("input=in", "output=o.jpeg").succeeds()
    infer("input=in/p0.png", "output=o.png", "suffix=_x2").fails_with("suffix=_x2", "o.png")


def test_several_inputs(infer, in_folder):
    fill(in_folder / "a", 2, (12, 16))
    fill(in_folder / "b", 1, (12, 16))
    write_image(in_folder / "c.png", stripes(12, 16))
    make_video(in_folder / "d.mp4", moving(2))
    done = infer("input=[a,b,c.png,d.mp4]", "output=up", "format=jpeg").succeeds()
    assert files(in_folder / "up") == ["a/p0.jpg", "a/p1.jpg", "b/p0.jpg", "c.jpg", "d.mp4"]
    assert "4 images written to up" in done.out


def test_an_output_folder_above_the_input(infer, in_folder):
    fill(in_folder / "photos/in", 1, (12, 16))
    infer("input=photos/in", "output=photos").succeeds()
    infer("input=photos/in", "output=.").succeeds()
    assert files(in_folder) == ["net.pth", "p0.png", "photos/in/p0.png", "photos/p0.png"]
    infer("input=photos/in", "output=.").fails_with("a file there would be replaced", "p0.png")
    infer("input=photos/in", "output=.", "overwrite=true").succeeds()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["input=[]", "output=o"], ["input=[]", "expected a file or a folder"]),
        (["input=[in,[a]]", "output=o"], ["input=['a']", "expected the path"]),
        (["input=in", "output=''"], ["output: is empty"]),
        (["input=in", "output=o.wmv"], ["cannot write '.wmv'", "output=o.mp4"]),
        (["input=in", "output=o", "format=jpgg"], ["format=jpgg", "did you mean 'jpg'"]),
        (["input=in", "output=o", "suffix=../x"], ["suffix=../x"]),
    ],
)
def test_words_that_cannot_be(infer, in_folder, words, parts):
    fill(in_folder / "in", 1, (12, 16))
    infer(*words).fails_with(*parts)
    assert files(in_folder) == ["in/p0.png", "net.pth"]


@pytest.mark.parametrize("given", [7, {"a": 1}, ["a", 7], [], ["a", ""], None])
def test_an_input_that_is_no_path_and_no_list_of_them(given):
    [problem] = use_problems(InferConfig(checkpoint="x", input=given, output="o"))
    assert problem.startswith("input")
    assert use_problems(InferConfig(checkpoint="x", input=["a", "b"], output="o")) == []


def test_linked_folders_are_upscaled_too(infer, in_folder):
    fill(in_folder / "far", 2, (12, 16))
    (in_folder / "in").mkdir()
    (in_folder / "in/link").symlink_to(in_folder / "far")
    infer("input=in", "output=up").succeeds()
    assert files(in_folder / "up") == ["link/p0.png", "link/p1.png"]


def test_a_name_of_255_bytes(infer, in_folder):
    for letter, length in (("n", 251), ("m", 246)):
        write_image(in_folder / "a.png", stripes(12, 16))
        (in_folder / "in").mkdir(exist_ok=True)
        (in_folder / "a.png").rename(in_folder / f"in/{letter * length}.png")
    infer("input=in", "output=up").succeeds()
    assert files(in_folder / "up") == ["m" * 246 + ".png", "n" * 251 + ".png"]
    done = infer("input=in", "output=longer", "suffix=_x2")
    done.fails_with("1 of 2 inputs failed", "a name of 258 bytes", "255 is the most")
    assert files(in_folder / "longer") == ["m" * 246 + "_x2.png"]


# Inputs that fail.


def test_whatever_one_image_meets_the_others_are_done(own, in_folder):
    fill(in_folder / "in", 4, (12, 16))
    (in_folder / "in/p0.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    at = {1: [ValueError("multiples of 4, please")], 2: [MemoryError("Unable to allocate 9 TiB")]}
    done = own(at, "input=in", "output=up")
    done.fails_with(
        "3 of 4 inputs failed",
        "in/p0.png: ",
        "in/p1.png: arch: Net failed on an input of (1, 3, 12, 16) float32: ValueError",
        "in/p2.png: cpu has too little memory",
    )
    assert files(in_folder / "up") == ["p3.png"]


def test_a_webm_does_not_stop_a_folder_of_videos(infer, in_folder):
    for name in ("a.mp4", "c.mkv"):
        (in_folder / "in").mkdir(exist_ok=True)
        make_video(in_folder / "in" / name, moving(2))
    make_video(in_folder / "in/b.webm", moving(2), codec="libvpx")
    done = infer("input=in", "output=up").succeeds()
    assert files(in_folder / "up") == ["a.mp4", "b.mkv", "c.mkv"]
    assert "b.webm: becomes .mkv, as .webm cannot hold this codec" in done.out
    assert len(list(read_frames(in_folder / "up/b.mkv"))) == 2


def test_many_bad_files_are_a_short_list_and_a_count(infer, in_folder):
    fill(in_folder / "in", 1, (12, 16))
    for number in range(300):
        (in_folder / f"in/bad{number}.png").write_bytes(b"nonsense")
    done = infer("input=in", "output=up")
    done.fails_with("300 of 301 inputs failed", "... and 280 more", "bad0.png")
    assert len(done.err.splitlines()) == 22
    assert len(done.out.splitlines()) < 30
    assert files(in_folder / "up") == ["p0.png"]


DEFECT = """
def read(path, **settings):
    if path.name == "p1.png":
        raise KeyError("a defect")
    return original(path, **settings)
"""


def test_a_defect_of_the_program_is_not_hidden_and_loses_nothing(infer, in_folder, monkeypatch):
    fill(in_folder / "in", 3, (12, 16))
    ours = {"original": read_image}
    exec(compile(DEFECT, str(ROOT / "sr_train/invented.py"), "exec"), ours)
    monkeypatch.setattr("sr_train.inference.folder.read_image", ours["read"])
    done = infer("input=in", "output=up")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "while upscaling in/p1.png" in done.err
    assert files(in_folder / "up") == ["p0.png", "p2.png"]


def test_an_error_in_the_midst_of_a_video_leaves_what_is_done(own, in_folder):
    make_video(in_folder / "clip.mp4", moving(6))
    done = own({5: [ValueError("no")]}, "input=clip.mp4", "output=out/big.mp4")
    done.fails_with("frame", "ValueError: no", "the 4 frames before it are kept")
    assert "4 frames written to out/big.partial.mp4" in done.out
    assert files(in_folder / "out") == ["big.partial.mp4"]
    assert len(list(read_frames(in_folder / "out/big.partial.mp4"))) == 4


NAMES = {
    "escape": b"\x1b]0;PWNED\x07\x1b[2J",
    "line": b"line\nWARNING forged line",
    "latin-1": b"bad\xff\xfe",
    "markup": b"[red]markup[-red]",
    "formula": b"=cmd|' calc'!A1",
}


def test_names_of_every_kind_are_written_and_told_without_steering_a_terminal(infer, in_folder):
    (in_folder / "in").mkdir()
    write_image(in_folder / "a.png", stripes(12, 16))
    data = (in_folder / "a.png").read_bytes()
    for name in NAMES.values():
        for kind, content in ((b".png", data), (b".bmp", b"nonsense")):
            with open(os.fsencode(in_folder / "in") + b"/" + name + kind, "wb") as file:
                file.write(content)
    done = infer("input=in", "output=up")
    done.fails_with("5 of 10 inputs failed", "bad\\xff\\xfe.bmp", "line\\nWARNING forged")
    assert sorted(os.listdir(os.fsencode(in_folder / "up"))) == sorted(
        name + b"_png.png" for name in NAMES.values()
    )
    for text in (done.out, done.err):
        assert "\x1b" not in text
        assert not any(line.startswith("WARNING forged") for line in text.splitlines())
    infer("input=in", "output=frames.mp4", "fps=5").fails_with("twice")


def test_a_video_whose_name_is_no_utf_8(infer, in_folder):
    make_video(in_folder / "a.mp4", moving(2))
    (in_folder / "in").mkdir()
    os.rename(os.fsencode(in_folder / "a.mp4"), os.fsencode(in_folder / "in") + b"/v\xff.mp4")
    make_video(in_folder / "in/b.mp4", moving(2))
    done = infer("input=in", "output=up").succeeds()
    assert "2 frames written to up/v\\xff.mp4" in done.out
    assert sorted(os.listdir(os.fsencode(in_folder / "up"))) == [b"b.mp4", b"v\xff.mp4"]


# An end that comes early.

ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_ends_a_folder_after_the_image_in_work(own, in_folder, number, code):
    fill(in_folder / "in", 4, (12, 16))
    done = own({2: [number]}, "input=in", "output=up")
    assert done.code == code
    assert f"{number.name}: stops after this image; what is done is kept" in done.err
    assert "again: at once" in done.err
    assert f"stopped by {number.name}: 2 of 4 left" in done.out
    assert files(in_folder / "up") == ["p0.png", "p1.png"]
    assert read_image(in_folder / "up/p1.png").pixels.shape == (24, 32, 3)


def test_a_second_signal_ends_it_at_once(own, in_folder):
    fill(in_folder / "in", 4, (12, 16))
    done = own({2: [signal.SIGTERM, signal.SIGINT]}, "input=in", "output=up")
    assert done.code == 143
    assert files(in_folder / "up") == ["p0.png"]
    assert "stopped by SIGTERM: 3 of 4 left" in done.out


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_leaves_a_video_as_long_as_it_got(own, in_folder, number, code):
    make_video(in_folder / "clip.mp4", moving(12), audio="aac")
    words = ["input=clip.mp4", "output=out/big.mkv", "video.codec=ffv1"]
    done = own({8: [number]}, *words)
    assert done.code == code
    assert f"{number.name}: stops before the next frame; what is done is kept" in done.err
    assert "7 frames written to out/big.partial.mkv" in done.out
    assert files(in_folder / "out") == ["big.partial.mkv"], "no temporary file either"
    assert f"stopped by {number.name}: 1 of 1 left" in done.out
    whole = list(read_frames(in_folder / "clip.mp4"))
    kept = list(read_frames(in_folder / "out/big.partial.mkv"))
    np.testing.assert_array_equal([frame[::2, ::2] for frame in kept], whole[:7])
    with av.open(str(in_folder / "out/big.partial.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_a_signal_before_the_first_frame_leaves_nothing(own, in_folder):
    make_video(in_folder / "clip.mp4", moving(3))
    done = own({1: [signal.SIGTERM]}, "input=clip.mp4", "output=out/big.mp4")
    assert done.code == 143
    assert files(in_folder / "out") == []


def test_a_signal_in_a_folder_of_videos_leaves_those_that_are_done(own, in_folder):
    (in_folder / "in").mkdir()
    for name in "abc":
        make_video(in_folder / f"in/{name}.mp4", moving(3))
    done = own({5: [signal.SIGINT]}, "input=in", "output=up")
    assert done.code == 130
    assert "stopped by SIGINT: 2 of 3 left" in done.out
    assert files(in_folder / "up") == ["a.mp4", "b.partial.mp4"]
    assert len(list(read_frames(in_folder / "up/b.partial.mp4"))) == 1


SLOW = """
import pathlib
import time

from torch import nn


class Net(nn.Module):
    calls = 0

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Upsample(scale_factor=scale)
        self.bias = nn.Linear(1, 1)

    def forward(self, lq):
        Net.calls += lq.shape[-2:] == (12, 16)  # not the sizes that are tried before
        if Net.calls == 4:
            pathlib.Path("three-frames-are-done").touch()
        time.sleep(0.02)
        return self.scale(lq)
"""
"""A network that is not done with a video when the test has seen that it began."""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_process_that_is_ended_leaves_a_video_and_no_hidden_file(in_folder, number, code):
    (in_folder / "slow").mkdir()
    (in_folder / "slow/__init__.py").write_text(SLOW)
    torch.save({"bias.weight": torch.ones(1, 1), "bias.bias": torch.ones(1)}, "net.pth")
    make_video(in_folder / "clip.mp4", moving(1000, 12, 16))
    words = ["plugins=[slow]", "arch={_target_: slow.Net, scale: 2}", "scale=2", "device=cpu"]
    child = process(
        ["infer", "checkpoint=net.pth", *words, "input=clip.mp4", "output=out/big.mp4"], in_folder
    )
    try:
        while not (in_folder / "three-frames-are-done").exists():
            assert child.poll() is None, child.communicate()
            time.sleep(0.005)
        child.send_signal(number)
        told = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == code, told
    assert files(in_folder / "out") == ["big.partial.mp4"]
    assert 3 <= len(list(read_frames(in_folder / "out/big.partial.mp4"))) < 1000


# What is shown without a terminal.


def test_progress_without_a_terminal(infer, in_folder, monkeypatch):
    monkeypatch.setattr(console_module, "LINE_EVERY_SEC", 0.0)
    fill(in_folder / "in", 2, (12, 16))
    done = infer("input=in", "output=up").succeeds()
    assert "infer: 1 of 2, left 0:00:0" in done.out
    assert "infer: 2 of 2 in 0:00:0" in done.out


def test_validate_tells_its_progress_without_a_terminal_and_can_be_ended(command, in_folder):
    command("train", *toy_words(in_folder), "train.val_every=0", "~data.val.main").succeeds()
    fill(in_folder / "val", 3, (40, 48))
    words = ["checkpoint=runs/toy", "+dataset=main", "data.val.main.gt=val", "save_images=true"]
    done = command("validate", *words).succeeds()
    assert "validate: 3 of 3 in 0:00:0" in done.out
    assert "bicubic: 3 of 3 in 0:00:0" in done.out


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_ends_validate_without_scores(command, in_folder, monkeypatch, number, code):
    command("train", *toy_words(in_folder), "train.val_every=0", "~data.val.main").succeeds()
    fill(in_folder / "val", 3, (40, 48))
    words = ["checkpoint=runs/toy", "+dataset=main", "data.val.main.gt=val", "save_images=true"]
    original = write_image

    def write(path, *pixels):
        original(path, *pixels)
        if path.name == "p1.png":
            os.kill(os.getpid(), number)

    monkeypatch.setattr("sr_train.commands.validate.write_image", write)
    done = command("validate", *words)
    assert done.code == code
    assert f"{number.name}: ends; images that are written are kept, no scores are" in done.err
    assert files(in_folder / "validation") == ["main/p0.png", "main/p1.png"]


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_ends_export_with_nothing_half(command, in_folder, monkeypatch, number, code):
    command("train", *toy_words(in_folder), "train.val_every=0", "~data.val.main").succeeds()
    (in_folder / "out").mkdir()
    (in_folder / "out/.sr_0123abcd.tmp").write_text("of a killed export")
    original = os.write

    def write(descriptor, data):
        if len(data) > 1000:
            os.kill(os.getpid(), number)
        return original(descriptor, data)

    monkeypatch.setattr("sr_train.io.files.os.write", write)
    done = command("export", "checkpoint=runs/toy", "output=out/net.safetensors")
    monkeypatch.undo()
    assert done.code == code
    assert files(in_folder / "out") == []
