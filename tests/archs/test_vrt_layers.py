import itertools
import math

import pytest
import torch

from archs.swin_layers import DropPath
from archs.vrt_layers import (
    AttentionBlock,
    WindowAttention,
    attend,
    fit_window,
    join_windows,
    padded_size,
    relative_position_index,
    shift_mask,
    sine_positions,
    split_windows,
)


def places(window):
    """Return (t, h, w) of every pixel of a window, in its order."""
    return list(itertools.product(*map(range, window)))


def test_windows_are_put_back_where_they_were():
    x = torch.arange(2 * 4 * 6 * 9 * 2).view(2, 4, 6, 9, 2)
    windows = split_windows(x, (2, 3, 3))
    assert windows.shape == (2 * 2 * 2 * 3, 18, 2)
    assert torch.equal(windows[7].view(2, 3, 3, 2), x[0, 2:, :3, 3:6])
    assert torch.equal(join_windows(windows, (2, 3, 3), (4, 6, 9)), x)


def test_a_window_is_no_longer_than_the_clip_and_shifted_only_among_others():
    assert fit_window((7, 16, 8), (6, 8, 8), (3, 4, 4)) == ((6, 8, 8), (3, 4, 0))
    assert fit_window((4, 5, 9), (6, 8, 8), (3, 4, 4)) == ((4, 8, 8), (0, 0, 4))
    assert padded_size((7, 16, 5), (6, 8, 8)) == (12, 16, 8)


@pytest.mark.parametrize("shift", [(1, 2, 1), (0, 2, 2), (1, 0, 0), (0, 0, 1)])
def test_the_mask_parts_what_the_shift_brought_together(shift):
    """Pixels may see each other where both came from the same side of every border."""
    size, window = (4, 8, 6), (2, 4, 3)
    mask = shift_mask(size, window, shift)
    corners = itertools.product(*(range(0, n, w) for n, w in zip(size, window, strict=True)))
    for index, corner in enumerate(corners):
        wrapped = [
            tuple(c + p + s >= n for c, p, s, n in zip(corner, place, shift, size, strict=True))
            for place in places(window)
        ]
        expected = torch.tensor([[0.0 if a == b else -100.0 for b in wrapped] for a in wrapped])
        assert torch.equal(mask[index], expected)
    assert len(mask) == index + 1


def test_without_a_shift_there_is_no_mask():
    assert shift_mask((4, 8, 8), (2, 4, 4), (0, 0, 0)) is None


def test_each_relative_position_has_a_row_of_its_own():
    window = (2, 3, 4)
    index = relative_position_index(window)
    steps = itertools.product(*(range(1 - side, side) for side in window))
    row = {step: number for number, step in enumerate(steps)}
    for a, here in enumerate(places(window)):
        for b, there in enumerate(places(window)):
            step = tuple(x - y for x, y in zip(here, there, strict=True))
            assert index[a, b] == row[step]


def test_the_first_rows_are_those_of_a_window_of_fewer_frames():
    long, short = relative_position_index((3, 2, 2)), relative_position_index((2, 2, 2))
    steps = long[:8, :8] - short
    assert steps.unique().numel() == 1


def test_positions_are_sines_and_cosines_of_rows_and_columns():
    found = sine_positions(3, 2, 8).view(3, 2, 8)
    for row, column in itertools.product(range(3), range(2)):
        down = (row + 1) / (3 + 1e-6) * 2 * math.pi
        right = (column + 1) / (2 + 1e-6) * 2 * math.pi
        expected = [
            function(angle / 10000 ** (2 * pair / 4))
            for angle in (down, right)
            for pair in range(2)
            for function in (math.sin, math.cos)
        ]
        torch.testing.assert_close(found[row, column], torch.tensor(expected))


def naive(query, key, value, bias):
    """One head: (N, C/heads) each."""
    logits = query @ key.T / math.sqrt(query.shape[1]) + bias
    weights = logits.exp() / logits.exp().sum(1, keepdim=True)
    return weights @ value


