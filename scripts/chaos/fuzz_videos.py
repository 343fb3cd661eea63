"""Mutated videos through the readers, `infer` and a data set of clips.

Example: python -m scripts.chaos.fuzz_videos --cases 110 --seed 1 --out chaos

Ends must be an error of the data or frames; of commands, exit code 0 or 2, and no part of a file.
"""

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from scripts.chaos import children, photographs, toy_runs
from scripts.chaos.mutation import mutated
from scripts.chaos.report import JUDGED, Report, arguments

NEVER = (*JUDGED, "leftover_files")
BATCH = 10
FRAMES = 9
OURS = {
    "a.mp4": ("h264", (48, 32)), "b.mkv": ("h264", (48, 32)), "c.mp4": ("hevc", (64, 64)),
    "d.webm": ("av1", (64, 64)), "e.mkv": ("ffv1", (32, 24)), "f.mov": ("h264", (34, 18)),
}  # fmt: skip
"""Written by the program itself: codec, width and height."""
OTHERS = {
    "g.mp4": ("libx264", "mp4", "aac"), "h.avi": ("mpeg4", "avi", ""),
    "i.ts": ("mpeg2video", "mpegts", ""), "j.mpg": ("mpeg2video", "mpeg", ""),
    "k.webm": ("libvpx", "webm", ""), "l.mkv": ("libx264", "matroska", "flac"),
}  # fmt: skip
"""Codec, container and codec of the sound, if any."""
IMPOSTORS = {
    "text.mp4": b"hello" * 50,
    "empty.mp4": b"",
    "concat.mp4": b"ffconcat version 1.0\nfile 'a.mp4'\n",
    "itself.mp4": b"ffconcat version 1.0\nfile 'itself.mp4'\n",
    "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x\n",
    "session.mp4": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "metadata.mp4": b";FFMETADATA1\n",
    "gif.mp4": b"GIF89a" + b"\0" * 50,
}


def frame(number: int, width: int, height: int) -> np.ndarray:
    """Return a part of a photograph that moves, (H, W, 3) uint8."""
    left = 60 + 3 * number
    return np.ascontiguousarray(photographs.pixels()[60 : 60 + height, left : left + width])


def make(folder: Path) -> None:
    """Write good videos of many kinds."""
    from sr_train.io.video.writer import VideoWriter

    for name, (codec, size) in OURS.items():
        with VideoWriter(folder / name, size, 25, codec) as writer:
            for number in range(FRAMES):
                writer.write(frame(number, *size))
    for name, (codec, form, sound) in OTHERS.items():
        with av.open(str(folder / name), "w", format=form) as out:
            video = out.add_stream(codec, 25)
            video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
            audio = out.add_stream(sound, 16000) if sound else None
            for number in range(FRAMES):
                shown = av.VideoFrame.from_ndarray(frame(number, 48, 32), format="rgb24")
                out.mux(video.encode(shown))
            if audio is not None:
                quiet = np.zeros((1, 16000 // 3), np.int16)
                heard = av.AudioFrame.from_ndarray(quiet, format="s16", layout="mono")
                heard.sample_rate, heard.pts = 16000, 0
                out.mux([*audio.encode(heard), *audio.encode(None)])
            out.mux(video.encode(None))


def look(path: Path) -> None:
    """Probe a file, read all frames, then some by number; print what came of it."""
    from sr_train.api.errors import DataError
    from sr_train.io.video import frames

    def by_number() -> None:
        with frames.FrameReader(path) as reader:
            for number in (0, len(reader) - 1, len(reader) // 2, min(1, len(reader) - 1)):
                reader[number]

    told = []
    for read in (
        lambda: frames.probe(path), lambda: sum(1 for _ in frames.read_timed_frames(path)),
        by_number,
    ):  # fmt: skip
        try:
            read()
            told.append("read")
        except DataError:
            told.append("DataError")
    print("probe, frames, by number:", *told)


def upscale(report: Report, network: Path, path: Path) -> None:
    """Give a file to `infer`."""
    out = report.work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    words = ["infer", f"checkpoint={network}", f"input={path}", "output=out/o.mkv", "device=cpu"]
    ended = children.run([*words, "video.codec=ffv1"], report.work, report.log)
    report.judge({"infer": path.name}, ended, table="infer", codes=(0, 1, 2), slow_s=40)
    if toy_runs.leftovers(out):
        report.add("leftover_files", case=path.name, files=toy_runs.leftovers(out))


def train(report: Report, paths: list[Path], cache: str) -> None:
    """Train on a folder of files, the bad ones skipped."""
    folder = report.work / "clips"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in paths:
        os.link(path, folder / path.name)
    words = [
        "train", "name=c", "scale=2", "device=cpu", "precision=fp32", "logger=none",
        "arch=compact_temporal", "arch.frames=3", "arch.net.in_channels=9", "arch.net.num_feat=4",
        "arch.net.num_conv=1", "dataset=[clips]", "~data.val.main", "data.frames=3",
        "data.batch_size=2", "data.lq_size=8", "train.steps=6", "data.train.on_bad=skip",
        "data.train.gt=clips", f"data.train.cache={cache}", "data.stream.num_workers=0",
    ]  # fmt: skip
    ended = children.run(words, report.work, report.log, limit_s=120, patience_s=2)
    report.judge({"train": cache, "from": paths[0].name}, ended, table="train", slow_s=60)
    shutil.rmtree(report.work / "runs/c", ignore_errors=True)


def in_child(report: Report, job: Callable[[], None]) -> None:
    """Do something that must succeed in a child: codecs leave threads behind."""
    made = children.run(job, report.work, report.log, limit_s=200)
    if made.code != 0:
        raise RuntimeError(f"the videos could not be made:\n{made.out[-2000:]}")


def main() -> int:
    """Read and use all files; return 1 where one was not answered as it should be."""
    options = arguments(__doc__, cases=110)
    report = Report("fuzz_videos", options, NEVER)
    draw, folder = random.Random(options.seed), report.work / "files"
    children.preload()
    network = toy_runs.tiny_run(report)
    folder.mkdir()
    in_child(report, lambda: make(folder))
    pool = sorted(folder.iterdir())
    for name, content in IMPOSTORS.items():
        (folder / name).write_bytes(content)
    (folder / "image.mp4").write_bytes((report.data / "val/v0.png").read_bytes())
    for number in range(max(0, options.cases - len(list(folder.iterdir())))):
        source = draw.choice(pool)
        name = f"m{number:03d}{source.suffix}"
        (folder / name).write_bytes(mutated(source.read_bytes(), draw))
    paths = sorted(folder.iterdir())
    report.figures["files"] = len(paths)
    for path in paths:
        ended = children.run(lambda path=path: look(path), report.work, report.log, limit_s=60)
        report.count("read", ended.last_line() if ended.code == 0 else "nothing")
        report.judge(path.name, ended, codes=(0,), table="reading")
        upscale(report, network, path)
    draw.shuffle(paths)
    for at in range(0, len(paths), BATCH):
        for cache in ("decoded", "encoded"):
            train(report, paths[at : at + BATCH], cache)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
