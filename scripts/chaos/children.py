"""Whole commands in forked children: quick to start, watched, killed at need, told how they ended.

The parent imports the program once. A child sets sys.argv and calls `sr_train.cli.entry.program`,
as `python -m sr_train` does, in a session of its own.
"""

import atexit
import contextlib
import importlib
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRELOADED = [
    "av", "cv2", "hydra", "lpips", "PIL.Image", "safetensors.torch", "torchvision", "torch._dynamo",
    "torch.utils.tensorboard", "archs.compact", "archs.temporal", "archs.patchgan", "data.clips",
    "data.loading.stream", "data.images", "losses.gan", "losses.pixel",
    "sr_train.cli.entry", "sr_train.commands.check", "sr_train.commands.checks.dry_step",
    "sr_train.commands.export", "sr_train.commands.infer", "sr_train.commands.overfit",
    "sr_train.commands.train", "sr_train.commands.validate", "sr_train.factory.components",
    "sr_train.factory.models", "sr_train.factory.networks",
]  # fmt: skip
"""What commands import as they go; missing ones are passed over, children import them then."""

_PLACE = re.compile(r'\s+File "([^"]+)", line (\d+), in (\S+)')
_OURS = re.compile(r".*/(sr_train|data|archs|losses)/")
_ENDING = re.compile(
    r"[\w.]+(Error|Exception|Interrupt|Exit|Bomb\w*|NotFound\w*|Timeout|Exceeded)\b"
)


def preload() -> None:
    """Import what commands import, on one thread, so that children start at once."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@dataclass
class Ended:
    """How a child ended."""

    code: int | None
    """Exit code; None where a signal ended it."""
    signal: str | None
    seconds: float
    peak_mib: float
    hangs: bool = False
    takes_too_much: bool = False
    left_processes: int = 0
    out: str = field(default="", repr=False)
    """Stdout and stderr together."""

    @property
    def traceback(self) -> bool:
        """Whether it printed one, be it of a thread or of logging."""
        return "Traceback (most recent call last)" in self.out

    @property
    def kind(self) -> str:
        """One word or two for a table."""
        if self.hangs:
            return "hang"
        if self.takes_too_much:
            return "memory"
        return f"exit {self.code}" if self.signal is None else str(self.signal)

    def last_line(self, length: int = 200) -> str:
        """Return the last line that says something."""
        lines = [line for line in self.out.strip().splitlines() if line.strip()]
        return lines[-1][:length] if lines else ""

    def fault(self) -> str:
        """Return class and place of the last traceback, else the last line."""
        if not self.traceback:
            return self.last_line(120)
        places = [m for line in self.out.splitlines() if (m := _PLACE.match(line))]
        ours = [(_OURS.sub(r"\1/", m[1]), m[2], m[3]) for m in places if _OURS.match(m[1])]
        where = "{}:{} {}".format(*ours[-1]) if ours else ""
        words = [line for line in self.out.splitlines() if _ENDING.match(line)]
        return f"{words[-1][:160] if words else ''} @ {where}"


def session_members(leader: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if int(words[3]) == leader and words[0] != "Z":
                    found.append(int(entry))
    return found


def kill(processes: Iterable[int]) -> None:
    """Kill processes, those that are gone already passed over."""
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def resident_mib(process: int) -> float:
    """Return the memory that a process has now; 0 where it is gone."""
    with contextlib.suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def run(
    job: Sequence[str] | Callable[[], Any],
    folder: Path,
    log: Path,
    *,
    limit_s: float = 100.0,
    memory_mib: float = 4096.0,
    signals: Sequence[tuple[float, int]] = (),
    hook: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
    patience_s: float = 0.0,
) -> Ended:
    """Run one command, or a function, in a forked child.

    Args:
        job: words behind `python -m sr_train`, or what is called in the child instead.
        folder: working directory.
        log: file for what it prints.
        limit_s: it is killed after that.
        memory_mib: it is killed beyond that.
        signals: (seconds, signal) to be sent to the child, in order.
        hook: called in the child before the command; may patch things.
        environment: added to the child's.
        patience_s: how long processes of its session may outlive it before they are counted.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_child(job, folder, hook, environment or {}, log)
    sent = 0
    hangs = takes_too_much = False
    peak = 0.0
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        seconds = time.monotonic() - started
        while sent < len(signals) and seconds >= signals[sent][0]:
            os.kill(child, signals[sent][1])
            sent += 1
        peak = max(peak, resident_mib(child))
        takes_too_much |= peak > memory_mib
        hangs |= seconds > limit_s
        if hangs or takes_too_much:
            kill(session_members(child))
        time.sleep(0.004 if signals else 0.01)
    seconds = time.monotonic() - started
    signalled = os.WIFSIGNALED(status)
    return Ended(
        code=None if signalled else os.WEXITSTATUS(status),
        signal=signal.Signals(os.WTERMSIG(status)).name if signalled else None,
        seconds=seconds,
        peak_mib=peak or usage.ru_maxrss / 1024,
        hangs=hangs,
        takes_too_much=takes_too_much,
        left_processes=_survivors(child, patience_s),
        out=log.read_text(errors="replace"),
    )


def _survivors(session: int, patience_s: float) -> int:
    """Return how many processes of a session are left after a while; kill them."""
    deadline = time.monotonic() + patience_s
    left = session_members(session)
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = session_members(session)
    kill(left)
    return len(left)


def _be_child(
    job: Sequence[str] | Callable[[], Any],
    folder: Path,
    hook: Callable[[], None] | None,
    environment: Mapping[str, str],
    log: Path,
) -> None:
    code = 99
    try:
        os.setsid()
        Path("/proc/self/oom_score_adj").write_text("900")
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        for stream, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, out)):
            os.dup2(source, stream)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # pytest has others
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(environment)
        os.chdir(folder)
        if hook is not None:
            hook()
        code = _call(job)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    # What an interpreter does when it ends: threads, atexit, buffers.
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code if 0 <= code < 256 else 1)


def _call(job: Sequence[str] | Callable[[], Any]) -> int:
    if callable(job):
        return int(job() or 0)
    from sr_train.cli.entry import program

    sys.argv[:] = ["sr_train", *job]
    program()
