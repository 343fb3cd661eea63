import logging
import threading

import pytest

from data.cache import filling
from data.cache.filling import CacheFiller
from data.images import ImageDataset
from data.loading.stream import TrainLoader
from sr_train.api.errors import DataError
from tests.data.conftest import fill


class Toy:
    """Something to fill, of three records."""

    def __init__(self, error=None):
        self.error = error

    def fill(self, progress=None, stop=None):
        for done in range(1, 4):
            progress(done, 3)
        if self.error:
            raise self.error

    def cached(self):
        return "3 of 3 toys"


def told(caplog, dataset):
    caplog.set_level(logging.INFO)
    work = CacheFiller(dataset)
    work.start()
    work.join()
    return [record.getMessage() for record in caplog.records]


def test_tells_start_and_end(caplog):
    first, last = told(caplog, Toy())
    assert first == "cache: loading 3 in the background while training runs"
    assert last == "cache: 3 of 3 toys after 0.0 s"


def test_tells_in_between_when_it_takes_long(caplog, monkeypatch):
    monkeypatch.setattr(filling, "_TELL_SEC", 0.0)
    assert told(caplog, Toy())[1:3] == ["cache: 3 of 3 toys"] * 2


def test_tells_of_damage_and_leaves_it_to_training(caplog):
    assert told(caplog, Toy(DataError("x.png: damaged")))[-1] == (
        "cache: filling ended early: x.png: damaged"
    )


@pytest.fixture
def images(tmp_path):
    return ImageDataset(str(fill(tmp_path, [f"n{n}" for n in range(30)])), 2, lq_size=8)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_fills_the_cache(images, num_workers, caplog):
    caplog.set_level(logging.INFO)
    stream = TrainLoader(images, 1, num_workers=num_workers, prefetch=1)
    next(stream)
    for thread in threading.enumerate():
        if thread.name == "sr_train-filling":
            thread.join()
    assert images.cached() == "30 of 30 images in memory, 0.00 GiB"
    assert caplog.messages[-1].startswith("cache: 30 of 30 images in memory, 0.00 GiB after ")
    stream.close()


def test_one_rank_of_a_machine_fills(images, monkeypatch):
    ready = []
    for rank, local, fill_cache in ((1, "1", True), (0, "0", False)):
        monkeypatch.setenv("LOCAL_RANK", local)
        stream = TrainLoader(
            images, 1, num_workers=0, prefetch=0, rank=rank, world_size=2, fill_cache=fill_cache
        )
        next(stream)
        assert not any(thread.name == "sr_train-filling" for thread in threading.enumerate())
        stream.close()
        ready.append(images.cached().split()[0])
    assert ready[0] == "1"


def test_closing_a_stream_stops_the_filling(images, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    store = images._frames.store
    load = store._load

    def slow(index):
        if threading.current_thread().name.startswith("sr_train-each"):
            begun.set()
            go_on.wait(10)
        return load(index)

    monkeypatch.setattr(store, "_load", slow)
    stream = TrainLoader(images, 1, num_workers=0, prefetch=0)
    next(stream)
    begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    stream.close()
    assert not any(
        thread.name.startswith(("sr_train-filling", "sr_train-each"))
        for thread in threading.enumerate()
    )
    assert int(images.cached().split()[0]) < 30
