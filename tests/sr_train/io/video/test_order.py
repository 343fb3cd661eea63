"""Which frame has which time, without any file."""

from fractions import Fraction
from types import SimpleNamespace

import pytest

from sr_train.io.video.decoding import Sent
from sr_train.io.video.order import Gaps, Order, WrongTimesError


def made(kind="mpegts", *, reorders=True, trusts_times=True):
    codec = SimpleNamespace(canonical_name="h264", name="h264")
    context = SimpleNamespace(codec=codec, has_b_frames=reorders)
    stream = SimpleNamespace(time_base=Fraction(1, 100), codec_context=context, index_entries=())
    container = SimpleNamespace(format=SimpleNamespace(name=kind))
    return Order(container, stream, Fraction(25), trusts_times=trusts_times)


def sent(ordinal, pts, dts=None):
    return Sent(
        ordinal, pts, 4 * ordinal if dts is None else dts, None, 1, True, False, False, False
    )


def test_packets_that_should_have_come_before_are_lost():
    order = made()
    for ordinal, pts in enumerate([0, 12, 4, 8, 16]):
        order.send(sent(ordinal, pts))
    assert order.take(0) == (0, [])
    assert order.take(3) == (8, [(4, 2)])
    assert order.take(4) == (16, [(12, 1)])
    assert order.rest() == []


def test_second_fields_have_no_time_and_are_not_lost():
    """As of interlaced H.264 in transport streams: two packets make a frame."""
    order = made()
    for ordinal in range(0, 12, 2):
        order.send(sent(ordinal, 4 * ordinal))
        order.send(sent(ordinal + 1, None))
    assert [order.take(ordinal) for ordinal in range(0, 12, 2)] == [
        (4 * ordinal, []) for ordinal in range(0, 12, 2)
    ]


def test_times_that_do_not_rise_with_the_frames_are_not_trusted():
    order = made()
    for ordinal in range(6):
        order.send(sent(ordinal, 4 * ordinal))
    assert order.take(0) == (0, [])
    # The second packet is shown later; no packet said that it would.
    with pytest.raises(WrongTimesError):
        order.take(2)
    order = made(trusts_times=False)
    for ordinal in range(6):
        order.send(sent(ordinal, 4 * ordinal))
    assert [order.take(ordinal)[0] for ordinal in (0, 2, 3, 1, 5, 4)] == [0, 4, 8, 12, 16, 20]


def test_avi_tells_when_packets_are_decoded():
    order = made("avi")
    for ordinal in range(4):
        order.send(sent(ordinal, pts=99 - ordinal))
    order.failed.add(1)
    assert [order.take(ordinal) for ordinal in (0, 2, 3)] == [(0, []), (8, [(4, 1)]), (12, [])]


def test_times_that_jump_go_on():
    order = made(reorders=False)
    times = [0, 4, 8, 1_000_000, 1_000_004, 0, 4]
    for ordinal, time in enumerate(times):
        order.send(sent(ordinal, time, time))
    assert [order.take(ordinal)[0] for ordinal in range(7)] == [0, 4, 8, 12, 16, 20, 24]


@pytest.mark.parametrize(
    ("slots", "suspects", "missing"),
    [
        ([0, 4, 8, 20], {3}, 2),
        ([0, 4, 8, 20], set(), 0),
        ([0, 4, 8, 20], {60}, 0),
        ([0, 4, 20], {2}, 0),
        ([0, 4, 10, 13, 20, 40], {5}, 0),
        ([0, 33, 67, 100, 200], {4}, 2),
    ],
)
def test_a_gap_counts_where_the_rate_is_even_and_the_file_damaged(slots, suspects, missing):
    gaps = Gaps("h264", Fraction(1, 100))
    gaps.suspects |= suspects
    found = [gaps.before(Fraction(slot), ordinal) for ordinal, slot in enumerate(slots)]
    assert sum(found[:-1]) == 0
    assert found[-1] == missing


def test_mpeg_2_has_no_other_rate():
    gaps = Gaps("mpeg2video", Fraction(1, 100))
    assert [gaps.before(Fraction(slot), 0) for slot in (0, 4, 8, 20)] == [0, 0, 0, 2]
    # A menu that stands still for a minute.
    assert gaps.before(Fraction(6020), 0) == 0
