import gc
import inspect
import multiprocessing
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from data.cache import frame_cache
from data.cache.frame_cache import FrameCache, available_bytes, budget
from data.index.frame_files import decode_frame
from sr_train.api.errors import DataError
from sr_train.io.video.frames import read_frames as read_video_frames
from sr_train.ops.resize import imresize

U8 = np.dtype(np.uint8)
SHAPES = [((4, 5, 3), (8, 10, 3)), ((2, 2, 3), (4, 4, 3)), ((6, 5, 3), (12, 10, 3))]


def records(dtype=np.uint8):
    return [tuple((shape, np.dtype(dtype)) for shape in pair) for pair in SHAPES]


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
    store = FrameCache(records(dtype), size, loader)
    for _ in range(2):
        for number in range(3):
            assert_record(store.get(number), loader, number)
    assert store.num_bytes <= size
    assert store.num_held == {0: 0, 600: 2 if dtype is np.uint8 else 1, 10**6: 3}[size]


def test_loaded_once_and_frozen(tmp_path):
    loader = Loader(tmp_path)
    store = FrameCache(records(), 10**6, loader)
    assert not store.is_ready(1)
    store.get(1)
    frame = store.get(1)[0]
    assert loader.count() == 1
    assert store.is_ready(1)
    with pytest.raises(ValueError, match="read-only"):
        frame[0] = 1


def test_what_does_not_fit_is_loaded_each_time(tmp_path):
    loader = Loader(tmp_path)
    store = FrameCache(records(), 200, loader)
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
    store = FrameCache(records(), 10**6, loader)
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
    store = FrameCache(records(), 10**6, Loader(tmp_path))
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
    store = FrameCache([(((1 << 28,), U8),)], 1 << 29, lambda number: ())
    assert store.num_held == 1
    assert resident() - before < 1 << 24


def test_wrong_shape_is_a_defect(tmp_path):
    store = FrameCache([(((4, 4, 3), U8),)], 10**6, lambda number: (np.zeros((4, 4, 1)),))
    with pytest.raises(ValueError, match="record 0"):
        store.get(0)
    assert not store.is_ready(0)


def test_empty_store_pickles(tmp_path):
    store = pickle.loads(pickle.dumps(FrameCache(records(), 0, Loader(tmp_path))))
    assert store.get(1)[0].shape == (2, 2, 3)


@pytest.fixture
def alone(monkeypatch):
    """Without the stores of other processes of this machine."""
    gc.collect()
    monkeypatch.setattr("data.cache.frame_cache.SharedBytes.promised_bytes", dict)


def test_budget(monkeypatch, alone):
    available = 10 << 30
    monkeypatch.setattr("data.cache.frame_cache.available_bytes", lambda: available)
    assert budget(0) == 0
    assert budget(0.001) == 1073741
    assert budget("auto") == available // 2
    assert budget(1e6) == budget(float("inf")) == available * 9 // 10
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert budget("auto") == available // 2
    monkeypatch.setattr("data.cache.frame_cache.sys.platform", "darwin")
    assert budget("auto") == available // 8
    with pytest.raises(DataError, match="auto"):
        budget("all")
    for wrong in (-1, float("nan"), True):
        with pytest.raises(DataError, match="number of GiB from 0 up, or 'auto', got"):
            budget(wrong)


def test_stores_do_not_promise_the_same_memory_twice(monkeypatch, alone):
    available = 1 << 30
    monkeypatch.setattr("data.cache.frame_cache.available_bytes", lambda: available)
    shape = (1 << 20,)
    frame = np.zeros(shape, np.uint8)
    store = FrameCache([((shape, U8),)] * 100, 1 << 29, lambda number: (frame,))
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


MIXED = (
    ((5, 7, 3), U8),
    ((3,), np.dtype(np.uint16)),
    ((2, 4, 4), np.dtype(np.float16)),
    ((9,), np.dtype(np.int8)),
    ((2, 2), np.dtype(np.float32)),
)


def mixed(number):
    return tuple(
        (np.arange(np.prod(shape)) + 7 * number).astype(dtype).reshape(shape)
        for shape, dtype in MIXED
    )


