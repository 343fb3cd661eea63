"""Several processes in one test: a function on Gloo ranks, or the whole command by torchrun."""

import functools
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

from sr_train.engine.distributed import start_world, stop_world
from tests.toys import ROOT

LIMIT_S = 60

PRELOADED = [
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
    "archs.compact",
    "archs.swinir",
    "archs.unet_discriminator",
    "losses.gan",
    "losses.ldl",
    "losses.pixel",
    "sr_train.engine.joining",
    "sr_train.factory.models",
    "tests.ranks",
    "tests.sr_train.config.test_shipped",
]
"""What most jobs import, so that a rank is there after a fork."""


def on_ranks(job: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Any]:
    """Call `job(world, *arguments)` on every rank of new processes; return what each returned.

    What a job raised is returned in its place as "Name: words". A rank that hangs ends the test.

    Args:
        job: a function of a module that can be imported; it sees nothing that a test has patched.
        arguments: whatever can be pickled.
        size: how many ranks.
    """
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        torch.save((job, arguments), Path(folder) / "job")
        processes = [
            _servant().Process(target=_one, args=(rank, size, port, folder)) for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(LIMIT_S)
        hung = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for process in processes:
            process.kill()
        assert not hung, f"ranks {hung} hang"
        return [_answer(Path(folder) / str(rank)) for rank in range(size)]


@functools.cache
def _servant() -> ForkServerContext:
    """Return what forks ranks from a process that has imported much and computed nothing.

    The test's own process cannot be forked: where there is a GPU, autograd and CUDA refuse to work
    in a child of a process that has used them. A new interpreter for each rank takes seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _one(rank: int, size: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    told = ""
    try:
        job, arguments = torch.load(Path(folder) / "job", weights_only=False)
        world = start_world(torch.device("cpu"), timeout_sec=20.0)
        result = job(world, *arguments)
        stop_world(world)
    except Exception as err:
        told = traceback.format_exc()
        result = f"{type(err).__name__}: {err}"
    torch.save((result, told), Path(folder) / str(rank))


def _answer(path: Path) -> Any:
    """Return what a rank returned, after printing what it raised: pytest shows it on failure."""
    result, told = torch.load(path, weights_only=False)
    if told:
        sys.stderr.write(f"rank {path.name}: {told}")
    return result


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
