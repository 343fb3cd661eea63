"""Several processes in one test: a function on Gloo ranks, or the whole command by torchrun."""

import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from sr_train.engine.distributed import start_world, stop_world
from tests.toys import ROOT

LIMIT_S = 60


def on_ranks(job: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Any]:
    """Call `job(world, *arguments)` on every rank of new processes; return what each returned.

    What a job raised is returned in its place as "Name: words". A rank that hangs ends the test.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = mp.get_context("fork")
        port = free_port()
        processes = [
            context.Process(target=_one, args=(rank, size, port, folder, job, arguments))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(LIMIT_S)
        hung = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for process in processes:
            process.kill()
        assert not hung, f"ranks {hung} hang"
        return [torch.load(Path(folder) / str(rank), weights_only=False) for rank in range(size)]


def _one(
    rank: int, size: int, port: int, folder: str, job: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        world = start_world(torch.device("cpu"), timeout_sec=20.0)
        result = job(world, *arguments)
        stop_world(world)
    except Exception as err:
        traceback.print_exc()
        result = f"{type(err).__name__}: {err}"
    torch.save(result, Path(folder) / str(rank))


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun(words: Sequence[str], folder: Path, size: int = 2) -> subprocess.Popen[str]:
    """Start `torchrun -m sr_train WORDS` in a folder, as the leader of a group of processes."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", "sr_train", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
