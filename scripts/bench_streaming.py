"""Peak memory and pace of streaming inference, over clips of different lengths.

Every case runs in a process of its own, from a video file to a video file, so that its peak
memory is its own. Weights are random.

Examples:
    python -m scripts.bench_streaming
    python -m scripts.bench_streaming --net window --frames 30 300 --size 180 320 --chunk 20
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from archs.compact import SRVGGNetCompact
from archs.temporal import TemporalWindow
from sr_train.api.network import NetSpec
from sr_train.inference.clips import ClipUpscaler
from sr_train.inference.streams import VideoSource, VideoWish, upscale_clip, writing_video
from sr_train.io.video.writer import VideoWriter
from sr_train.utils.heap import give_back_large_blocks, keep_heap, peak_host_bytes

SCALE = 2


class Recurrent(nn.Module):
    """A hidden state that runs over the clip from both ends: every frame sees all others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spec = NetSpec(scale=SCALE, receptive_field=None, takes_clips=True, time_field=None)
        self.channels = channels
        self.cells = nn.ModuleList(
            nn.Conv2d(3 + channels, channels, 3, padding=1) for _ in range(2)
        )
        self.last = nn.Conv2d(2 * channels, 3 * SCALE**2, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, T, 3, H*2, W*2) for `lq` (B, T, 3, H, W)."""
        frames = list(lq.unbind(1))
        earlier = self._run(self.cells[0], frames)
        later = self._run(self.cells[1], frames[::-1])[::-1]
        preds = [
            nn.functional.pixel_shuffle(self.last(torch.cat(pair, 1)), SCALE)
            for pair in zip(earlier, later, strict=True)
        ]
        return torch.stack(preds, 1)

    def _run(self, cell: nn.Module, frames: list[Tensor]) -> list[Tensor]:
        height, width = frames[0].shape[-2:]
        state = frames[0].new_zeros(len(frames[0]), self.channels, height, width)
        states = []
        for frame in frames:
            state = torch.tanh(cell(torch.cat([frame, state], 1)))
            states.append(state)
        return states


def make_net(name: str, channels: int) -> nn.Module:
    """Return a network that sees five frames, or all of them."""
    torch.manual_seed(0)
    if name == "recurrent":
        return Recurrent(channels)
    inner = SRVGGNetCompact(SCALE, in_channels=15, num_feat=channels, num_conv=4)
    return TemporalWindow(inner, 5)


def make_clip(path: Path, count: int, height: int, width: int) -> None:
    """Write a video of a pattern that moves."""
    y, x = np.mgrid[:height, :width]
    with VideoWriter(path, (width, height), 25) as writer:
        for number in range(count):
            waves = [128 + 90 * np.sin((x + number) / 7 + y / (9 + c)) for c in range(3)]
            writer.write(np.stack(waves, -1).astype(np.uint8))


def run(options: argparse.Namespace) -> dict[str, float]:
    """Upscale one file; return seconds, and MiB at the peak and before the first frame."""
    if options.keep_heap:
        keep_heap()
    else:
        give_back_large_blocks()
    net = make_net(options.net[0], options.channels)
    before = (peak_host_bytes() or 0) / 2**20
    upscale = ClipUpscaler(net, net.spec, frames=options.chunk)
    source = VideoSource(options.clip)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        opened = writing_video(Path(folder) / "out.mp4", source, SCALE, VideoWish())
        count = upscale_clip(upscale, source, {}, opened, lambda: None)
    seconds = time.perf_counter() - started
    return {
        "frames_per_sec": count / seconds,
        "mib": (peak_host_bytes() or 0) / 2**20,
        "idle_mib": before,
    }


def main() -> None:
    """Run every case in a process of its own and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--net", nargs="+", choices=["window", "recurrent"], default=["window", "recurrent"]
    )
    parser.add_argument("--frames", nargs="+", type=int, default=[30, 300])
    parser.add_argument("--size", nargs=2, type=int, default=[180, 320], metavar=("H", "W"))
    parser.add_argument(
        "--chunk", type=lambda word: word if word == "auto" else int(word), default="auto"
    )
    parser.add_argument("--channels", type=int, default=16, help="of the networks")
    parser.add_argument("--keep-heap", action="store_true", help="as single images do")
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clip is not None:
        print(json.dumps(run(options)))
        return
    print(
        f"{'net':<10} {'frames':>6} {'frames/s':>9} {'peak MiB':>9} {'idle MiB':>9} {'to first':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in options.net:
            first: float | None = None
            for count in options.frames:
                clip = Path(folder) / f"{count}.mp4"
                if not clip.exists():
                    make_clip(clip, count, *options.size)
                words = ["--net", name, "--chunk", str(options.chunk), "--clip", str(clip)]
                words += ["--channels", str(options.channels)]
                words += ["--keep-heap"] * options.keep_heap
                done = subprocess.run(
                    [sys.executable, "-m", "scripts.bench_streaming", *words],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                found = json.loads(done.stdout.splitlines()[-1])
                first = found["mib"] if first is None else first
                print(
                    f"{name:<10} {count:>6} {found['frames_per_sec']:>9.2f} {found['mib']:>9.0f} "
                    f"{found['idle_mib']:>9.0f} {found['mib'] / first - 1:>+9.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
