"""Whole commands inside the test's process: a fresh one costs seconds of imports."""

import gc
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

from sr_train.cli.entry import main
from sr_train.config.loader import Repository
from sr_train.config.sources import search_path
from tests.toys import Outcome


@pytest.fixture(autouse=True, scope="session")
def rare_collection() -> Iterator[None]:
    """Spare the collector torch's own objects; composing configs makes it run all the time."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def configs_read_once() -> Iterator[None]:
    """Let all commands of the process share what is read of the shipped configs."""
    read: dict[str, ConfigResult] = {}
    merged: dict[tuple[Any, ...], DictConfig] = {}
    shipped, begin = str(search_path(None)), Repository.initialize_sources

    def initialize_sources(repository: Repository, path: ConfigSearchPath) -> None:
        begin(repository, path)
        if str(path) == shipped:
            # A stored config is that of one run's folder; a choice is gone with its package.
            if any("stored_" in name or not repository.config_exists(name) for name in read):
                read.clear()
                merged.clear()
            repository.read, repository.merged = read, merged

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repository, "initialize_sources", initialize_sources)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Run on one thread: toy tensors are too small for more to pay."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def signals_of_a_terminal() -> Iterator[None]:
    """Take the signals that a shell lets background jobs, and nohup, ignore."""
    before = {
        signal.SIGINT: signal.getsignal(signal.SIGINT),
        signal.SIGHUP: signal.getsignal(signal.SIGHUP),
    }
    if before[signal.SIGINT] is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if before[signal.SIGHUP] is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder from which Python imports, as `python -m` does."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        spec = getattr(module, "__spec__", None)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
        if any(str(place).startswith(str(tmp_path)) for place in places):
            del sys.modules[name]


@pytest.fixture
def command(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """Return a function that runs `python -m sr_train WORDS` and gives code, stdout, stderr."""
    handlers = list(logging.getLogger().handlers)
    names = ("", "hydra", "hydra_plugins")  # a sweep makes Hydra's own quieter
    levels = {name: logging.getLogger(name).level for name in names}
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")

    def run(*words: str) -> Outcome:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["sr_train", *words])
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    yield run
    root = logging.getLogger()
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
