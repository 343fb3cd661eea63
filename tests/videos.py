"""Small video files, made with PyAV and nothing of ours."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def moving(count: int, height: int = 32, width: int = 48, seed: int = 0) -> list[np.ndarray]:
    """Return frames of a smooth picture that moves by a pixel a frame; each can be told."""
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
        if rotation:
            stream.set_display_rotation(rotation)
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
