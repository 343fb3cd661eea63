import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import cv2
import numpy as np
import pytest
import torch

from data.images import ImageDataset
from data.loading.stream import TrainLoader
from sr_train.api.dataset import TrainDataset
from sr_train.api.errors import DataError, SRTrainError
from tests.closeness import assert_identical
from tests.data.conftest import fill

WAYS = [
    {"num_workers": 0, "prefetch": 0},
    {"num_workers": 0, "prefetch": 1},
    {"num_workers": 0, "prefetch": 5},
    {"num_workers": 2},
    {"num_workers": 3, "prefetch": 0},
    {"num_workers": "auto"},
]


class Numbers(TrainDataset):
    """Samples that say where they come from; index `bad` raises."""

    def __init__(self, size=20, bad=None, error=DataError):
        self.size = size
        self.bad = bad
        self.error = error

    def __len__(self):
        return self.size

    def sample(self, epoch, index):
        if index == self.bad:
            raise self.error(f"image {index} is bad")
        at = torch.tensor([epoch, index], dtype=torch.int32)
        return {"lq": at, "gt": torch.full((3, 300, 300), index, dtype=torch.uint8)}


class Deadly(Numbers):
    def sample(self, epoch, index):
        if index == self.bad:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(epoch, index)


class Sleepy(Numbers):
    def sample(self, epoch, index):
        if index == self.bad:
            time.sleep(60)
        return super().sample(epoch, index)


def take(stream, count):
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert_identical(a, b)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("gt"), [f"n{n}" for n in range(11)])
    images = ImageDataset(str(folder), 2, lq_size=8)
    return folder, take(TrainLoader(images, 4, seed=9, num_workers=0, prefetch=0), 12)


@pytest.mark.parametrize(
    ("way", "cache_gib"),
    [
        pytest.param(way, cache, marks=[] if n % 3 == m else pytest.mark.slow, id=f"{cache}-{way}")
        for n, way in enumerate(WAYS)
        for m, cache in enumerate([0, 0.00005, "auto"])
    ],
)
def test_nothing_changes_what_comes(reference, way, cache_gib):
    folder, expected = reference
    gc.collect()  # else the sets before this one lend it their caches
    images = ImageDataset(str(folder), 2, lq_size=8, cache_gib=cache_gib)
    stream = TrainLoader(images, 4, seed=9, **way)
    assert_same(take(stream, 8), expected[:8])
    assert stream.position == 8
    # Closed, it goes on where it was.
    assert_same([next(stream)], [expected[8]])
    stream.seek(3)
    assert_same([next(stream), next(stream)], expected[3:5])
    stream.seek(10)
    assert_same(take(stream, 2), expected[10:])
    assert expected[0]["lq"].shape == (4, 3, 8, 8)
    assert expected[0]["gt"].shape == (4, 3, 16, 16)


def test_16_bit_through_workers(tmp_path):
    images = ImageDataset(str(fill(tmp_path, "abc", dtype=np.uint16)), 2, lq_size=8)
    streams = [TrainLoader(images, 4, num_workers=count) for count in (0, 2)]
    one, other = (take(stream, 3) for stream in streams)
    assert one[0]["lq"].dtype == torch.uint16
    assert_same(one, other)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_are_disjoint(num_workers):
    seen = []
    for rank in range(3):
        stream = TrainLoader(Numbers(20), 5, num_workers=num_workers, rank=rank, world_size=3)
        seen += [tuple(at.tolist()) for batch in take(stream, 8) for at in batch["lq"]]
    assert len(seen) == len(set(seen)) == 120
    assert {at for at in seen if at[0] == 4} == {(4, index) for index in range(20)}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_error_comes_at_its_place(way):
    order = [
        [int(at[1]) for at in batch["lq"]]
        for batch in take(TrainLoader(Numbers(), 2, prefetch=0, num_workers=0), 10)
    ]
    bad = order[4][1]
    stream = TrainLoader(Numbers(bad=bad), 2, **way)
    for _ in range(4):
        next(stream)
    for _ in range(2):
        with pytest.raises(DataError, match=rf"^image {bad} is bad$"):
            next(stream)
    stream.close()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_of_ones_own_that_fails_is_named_with_its_sample(num_workers):
    stream = TrainLoader(Numbers(bad=3, error=KeyError), 20, num_workers=num_workers)
    told = r"^data\.train: Numbers failed on sample\(0, 3\): KeyError: 'image 3 is bad' \("
    with pytest.raises(SRTrainError, match=told):
        next(stream)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_defect_of_a_shipped_set_keeps_its_traceback(gt_dir, monkeypatch, num_workers):
    fill(gt_dir, ["one"])
    images = ImageDataset(str(gt_dir), 2, lq_size=8)
    monkeypatch.setattr(ImageDataset, "_write", lambda *args: {}["defect"])
    stream = TrainLoader(images, 8, num_workers=num_workers)
    with pytest.raises((KeyError, RuntimeError), match="defect") as caught:
        next(stream)
    assert not isinstance(caught.value, SRTrainError)


def test_damaged_image_in_a_worker_is_named(gt_dir):
    fill(gt_dir, ["damaged"])
    path = gt_dir / "damaged.png"
    path.write_bytes(path.read_bytes()[:-600])
    images = ImageDataset(str(gt_dir), 2, lq_size=8, cache_gib=0)
    with pytest.raises(DataError, match=str(path)) as caught:
        take(TrainLoader(images, 8, num_workers=2), 1)
    assert "Traceback" not in str(caught.value)


def test_killed_worker_is_an_error_and_no_hang():
    with pytest.raises(DataError, match="exit code -9"):
        take(TrainLoader(Deadly(bad=7), 4, num_workers=2), 20)


