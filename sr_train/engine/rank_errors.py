"""What rank 0 tells the other ranks of its errors, so that a fault of all is reported once.

It works before the ranks have joined, through the key-value store that torchrun keeps for them:
most errors of a config are found long before. Without torchrun's store nothing is exchanged and
each rank reports its own errors.
"""

import os
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

BEFORE = "before"
"""Rank 0's error before the ranks joined; empty once it has joined them."""

AFTER = "after"
"""Rank 0's error after that."""


def post(key: str, text: str) -> None:
    """Leave a notice for the other ranks, where there is a store."""
    store = _store(timedelta(seconds=5))
    if store is not None:
        store.set(key, text)


def read(key: str, patience_sec: float) -> str | None:
    """Return a notice of rank 0, waiting for it; None where none came."""
    store = _store(timedelta(seconds=patience_sec))
    if store is None:
        return None
    try:
        return store.get(key).decode()
    except RuntimeError:
        return None


def _store(patience: timedelta) -> PrefixStore | None:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(address, port, is_master=False, timeout=patience)
    except RuntimeError:
        return None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"sr_train/{attempt}", store)
