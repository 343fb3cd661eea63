"""Clips in chunks: equal to the whole where they can be, without jumps where they cannot."""

import logging
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sr_train.api.errors import ConfigError, DataError, SRTrainError
from sr_train.api.network import NetSpec
from sr_train.inference.clips import ClipUpscaler, frame_by_frame
from sr_train.inference.upscaler import Upscaler
from tests.sr_train.inference.toys import Nearest


class Window(nn.Module):
    """Zero-padded convolutions over time and space, whose radii are known exactly."""

    def __init__(self, scale=2, depth=2, extra=0, min_frames=1):
        super().__init__()
        torch.manual_seed(0)
        extras = {"spikes": extra} if extra else {}
        self.spec = NetSpec(
            scale=scale,
            receptive_field=depth,
            takes_clips=True,
            time_field=depth,
            min_frames=min_frames,
            extra_inputs=extras,
        )
        first = nn.Conv3d(3 + extra, 3, 3, padding=1)
        self.body = nn.Sequential(first, *(nn.Conv3d(3, 3, 3, padding=1) for _ in range(depth - 1)))
        for conv in self.body:
            nn.init.normal_(conv.weight, std=0.25)
        self.lengths = []

    def forward(self, lq):
        assert not self.training
        self.lengths.append(lq.shape[1])
        assert lq.shape[1] >= self.spec.min_frames
        x = self.body(lq.transpose(1, 2)).transpose(1, 2)
        size = [side * self.spec.scale for side in lq.shape[-2:]]
        return functional.interpolate(x.flatten(0, 1), size).unflatten(0, lq.shape[:2])


class Recurrent(nn.Module):
    """Two running means, one from each end of the clip: every frame sees all others."""

    def __init__(self, memory=0.8):
        super().__init__()
        self.spec = NetSpec(scale=1, receptive_field=0, takes_clips=True, time_field=None)
        self.memory = memory
        self.lengths = []

    def forward(self, lq):
        self.lengths.append(lq.shape[1])
        return (self._run(lq.unbind(1)) + self._run(lq.unbind(1)[::-1]).flip(1)) / 2

    def _run(self, frames):
        state, states = frames[0], []
        for frame in frames:
            state = self.memory * state + (1 - self.memory) * frame
            states.append(state)
        return torch.stack(states, 1)


def clip(count, height=18, width=23, dtype=np.uint8, extra=0, seed=0):
    draw = np.random.default_rng(seed)
    top = np.iinfo(dtype).max + 1
    frames = [{"lq": draw.integers(0, top, (height, width, 3)).astype(dtype)} for _ in range(count)]
    if extra:
        for frame in frames:
            frame["spikes"] = draw.random((height, width, extra), np.float32)
    return frames


def run(net, source, **settings):
    return np.stack(list(ClipUpscaler(net, net.spec, **settings)(iter(source), "clip")))


def steps_apart(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 16, 17, 23, 40])
def test_chunks_and_tiles_equal_the_whole_clip(count):
    net, frames = Window(), clip(count)
    whole = run(net, frames, frames=None, tile=None)
    assert whole.shape == (count, 36, 46, 3)
    chunked = run(net, frames, frames=10, tile=8, tile_batch=2)
    assert steps_apart(chunked, whole) <= 1
    assert (chunked != whole).mean() < 1e-3


def test_a_frame_less_of_context_would_show():
    net, frames = Window(), clip(23)
    whole = run(net, frames, frames=None, tile=None)
    net.spec = NetSpec(scale=2, receptive_field=2, takes_clips=True, time_field=1)
    assert steps_apart(run(net, frames, frames=10, tile=None), whole) > 1


@pytest.mark.parametrize("count", [31, 45, 60, 61, 100, 199])
@pytest.mark.parametrize("frame_overlap", [None, 0, 7])
def test_chunks_are_even(count, frame_overlap):
    net = Recurrent()
    frames = [{"lq": np.zeros((2, 2, 3), np.uint8)}] * count
    assert len(run(net, frames, frames=30, frame_overlap=frame_overlap)) == count
    overlap = 10 if frame_overlap is None else frame_overlap
    assert sum(net.lengths) == count + overlap * (len(net.lengths) - 1)
    assert set(net.lengths[:-2]) <= {30}
    assert abs(net.lengths[-1] - net.lengths[-2]) <= 1
    assert min(net.lengths) >= 15