def test_close_does_not_wait_for_a_slow_sample():
    order = [[int(at[1]) for at in b["lq"]] for b in take(TrainLoader(Numbers(), 2), 3)]
    stream = TrainLoader(Sleepy(bad=order[2][0]), 2, num_workers=2, prefetch=8)
    next(stream), next(stream)
    time.sleep(0.2)
    start = time.monotonic()
    stream.close()
    assert time.monotonic() - start < 10


@pytest.mark.timeout(30)
def test_workers_start_although_opencv_has_threads(reference):
    folder, expected = reference
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (9, 9), 2)
    images = ImageDataset(str(folder), 2, lq_size=8, cache_gib=0)
    assert_same(take(TrainLoader(images, 4, seed=9, num_workers=2), 3), expected[:3])
    assert cv2.getNumThreads() == 4
    cv2.setNumThreads(threads)


def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return file.read().split()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ending", ["close", "drop"])
def test_nothing_is_left_running(num_workers, ending):
    gc.collect()
    before = threading.active_count(), children(), len(os.listdir("/proc/self/fd"))
    stream = TrainLoader(Numbers(), 2, num_workers=num_workers)
    next(stream)
    assert threading.active_count() > before[0]
    if ending == "close":
        stream.close()
        stream.close()
    else:
        del stream
        gc.collect()
    assert (threading.active_count(), children()) == before[:2]
    assert len(os.listdir("/proc/self/fd")) == before[2]


def test_waiting_is_measured():
    class Slow(Numbers):
        def sample(self, epoch, index):
            time.sleep(0.05)
            return super().sample(epoch, index)

    stream = TrainLoader(Slow(), 2, num_workers=0, prefetch=0)
    next(stream)
    assert stream.wait_seconds >= 0.05
    stream.wait_seconds = 0.0
    stream.close()
    assert stream.wait_seconds == 0.0


def test_auto_chooses_by_where_images_are(gt_dir):
    cached = ImageDataset(str(gt_dir), 2, lq_size=8)
    decoded = ImageDataset(str(gt_dir), 2, lq_size=8, cache_gib=0)
    assert TrainLoader(cached, 4).num_workers == 0
    assert TrainLoader(decoded, 4).num_workers >= 1
    assert TrainLoader(decoded, 4, world_size=10**6).num_workers == 1


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"num_workers": -1}, {"num_workers": "many"}, {"prefetch": -1}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(DataError, match="expected batch_size"):
        TrainLoader(Numbers(), **{"batch_size": 2, **wrong})


@pytest.mark.parametrize(
    ("beyond", "words"),
    [
        ({"batch_size": 10**9}, "batch_size is 1000000000"),
        ({"batch_size": 10**15}, "do not fit into the"),
        ({"prefetch": 10**9}, "prefetch 1000000000"),
        ({"num_workers": 10**6}, "num_workers=1000000: expected at most 256"),
    ],
)
def test_what_no_machine_holds_ends_at_once(gt_dir, beyond, words):
    images = ImageDataset(str(gt_dir), 2, lq_size=8)
    assert images.sample_bytes == sum(v.nbytes for v in images.sample(0, 0).values())
    for dataset in (Numbers(), images):
        with pytest.raises(DataError, match=words):
            TrainLoader(dataset, **{"batch_size": 2, **beyond})


def test_workers_that_cannot_be_started(monkeypatch):
    def fails(process):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("data.loading.workers.Process.start", fails)
    with pytest.raises(DataError, match=r"data worker 1 of 2 cannot be started: .*fewer workers"):
        next(TrainLoader(Numbers(), 2, num_workers=2))


def test_empty_set_and_negative_seek():
    with pytest.raises(DataError, match="empty"):
        TrainLoader(Numbers(0), 2)
    with pytest.raises(DataError, match="seek"):
        TrainLoader(Numbers(), 2).seek(-1)


SCRIPT = """
    import os, signal, sys, time
    import multiprocessing
    from data.loading.stream import TrainLoader
    from data.images import ImageDataset

    if __name__ == "__main__":
        multiprocessing.set_start_method(sys.argv[2])
        images = ImageDataset(sys.argv[1], 2, lq_size=8, cache_gib=0)
        stream = TrainLoader(images, 4, num_workers=2)
        print(int(next(stream)["gt"].sum()), flush=True)
        print(*(p.pid for p in multiprocessing.active_children()), flush=True)
        {ending}
"""


def run(tmp_path, folder, ending, method="fork"):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("{ending}", ending))
    command = [sys.executable, str(script), str(folder), method]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()}, check=False,
    )  # fmt: skip
    total, pids = done.stdout.splitlines()[:2]
    return done, int(total), [int(pid) for pid in pids.split()]


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        pytest.param("pass", 0, marks=pytest.mark.slow),
        pytest.param("raise SystemExit(3)", 3, marks=pytest.mark.slow),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
        (
            "signal.signal(signal.SIGTERM, lambda *_: None); "
            "signal.signal(signal.SIGINT, lambda *_: None); "
            "os.killpg(0, signal.SIGTERM); os.killpg(0, signal.SIGINT); "
            "[next(stream) for _ in range(9)]",
            0,
        ),
    ],
    ids=["end", "exit", "kill", "group-signals"],
)
def test_workers_end_with_the_main_process(tmp_path, gt_dir, ending, code):
    done, _, pids = run(tmp_path, gt_dir, ending)
    assert done.returncode == code
    assert done.stderr == ""
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods_give_the_same(tmp_path, gt_dir, method):
    forked = run(tmp_path, gt_dir, "stream.close()")
    other = run(tmp_path, gt_dir, "stream.close()", method)
    assert other[0].returncode == 0
    assert other[0].stderr == ""
    assert other[1] == forked[1]
