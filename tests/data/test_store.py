import gc
import multiprocessing
import os
import pickle

import numpy as np
import pytest

from data.store import FrameStore, available_bytes, budget
from sr_train.ops.errors import DataError

SHAPES = [((4, 5, 3), (8, 10, 3)), ((2, 2, 3), (4, 4, 3)), ((6, 5, 3), (12, 10, 3))]


class Loader:
    """Counts in a folder, so that loads of other processes count too."""

    def __init__(self, folder, dtype=np.uint8):
        self.folder = folder
        self.dtype = dtype

    def __call__(self, number):
        (self.folder / f"{number}-{os.getpid()}-{len(os.listdir(self.folder))}").touch()
        return tuple(
            (np.arange(np.prod(shape)) + number).astype(self.dtype).reshape(shape)
            for shape in SHAPES[number]
        )

    def count(self):
        return len(os.listdir(self.folder))


def assert_record(record, loader, number):
    folder_loader = Loader(loader.folder, loader.dtype)
    for frame, expected in zip(record, folder_loader(number), strict=True):
        assert frame.dtype == loader.dtype
        np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [0, 600, 10**6])
def test_same_records_with_any_budget(tmp_path, dtype, size):
    loader = Loader(tmp_path, dtype)
    store = FrameStore(SHAPES, dtype, size, loader)
    for _ in range(2):
        for number in range(3):
            assert_record(store.get(number), loader, number)
    assert store.num_bytes <= size
    assert store.num_held == {0: 0, 600: 2 if dtype is np.uint8 else 1, 10**6: 3}[size]


def test_loaded_once_and_frozen(tmp_path):
    loader = Loader(tmp_path)
    store = FrameStore(SHAPES, np.uint8, 10**6, loader)
    assert not store.is_ready(1)
    store.get(1)
    frame = store.get(1)[0]
    assert loader.count() == 1
    assert store.is_ready(1)
    with pytest.raises(ValueError, match="read-only"):
        frame[0] = 1


def test_what_does_not_fit_is_loaded_each_time(tmp_path):
    loader = Loader(tmp_path)
    store = FrameStore(SHAPES, np.uint8, 200, loader)
    assert [store.holds(number) for number in range(3)] == [False, True, False]
    for _ in range(3):
        store.get(2)
        store.get(1)
    assert loader.count() == 4
    assert not store.is_ready(2)


def _get_all(store):
    for number in range(3):
        store.get(number)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_fill_the_same_memory(tmp_path, method):
    loader = Loader(tmp_path)
    store = FrameStore(SHAPES, np.uint8, 10**6, loader)
    child = multiprocessing.get_context(method).Process(target=_get_all, args=(store,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert loader.count() == 3
    for number in range(3):
        assert store.is_ready(number)
        store.get(number)
    assert loader.count() == 3
    assert_record(store.get(2), loader, 2)


def test_nothing_is_left_behind(tmp_path):
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    store = FrameStore(SHAPES, np.uint8, 10**6, Loader(tmp_path))
    store.get(0)
    with open("/proc/self/maps") as maps:
        assert not any("/dev/shm/" in line and "sr_train" in line for line in maps)
    del store
    assert open_files() == before


def test_memory_is_taken_when_used():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    store = FrameStore([((1 << 28,),)], np.uint8, 1 << 29, lambda number: ())
    assert store.num_held == 1
    assert resident() - before < 1 << 24


def test_wrong_shape_is_a_defect(tmp_path):
    store = FrameStore([((4, 4, 3),)], np.uint8, 10**6, lambda number: (np.zeros((4, 4, 1)),))
    with pytest.raises(ValueError, match="record 0"):
        store.get(0)
    assert not store.is_ready(0)


def test_empty_store_pickles(tmp_path):
    store = pickle.loads(pickle.dumps(FrameStore(SHAPES, np.uint8, 0, Loader(tmp_path))))
    assert store.get(1)[0].shape == (2, 2, 3)


def test_budget(monkeypatch):
    gc.collect()
    available = 10 << 30
    monkeypatch.setattr("data.store.available_bytes", lambda: available)
    assert budget(0) == 0
    assert budget(0.001) == 1073741
    assert budget("auto") == available // 2
    assert budget(1e6) == available * 9 // 10
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert budget("auto") == available // 8
    with pytest.raises(DataError, match="auto"):
        budget("all")
    with pytest.raises(DataError, match="negative"):
        budget(-1)


def test_stores_do_not_promise_the_same_memory_twice(monkeypatch):
    gc.collect()
    available = 1 << 30
    monkeypatch.setattr("data.store.available_bytes", lambda: available)
    shape = (1 << 20,)
    frame = np.zeros(shape, np.uint8)
    store = FrameStore([(shape,)] * 100, np.uint8, 1 << 29, lambda number: (frame,))
    assert budget("auto") == (available - (100 << 20)) // 2
    for number in range(50):
        store.get(number)
    assert budget("auto") == (available - (50 << 20)) // 2
    del store
    gc.collect()
    assert budget("auto") == available // 2


def test_available_memory_is_plausible():
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_bytes() <= physical