@pytest.mark.parametrize("step", [1, 2, 3, -1, -2, -3])
def test_run_is_the_stacked_records(step):
    store = FrameCache([MIXED] * 12, 10**6, mixed)
    store.fill()
    for count in range(1, 5):
        for first in range(12):
            if 0 <= first + (count - 1) * step < 12:
                views = store.run(first, count, step)
                frames = zip(*(store.get(first + k * step) for k in range(count)), strict=True)
                for view, frame in zip(views, frames, strict=True):
                    assert view.dtype == frame[0].dtype
                    assert not view.flags.writeable
                    np.testing.assert_array_equal(view, np.stack(frame))


def test_run_only_of_what_is_there_and_alike():
    other = (((4, 4, 3), U8),)
    kinds = [MIXED] * 4 + [other] * 2 + [MIXED] * 4
    store = FrameCache(
        kinds, 10**6, lambda n: mixed(n) if len(kinds[n]) > 1 else (np.zeros((4, 4, 3), np.uint8),)
    )
    for number in (0, 1, 3, 4, 5, 6, 7):
        store.get(number)
    assert store.run(0, 2, 1) is not None
    assert store.run(3, 2, -3) is not None
    assert store.run(0, 3, 1) is None  # 2 is not there
    assert store.run(3, 2, 1) is None  # not alike
    assert store.run(3, 2, 3) is None  # alike, but others lie between
    assert store.run(5, 2, -1) is not None
    for first, step in ((0, -1), (9, 1)):
        with pytest.raises(IndexError):
            store.run(first, 2, step)


def test_run_without_memory():
    assert FrameCache([MIXED] * 3, 0, mixed).run(0, 2, 1) is None


def test_put_keeps_what_was_loaded_anyway():
    store = FrameCache([MIXED] * 3, 10**6, lambda number: pytest.fail("loaded"))
    assert store.put(1, mixed(1))
    for part, expected in zip(store.get(1), mixed(1), strict=True):
        np.testing.assert_array_equal(part, expected)
    assert not FrameCache([MIXED] * 3, 0, mixed).put(1, mixed(1))


def test_fill(tmp_path):
    loader, steps = Loader(tmp_path), []
    store = FrameCache(records(), 10**6, loader)
    store.get(1)
    store.fill(threads=2, progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    assert loader.count() == store.num_ready() == 3
    assert store.num_empty_bytes() == 0


def test_fill_raises_what_load_raised():
    def load(number):
        if number == 2:
            raise DataError("damaged")
        return mixed(number)

    store = FrameCache([MIXED] * 50, 10**6, load)
    with pytest.raises(DataError, match="damaged"):
        store.fill(threads=2)
    assert store.num_ready() < 50


def test_fill_stops():
    stop = threading.Event()

    def progress(done, total):
        if done == 3:
            stop.set()

    store = FrameCache([MIXED] * 50, 10**6, mixed)
    store.fill(threads=2, progress=progress, stop=stop)
    assert 3 <= store.num_ready() <= 5


def test_nothing_is_kept_when_memory_gets_short(monkeypatch):
    free = 10 << 30
    monkeypatch.setattr("data.cache.frame_cache.available_bytes", lambda: free)
    frame = np.ones(1 << 20, np.uint8)
    store = FrameCache([((frame.shape, U8),)] * 100, 1 << 30, lambda number: (frame,))
    store.get(0)
    assert store.is_ready(0)
    assert not store.ran_short
    free = 100 << 20
    store.fill(threads=1)
    assert store.num_ready() <= 16
    assert store.ran_short
    np.testing.assert_array_equal(store.get(99)[0], frame)
    assert not store.is_ready(99)
    free = 10 << 30
    store.fill()
    assert store.num_ready() == 100


def test_the_code_that_makes_records_decides_who_shares_them():
    loaded = [inspect.getfile(each) for each in (decode_frame, read_video_frames, imresize)]
    loaded.append(frame_cache.__file__)
    for file in loaded:
        assert any(folder in Path(file).parents for folder in frame_cache._PROGRAM), file
