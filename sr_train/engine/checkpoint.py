"""Training state on disk: written atomically, found again, checked before it is believed."""

import hashlib
import io
import logging
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sr_train.ops import files
from sr_train.ops.errors import CheckpointError

log = logging.getLogger(__name__)

FORMAT = 2
"""Number of the layout of a training state; another number is refused."""

_NAME = re.compile(r"step_(\d+)\.pt$")


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    Raises:
        CheckpointError: if it cannot be written; nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, data)
    except OSError as err:
        raise CheckpointError(
            f"{path}: could not be written ({err.strerror}); what was there before is intact. "
            "Make room, then go on with resume=auto"
        ) from err


def save_state(folder: Path, step: int, state: dict[str, Any], keep_last: int) -> Path:
    """Write the state of a step with its checksum beside it; drop the oldest.

    Args:
        folder: of the states.
        step: whose state it is.
        state: tensors and plain Python; the states of the steps `healthy` and `awaiting` in it
            stay, see `sr_train.engine.state_health`.
        keep_last: states that stay beside those, the newest.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    data = buffer.getbuffer()
    path = folder / f"step_{step:08d}.pt"
    write_atomically(_checksum_path(path), hashlib.sha256(data).hexdigest().encode())
    write_atomically(path, data)
    for old in states(folder)[keep_last:]:
        if step_of(old) not in (state.get("healthy"), state.get("awaiting")):
            old.unlink(missing_ok=True)
            _checksum_path(old).unlink(missing_ok=True)
    return path


def states(folder: Path) -> list[Path]:
    """Return the training states in a folder, newest step first."""
    found = [path for path in folder.glob("step_*.pt") if _NAME.match(path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """Return the step that the name of a training state tells."""
    return int(path.stem.removeprefix("step_"))


def move_states(folder: Path, step: int, to: str) -> list[Path]:
    """Move the states of later steps into a folder beside them.

    Left in place they would count as the newest, and new states as the oldest.

    Returns:
        Where they are now.
    """
    moved = []
    for path in states(folder):
        if step_of(path) > step:
            target = folder / to / path.name
            target.parent.mkdir(exist_ok=True)
            for source in (path, _checksum_path(path)):
                if source.exists():
                    source.replace(target.parent / source.name)
            moved.append(target)
    return moved


def set_aside_newer(folder: Path, step: int) -> list[Path]:
    """Move states of later steps into `abandoned`: a run that goes on from `step` replaces them."""
    return move_states(folder, step, "abandoned")


def read_state(path: Path) -> dict[str, Any]:
    """Read one training state.

    Raises:
        CheckpointError: if it is absent, damaged, or no training state of this program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    data = path.read_bytes()
    checksum = _checksum_path(path)
    if checksum.is_file() and checksum.read_text().strip() != hashlib.sha256(data).hexdigest():
        raise CheckpointError(f"{path}: damaged, its checksum is not the one in {checksum.name}")
    state = load_plain(path, data)
    if not isinstance(state, dict) or "format" not in state or "generator" not in state:
        raise CheckpointError(f"{path}: holds no training state of this program")
    if state["format"] != FORMAT:
        raise CheckpointError(f"{path}: has layout {state['format']}, expected {FORMAT}")
    return state


def newest_state(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest state that is whole, or None where there is none at all.

    Raises:
        CheckpointError: if there are states and every one is damaged.
    """
    faults = []
    for path in states(folder):
        try:
            return path, read_state(path)
        except CheckpointError as err:
            log.warning("warning: %s; going back to the one before", err)
            faults.append(str(err))
    if faults:
        raise CheckpointError("no training state is whole:\n  " + "\n  ".join(faults))
    return None


def load_plain(path: Path, data: bytes | None = None) -> Any:
    """Read tensors and plain Python from a file of torch.save, never code.

    Raises:
        CheckpointError: if it is empty, no such file, or holds more than data.
    """
    if (path.stat().st_size if data is None else len(data)) == 0:
        raise CheckpointError(f"{path}: empty, 0 bytes")
    source = path if data is None else io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats warn about storages
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        reason = _refused(str(err))
        raise CheckpointError(f"{path}: {reason}") from err
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as err:
        raise CheckpointError(f"{path}: not a file of weights, or damaged") from err


def _refused(message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found:
        return (
            f"holds the Python object {found[1]} beside its weights, which is not loaded since it "
            "could run code; save the state dict alone in the program that wrote it"
        )
    return "not a file of weights, or damaged"


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def flat_differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, old value, new value) where two nested configs differ."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from flat_differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after
