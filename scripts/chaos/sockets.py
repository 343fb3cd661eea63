"""Can another user read, take or hold up the shared RAM cache? Needs root, to become another user.

Example (as root): python -m scripts.chaos.sockets --out chaos

The names of the cache are sockets without files. Another user must get no descriptor and no bytes;
one who takes a name, or fills its queue, may cost a start some seconds, and no more. What a process
of the same user can do is told as a figure. Without root it says so, and does nothing.
"""

import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.chaos import children
from scripts.chaos.report import Report, arguments

NEVER = ("descriptor_got", "bytes_read", "waits", "not_own_memory")
NOBODY = 65534
MOST_SEC = 12.0
"""What somebody else's names may cost a start at most."""
GET_SEALS = 1034


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def as_nobody(job: Callable[[], Any]) -> Any:
    """Call a function as another user in a child; return its answer, or what it raised."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become_nobody()
            answer = job()
        except BaseException as err:
            answer = f"{type(err).__name__}: {err}"
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


@contextmanager
def squatter(names: Sequence[str], *, backlog: int, clients: int) -> Iterator[None]:
    """Let another user have names and never answer, their queues filled with so many clients."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _become_nobody()
        kept = []
        for name in names:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(name)
            listener.listen(backlog)
            kept.append(listener)
            for _ in range(clients):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                client.connect_ex(name)
                kept.append(client)
        os.write(write, b"x")
        time.sleep(300)
        os._exit(0)
    os.read(read, 1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def read_as_foreigner(name: str) -> dict[str, int]:
    """Ask for a memory; return how many bytes and descriptors came."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(3)
        peer.connect(name)
        data, descriptors, *_ = socket.recv_fds(peer, 16, 1)
    return {"bytes": len(data), "descriptors": len(descriptors)}


def read_by_proc() -> int:
    """Return how many bytes of the cache can be read through /proc."""
    count, mine = 0, f"/proc/{os.getpid()}/"  # which the fork left open here
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if not str(link).startswith(mine) and "sr_train-frames" in os.readlink(link):
                count += len(link.read_bytes()[:16])
        except OSError:
            continue
    return count


def taken(report: Report, label: str, prefix: str, *, backlog: int, clients: int) -> None:
    """Start over a name that another user has taken."""
    from data.cache.sharing import SharedBytes

    name = f"chaos_{label.replace(' ', '_')}"
    with squatter([f"{prefix}{name}"], backlog=backlog, clients=clients):
        started = time.perf_counter()
        _, shared = SharedBytes.by_name(name, 1 << 12, b"h")
        seconds = round(time.perf_counter() - started, 2)
    report.figures[f"{label}, seconds"] = seconds
    if shared:
        report.add("not_own_memory", label=label)
    if seconds > MOST_SEC:
        report.add("waits", label=label, seconds=seconds)


def many_names(report: Report, prefix: str, count: int) -> None:
    """Measure what names with full queues cost the start of any run."""
    from data.cache.sharing import SharedBytes

    names = [f"{prefix}stall{number}" for number in range(count)]
    with squatter(names, backlog=0, clients=4):
        started = time.perf_counter()
        SharedBytes.promised_bytes()
        seconds = round(time.perf_counter() - started, 2)
    report.figures[f"{count} names with full queues, seconds"] = seconds
    if seconds > MOST_SEC:
        report.add("waits", label=f"{count} names", seconds=seconds)


def main() -> int:
    """Try as another user; return 1 where that could do more than it should."""
    report = Report("sockets", arguments(__doc__), NEVER)
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        report.figures["skipped"] = "root alone may become another user"
        return report.finish()
    children.preload()
    from data.cache import sharing

    memory, _ = sharing.SharedBytes.by_name("chaos", 1 << 16, b"secret-frames")
    prefix = sharing._prefix()
    name = f"{prefix}chaos"
    got = as_nobody(lambda: read_as_foreigner(name))
    report.figures["another user asks"] = got
    if isinstance(got, dict) and any(got.values()):
        report.add("descriptor_got", answer=got)
    seen = as_nobody(read_by_proc)
    if seen != 0:
        report.add("bytes_read", answer=seen)
    taken(report, "a name taken", prefix, backlog=16, clients=0)
    taken(report, "a name with a full queue", prefix, backlog=0, clients=4)
    for count in (10, 40):
        many_names(report, prefix, count)
    descriptor = sharing._ask(name, 5.0)
    if descriptor is not None:
        report.figures["seals against the same user"] = fcntl.fcntl(descriptor, GET_SEALS)
        os.close(descriptor)
    del memory
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