def attention(mutual, window=(2, 2, 2), channels=8):
    torch.manual_seed(0)
    module = WindowAttention(channels, window, num_heads=2, mutual=mutual)
    with torch.no_grad():
        for weights in module.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return module


def by_head(linear, x):
    """Return [head][query, key, value] of a window (N, C)."""
    parts = linear(x).chunk(3, -1)
    return [[part[:, head * 4 : head * 4 + 4] for part in parts] for head in range(2)]


@pytest.mark.parametrize("mutual", [False, True])
def test_attention_is_that_of_a_naive_loop(mutual):
    module = attention(mutual)
    windows = torch.randn(4, 8, 8)
    mask = shift_mask((2, 2, 4), (2, 2, 2), (0, 1, 1))
    with torch.no_grad():
        found = module(windows, mask)
        for index, window in enumerate(windows):
            table = module.relative_position_bias_table[module.relative_position_index]
            blocked = mask[index % 2]
            out = [
                naive(*parts, table[..., head] + blocked)
                for head, parts in enumerate(by_head(module.qkv_self, window))
            ]
            if mutual:
                placed = window + torch.cat([module.position_bias[0]] * 2)
                seen = []
                for query, key, value in by_head(module.qkv_mut, placed):
                    within = blocked[:4, :4]
                    first = naive(query[4:], key[:4], value[:4], within)
                    second = naive(query[:4], key[4:], value[4:], within)
                    seen.append(torch.cat((first, second)))
                out = [*seen, *out]
            torch.testing.assert_close(found[index], module.proj(torch.cat(out, 1)))


def test_heads_of_an_odd_width_attend_as_wide_ones_do():
    query, key, value = torch.randn(3, 2, 2, 4, 5).unbind(0)
    found = attend(query, key, value, None).view(2, 4, 2, 5)
    torch.testing.assert_close(found[1, :, 1], naive(query[1, 1], key[1, 1], value[1, 1], 0.0))


def block(shift, mutual=False, window=(2, 4, 4), drop_path=0.0):
    torch.manual_seed(0)
    return AttentionBlock(
        8, window, shift, 2, mutual=mutual, mlp_ratio=2.0, drop_path=drop_path
    ).eval()


def moved(net, size, changed):
    """Return at which (t, h, w) the result changes with the pixel `changed`."""
    window, shift = fit_window(size, net.window, net.shift)
    mask = shift_mask(padded_size(size, window), window, shift)
    x = torch.randn(1, *size, 8)
    other = x.clone()
    other[(0, *changed, 0)] += 3.0
    with torch.no_grad():
        return (net(x, mask) - net(other, mask)).abs().amax((0, -1)) > 1e-6


def test_windows_shifted_in_time_join_frames_of_two_windows():
    apart, joined = block((0, 0, 0)), block((1, 2, 2))
    size, changed = (4, 8, 8), (1, 3, 3)
    assert moved(apart, size, changed).any((1, 2)).tolist() == [True, True, False, False]
    found = moved(joined, size, changed)
    assert found.any((1, 2)).tolist() == [False, True, True, False]
    assert found.any((0, 1)).nonzero().flatten().tolist() == [2, 3, 4, 5]


def test_the_first_and_last_frames_do_not_see_each_other():
    found = moved(block((1, 2, 2)), (4, 8, 8), (0, 0, 0))
    assert found.any((1, 2)).tolist() == [True, False, False, False]
    assert found.any((0, 2)).nonzero().flatten().tolist() == [0, 1]


def test_a_single_long_window_is_not_shifted():
    found = moved(block((2, 2, 2), window=(4, 4, 4)), (3, 4, 4), (0, 0, 0))
    assert found.all()


def test_stochastic_depth_drops_whole_clips():
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(400, 2, 2, 2, 3)).flatten(1)
    assert (out.amin(1) == out.amax(1)).all()
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