def test_a_still_clip_stays_still_across_chunks():
    """The weights of two chunks over one frame add up to 1."""
    net = Recurrent(memory=0.0)
    frames = clip(1) * 70
    out = run(net, frames, frames=20)
    np.testing.assert_array_equal(out, np.stack([frame["lq"] for frame in frames]))


@pytest.mark.parametrize("memory", [0.3, 0.5, 0.8])
def test_a_recurrent_network_does_not_jump_where_chunks_meet(memory):
    frames = clip(60, dtype=np.uint16)
    whole = run(Recurrent(memory), frames, frames=None).astype(float)
    apart, jump = [], []
    for overlap in (10, 0):
        out = run(Recurrent(memory), frames, frames=20, frame_overlap=overlap) - whole
        apart.append(np.abs(out).mean((1, 2, 3)).max())
        jump.append(np.abs(np.diff(out, axis=0)).mean((1, 2, 3)).max())
    assert apart[0] < memory**4 * apart[1]
    assert jump[0] < memory**4 * jump[1]


@pytest.mark.parametrize("count", [1, 3, 5, 6, 11, 12, 13])
def test_no_chunk_is_shorter_than_the_network_wants(count):
    net, frames = Window(scale=1, min_frames=5), clip(count)
    out = run(net, frames, frames=6)
    assert min(net.lengths) >= 5
    filled = [*frames, *frames[-1:] * (5 - count)]
    whole = run(net, filled, frames=None)[:count]
    assert steps_apart(out, whole) <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_is_kept_and_values_are_clipped_and_rounded(dtype):
    class Times(Recurrent):
        def forward(self, lq):
            return lq * 1.5 - 0.2

    frames = clip(3, dtype=dtype)
    out = run(Times(), frames)
    white = np.iinfo(dtype).max
    expected = np.stack([frame["lq"] for frame in frames]).astype(np.float32) / white * 1.5 - 0.2
    expected = np.clip(np.floor(expected * white + 0.5), 0, white)
    assert out.dtype == dtype
    assert np.abs(out - expected).max() <= (0 if dtype == np.uint8 else 1)


def test_frames_are_taken_as_they_are_needed():
    taken = []

    def source():
        for frame in clip(500, 2, 2):
            taken.append(1)
            yield frame

    stream = ClipUpscaler(Recurrent(), Recurrent().spec, frames=20)(source(), "clip")
    next(stream)
    assert len(taken) <= 2 * 20
    for _ in range(99):
        next(stream)
    assert len(taken) <= 100 + 2 * 20


def test_the_network_is_in_eval_mode_while_a_chunk_runs_only():
    net = Window()
    net.train()
    stream = ClipUpscaler(net, net.spec, frames=10)(iter(clip(30)), "clip")
    next(stream)
    assert net.training
    assert torch.is_grad_enabled()


def test_extra_inputs_follow_the_channels_of_lq():
    class Sum(nn.Module):
        spec = NetSpec(
            scale=1, receptive_field=0, takes_clips=True, time_field=0, extra_inputs={"spikes": 2}
        )

        def forward(self, x):
            return x[:, :, :3] * 0 + x[:, :, 3:4] + 2 * x[:, :, 4:5]

    frames = clip(7, extra=2)
    out = run(Sum(), frames, frames=3)
    spikes = np.stack([frame["spikes"] for frame in frames])
    expected = np.clip(np.floor((spikes[..., :1] + 2 * spikes[..., 1:]) * 255 + 0.5), 0, 255)
    assert steps_apart(out, np.broadcast_to(expected, out.shape)) == 0


def test_tiled_with_extra_inputs_equals_whole():
    net, frames = Window(extra=3), clip(19, extra=3)
    whole = run(net, frames, frames=None, tile=None)
    assert steps_apart(run(net, frames, frames=9, tile=7), whole) <= 1


def bad(frames, number, **parts):
    frames[number] = {**frames[number], **parts}
    return frames


