import contextlib
import gc
import hashlib
import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from data.cache import sharing
from data.cache.frame_cache import FrameCache, budget
from data.cache.sharing import SharedBytes
from tests.toys import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names are for Linux")

PART = ((1 << 20,), np.dtype(np.uint8))
COUNT = 8

# Makes a store under a key, fills it, says so, and keeps it until its input ends.
PROGRAM = """
    import os, sys
    import numpy as np
    from data.cache.frame_cache import FrameCache
    part = ((1 << 20,), np.dtype(np.uint8))
    load = lambda number: (np.full(1 << 20, number, np.uint8),)
    store = FrameCache([(part,)] * 8, 1 << 30, load, key=sys.argv[1])
    store.fill()
    {more}
    print(int(store.shared), flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def program(key, more=""):
    """Start an unrelated process that keeps a store; yields it once the store is full."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM).format(more=more), key],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "0\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def never(number):
    raise AssertionError(f"{number} was loaded again")


def make(key, load=never):
    return FrameCache([(PART,)] * COUNT, 1 << 30, load, key=key)


def proportional_bytes(process, store):
    """Return the proportional set size of a store's memory in a process."""
    text = Path(f"/proc/{process}/smaps").read_text()
    pattern = rf" {store._memory.identity} +/memfd:sr_train[^%]*?Pss: *(\d+)"
    return 1024 * sum(int(kb) for kb in re.findall(pattern, text))


def address_of(store, key):
    return f"{sharing._prefix()}{store._name(key)}"


def test_unrelated_processes_share_one_copy(tmp_path):
    with program(str(tmp_path)) as other:
        store = make(str(tmp_path))
        assert store.shared
        assert store.num_ready() == COUNT
        for number in range(COUNT):
            assert (store.get(number)[0] == number).all()
        taken = [proportional_bytes(process, store) for process in (os.getpid(), other.pid)]
        assert sum(taken) <= 1.01 * store.num_bytes + 4096
        assert min(taken) >= 0.4 * store.num_bytes


def test_other_records_or_key_are_another_memory(tmp_path):
    key = str(tmp_path)
    store = make(key)
    assert make(key).shared
    assert not make(key + "x").shared
    assert not FrameCache([(PART,)] * (COUNT + 1), 1 << 30, never, key=key).shared
    other = (((1 << 20,), np.dtype(np.int8)),)
    assert not FrameCache([other] * COUNT, 1 << 30, never, key=key).shared
    del store


def test_the_makers_budget_counts(tmp_path):
    small = FrameCache([(PART,)] * COUNT, 3 << 20, never, key=str(tmp_path))
    attached = make(str(tmp_path))
    assert (attached.num_held, attached.num_bytes) == (3, small.num_bytes)
    small.put(2, (np.full(1 << 20, 7, np.uint8),))
    assert attached.get(2)[0][5] == 7
    assert not FrameCache([(PART,)] * COUNT, 0, never, key=str(tmp_path)).shared


def test_a_killed_maker_leaves_nothing_and_takes_nothing(tmp_path):
    key, files = str(tmp_path), set(os.listdir("/dev/shm"))
    with program(key) as maker:
        store = make(key)
        maker.send_signal(signal.SIGKILL)
        maker.wait()
        assert set(os.listdir("/dev/shm")) == files
        assert address_of(store, key) not in sharing._addresses()
        assert (store.get(3)[0] == 3).all()
        again = make(key)
        assert not again.shared
        assert again.num_ready() == 0
        assert make(key).shared
    assert again._memory.identity != store._memory.identity


def test_a_forked_child_does_not_keep_the_name(tmp_path):
    more = "os.fork() or (os.close(0), os.close(1), os.close(2), __import__('time').sleep(60))"
    with program(str(tmp_path), more) as maker:
        pass
    children = [
        int(pid) for pid in os.listdir("/proc")
        if pid.isdigit() and str(tmp_path) in _command(pid) and int(pid) != maker.pid
    ]  # fmt: skip
    assert len(children) == 1
    try:
        stores = make(str(tmp_path)), make(str(tmp_path))
        assert [store.shared for store in stores] == [False, True]
    finally:
        os.kill(children[0], signal.SIGKILL)


