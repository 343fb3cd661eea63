"""Small video files, made with PyAV and nothing of ours."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def moving(count: int, height: int = 32, width: int = 48, seed: int = 0) -> list[np.ndarray]:
    """Return frames of a smooth image that moves by a pixel a frame; each can be told."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    phases = np.random.default_rng(seed).uniform(0, 6, 3)

    def frame(number: int) -> np.ndarray:
        waves = [np.sin((x + number) / 5 + y / 9 + phase) for phase in phases]
        return (128 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)

    return [frame(number) for number in range(count)]


def make_video(
    path: Path,
    frames: Sequence[np.ndarray],
    fps: Fraction | int = 25,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    mirrored: bool = False,
    audio: str | None = None,
    start: float = 0.0,
) -> Path:
    """Write a video.

    `times` are milliseconds, `audio` is the codec of a sine of 440 Hz; `start` are seconds by which
    all time stamps are late.
    """
    container_options = {"output_ts_offset": str(start)} if start else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        sound = container.add_stream(audio, rate=16000, layout="mono") if audio else None
        for number, pixels in enumerate(frames):
            name = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
            frame = av.VideoFrame.from_ndarray(pixels, name)
            frame.pts = number if times is None else times[number]
            if times is not None:
                frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            count = int(16000 * len(frames) / fps)
            wave = np.sin(np.arange(count) * (2 * np.pi * 440 / 16000)).astype(np.float32) / 4
            heard = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
            heard.sample_rate, heard.pts = 16000, 0
            heard.time_base = Fraction(1, 16000)
            resampler = av.AudioResampler(sound.format, "mono", 16000, sound.frame_size or 1024)
            for part in (*resampler.resample(heard), *resampler.resample(None)):
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return path


def remuxed(
    source: Path,
    target: Path,
    keep: Callable[[int], bool] = lambda number: True,
    *,
    shift: int = 0,
    options: dict[str, str] | None = None,
    change: Callable[[int, av.Packet], None] | None = None,
) -> Path:
    """Write packets of a video into another container, `shift` ticks of the first one earlier.

    `keep` says by its number whether a packet is written; `change` may change it before.
    """
    with av.open(str(source)) as given, av.open(str(target), "w", options=options or {}) as out:
        stream = given.streams.video[0]
        written = out.add_stream_from_template(stream)
        number = 0
        for packet in given.demux(stream):
            if not packet.size:
                continue
            if keep(number):
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts = None if packet.dts is None else packet.dts - shift
                if change is not None:
                    change(number, packet)
                packet.stream = written
                out.mux(packet)
            number += 1
    return target


def packets_of(path: Path) -> list[av.Packet]:
    """Return the packets of the first video stream."""
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def with_zeros(source: Path, target: Path, first: int, last: int) -> Path:
    """Write a video whose packets of two numbers and between are zeros."""
    data = bytearray(source.read_bytes())
    for packet in packets_of(source)[first : last + 1]:
        # The header of a packet in a Matroska file lies at its start.
        start = packet.pos + (8 if source.suffix == ".mkv" else 0)
        data[start : packet.pos + packet.size] = bytes(packet.pos + packet.size - start)
    target.write_bytes(data)
    return target


def noisy(count: int, height: int = 64, width: int = 80) -> list[np.ndarray]:
    """Return frames that take many bytes each."""
    draw = np.random.default_rng(0)
    return [
        np.clip(frame + draw.integers(-30, 30, frame.shape), 0, 255).astype(np.uint8)
        for frame in moving(count, height, width)
    ]


def plainly_decoded(path: Path) -> list[av.VideoFrame]:
    """Return what FFmpeg gives, one frame after the other on one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return list(container.decode(stream))