@pytest.mark.parametrize(
    ("number", "parts", "words"),
    [
        (4, {"lq": np.zeros((18, 22, 3), np.uint8)}, r"clip, frame 4: is \(18, 22, 3\) uint8"),
        (4, {"lq": np.zeros((18, 23, 3), np.uint16)}, r"frame 4: .* uint16, but frame 0"),
        (0, {"lq": np.zeros((18, 23, 1), np.uint8)}, r"frame 0: expected \(H, W, 3\)"),
        (0, {"lq": np.zeros((18, 23, 3), np.float32)}, "expected uint8 or uint16"),
        (3, {"spikes": np.zeros((18, 23, 2))}, r"frame 3: spikes is .*expected \(18, 23, 3\)"),
        (3, {"spikes": np.zeros((9, 23, 3))}, "frame 3: spikes"),
    ],
)
def test_a_frame_of_another_kind_is_named(number, parts, words):
    with pytest.raises(DataError, match=words):
        run(Window(extra=3), bad(clip(6, extra=3), number, **parts))


def test_a_missing_input_is_named():
    with pytest.raises(DataError, match="frame 0: the network wants 'spikes'; this frame has lq"):
        run(Window(extra=3), clip(2))
    with pytest.raises(DataError, match="clip: no frames"):
        run(Window(), [])


def test_a_prediction_that_is_not_finite_is_refused():
    net = Window()
    net.body[0].bias.data.fill_(float("nan"))
    with pytest.raises(SRTrainError, match="clip, frames 0 to 2: the network's prediction is not"):
        run(net, clip(3))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"frames": 4}, "frames=4: expected at least 5"),
        ({"frames": 0}, "frames=0"),
        ({"frames": "all"}, "'all'"),
        ({"frame_overlap": -1}, "frame_overlap"),
        ({"frames": 6, "frame_overlap": 3}, None),
        ({"frames": 5, "frame_overlap": 3}, "expected at least 6"),
    ],
)
def test_impossible_settings(settings, words):
    net = Window()
    expected = nullcontext() if words is None else pytest.raises(ConfigError, match=words)
    with expected:
        ClipUpscaler(net, net.spec, **settings)


def test_networks_of_another_kind():
    image = Nearest()
    with pytest.raises(ConfigError, match="single images"):
        ClipUpscaler(image, image.spec)
    with pytest.raises(ConfigError, match="takes clips"):
        Upscaler(Window(), Window().spec)


def test_image_networks_go_frame_by_frame():
    net = Nearest()
    upscale = frame_by_frame(Upscaler(net, net.spec))
    frames = clip(3)
    out = list(upscale(iter(frames), "clip"))
    np.testing.assert_array_equal(out[2], frames[2]["lq"].repeat(2, 0).repeat(2, 1))
    with pytest.raises(DataError, match="no frames"):
        list(upscale([], "clip"))


class Hungry(Recurrent):
    """Runs out of memory above so many pixels of a chunk."""

    def __init__(self, most, error):
        super().__init__(0.5)
        self.most, self.error = most, error

    def forward(self, lq):
        if lq.shape[1] * lq.shape[-1] * lq.shape[-2] > self.most:
            raise self.error
        return super().forward(lq)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory. More words"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
        MemoryError("Unable to allocate 3 GiB"),
    ],
    ids=str,
)
def test_out_of_memory_makes_chunks_shorter_then_tiles_smaller(caplog, error):
    frames = clip(50, 64, 64)
    whole = run(Recurrent(0.5), frames, frames=None)
    net = Hungry(20 * 64 * 64, error)
    with caplog.at_level(logging.WARNING):
        out = run(net, frames, frames=40, frame_overlap=8)
    assert f"{str(error).split('. ')[0]}: continuing with tiling.frames=20" in caplog.text
    assert "tile=" not in caplog.text
    assert len(out) == 50
    assert np.abs(out.astype(int) - whole).mean() < 0.5
    with caplog.at_level(logging.WARNING):
        out = run(Hungry(18 * 40 * 40, error), frames, frames=40, frame_overlap=8)
    assert "tiling.frames=16" in caplog.text
    assert "tile=32" in caplog.text
    assert np.abs(out.astype(int) - whole).mean() < 0.5


def test_out_of_memory_on_the_way_goes_on_where_it_was(monkeypatch):
    """The share of the chunk before is still blended in."""
    net = Recurrent(0.0)
    frames = clip(90, 6, 6)
    original = net.forward
    calls = []

    def forward(lq):
        calls.append(lq.shape[1])
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return original(lq)

    monkeypatch.setattr(net, "forward", forward)
    out = run(net, frames, frames=40, frame_overlap=8)
    np.testing.assert_array_equal(out, np.stack([frame["lq"] for frame in frames]))
    assert calls[:3] == [40, 33, 20]