def _command(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""


def _make_at_once(key, barrier, results):
    barrier.wait()
    store = make(key)
    results.put((store.shared, store._memory.identity))
    barrier.wait()


def test_of_many_at_once_one_makes_it(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(6), context.SimpleQueue()
    processes = [
        context.Process(target=_make_at_once, args=(str(tmp_path), barrier, results))
        for _ in range(6)
    ]
    for process in processes:
        process.start()
    got = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert sorted(shared for shared, _ in got) == [False] + [True] * 5
    assert len({identity for _, identity in got}) == 1


def test_the_name_goes_with_the_store(tmp_path):
    key, threads = str(tmp_path), threading.active_count()
    store = make(key)
    address = address_of(store, key)
    assert address in sharing._addresses()
    assert threading.active_count() == threads + 1
    del store
    assert address not in sharing._addresses()
    assert threading.active_count() == threads


@pytest.fixture
def name(tmp_path):
    return hashlib.sha256(str(tmp_path).encode()).hexdigest()[:32]


@pytest.fixture
def listener(name):
    """A socket that has the name of a memory and does not answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{sharing._prefix()}{name}")
        listener.listen()
        yield listener


def test_a_silent_maker_is_left_alone(listener, name, monkeypatch):
    monkeypatch.setattr(sharing, "_PATIENCE_SEC", 0.1)
    memory, is_others = SharedBytes.by_name(name, 100, b"head")
    assert not is_others
    assert memory.map[:5] == b"head\0"


def test_a_maker_that_dies_before_it_answers(listener, name):
    def die():
        peer = listener.accept()[0]
        time.sleep(0.05)
        listener.close()
        peer.close()

    thread = threading.Thread(target=die)
    thread.start()
    memory, is_others = SharedBytes.by_name(name, 100, b"")
    thread.join()
    assert not is_others
    assert SharedBytes.by_name(name, 100, b"")[1]
    del memory


def _as_nobody(job, results, *arguments):
    os.setuid(65534)
    results.put(job(*arguments))


def _request(address):
    """Ask as one who does not look whom."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(address)
        return len(socket.recv_fds(peer, 1, 1)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_other_users_get_nothing(name):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    address = f"{sharing._prefix()}{name}"
    memory = SharedBytes.by_name(name, 100, b"")[0]
    assert _request(address) == 1
    child = context.Process(target=_as_nobody, args=(_request, results, address))
    child.start()
    child.join()
    assert results.get() == 0
    del memory


def test_a_name_of_another_user_is_left_alone(listener, name, monkeypatch):
    monkeypatch.setattr(sharing, "_user", lambda peer: os.geteuid() + 1)
    start = time.monotonic()
    assert not SharedBytes.by_name(name, 100, b"")[1]
    assert time.monotonic() - start < 1


def test_promises_count_until_they_are_taken(name, monkeypatch):
    size = 64 << 20
    memory, _ = SharedBytes.by_name(name, size, b"")
    memory.map[: 1 << 20] = bytes(1 << 20)
    promised = SharedBytes.promised_bytes()
    assert promised[memory.identity] == size - (1 << 20)
    monkeypatch.setattr("data.cache.frame_cache.available_bytes", lambda: 1 << 30)
    monkeypatch.setattr(SharedBytes, "promised_bytes", lambda: {0: 300 << 20})
    gc.collect()
    assert budget("auto") == ((1 << 30) - (300 << 20)) // 2


@pytest.mark.skipif(sys.platform != "linux", reason="memory has no file elsewhere")
def test_memory_that_the_system_refuses_is_named():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError, match="the cache in shared memory"):
            SharedBytes(10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
