import threading

import pytest

from sr_train.utils.threads import for_each


@pytest.mark.parametrize("threads", [1, 3])
def test_each_once(threads):
    seen = []
    for_each(iter(range(50)), lambda item: seen.append(item) is None, threads)
    assert sorted(seen) == list(range(50))


def test_threads_work_side_by_side():
    barrier = threading.Barrier(3, timeout=10)
    for_each(range(3), lambda item: barrier.wait() >= 0, threads=3)


def test_ends_when_a_call_says_so():
    seen = []

    def call(item):
        seen.append(item)
        return item < 4

    for_each(range(50), call, threads=1)
    assert seen == [0, 1, 2, 3, 4]


def test_stop():
    stop, seen = threading.Event(), []

    def call(item):
        seen.append(item)
        if item == 4:
            stop.set()
        return True

    for_each(range(50), call, 1, stop)
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_ends_all_threads():
    seen = []

    def call(item):
        seen.append(item)
        if item == 5:
            raise KeyError("bad")
        return True

    with pytest.raises(KeyError, match="bad"):
        for_each(range(10**6), call, threads=3)
    assert len(seen) < 10**5
    assert not [t for t in threading.enumerate() if t.name.startswith("sr_train-each")]
