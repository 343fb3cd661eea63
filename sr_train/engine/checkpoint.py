"""Training state on disk: written atomically, found again, checked before it is believed."""

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from sr_train.api.errors import CheckpointError
from sr_train.api.text import brief
from sr_train.engine.checksum import checksum
from sr_train.engine.model_card import newer, versions
from sr_train.engine.old_states import in_new_words
from sr_train.engine.state_checks import check_state, is_state
from sr_train.io import files
from sr_train.io.weight_files import read_content

log = logging.getLogger(__name__)

FORMAT = 4
"""Number of the layout of a training state.

Those of layout 2 carry no checksum inside, those up to 3 hold `policies`, see `old_states`.
"""

_OLDEST_FORMAT = 2

_NAME = re.compile(r"step_(\d+)\.pt$")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    Raises:
        CheckpointError: if it cannot be written; nothing is left over.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, data)
    except OSError as err:
        raise CheckpointError(
            f"{path}: could not be written ({err.strerror}); what was there before is intact. "
            "Fix that, then try again; a run resumes with resume=auto"
        ) from err


def save_state(folder: Path, step: int, state: dict[str, Any], keep_last: int) -> Path:
    """Write the state of a step with its checksum beside it; drop the oldest.

    The state carries a checksum inside, too, which does not get lost when it is copied.

    Args:
        folder: of the states.
        step: whose state it is.
        state: tensors and plain Python; the states of the steps `healthy` and `awaiting` in it
            stay, see `sr_train.engine.state_health`.
        keep_last: states that stay beside those, the newest.
    """
    content = {"format": FORMAT, "step": step, "versions": versions(), **state}
    buffer = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, buffer)
    data = buffer.getbuffer()
    path = state_path(folder, step)
    write_atomically(_checksum_path(path), hashlib.sha256(data).hexdigest().encode())
    write_atomically(path, data)
    for old in states(folder)[keep_last:]:
        if step_of(old) not in (state.get("healthy"), state.get("awaiting")):
            old.unlink(missing_ok=True)
            _checksum_path(old).unlink(missing_ok=True)
    return path


def state_path(folder: Path, step: int) -> Path:
    """Return the file of a step's training state."""
    return folder / f"step_{step:08d}.pt"


def states(folder: Path) -> list[Path]:
    """Return the training states in a folder, newest step first."""
    found = [path for path in folder.glob("step_*.pt") if _NAME.match(path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """Return the step that the name of a training state says."""
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
                    os.replace(source, target.parent / source.name)
            moved.append(target)
    return moved


def set_aside_newer(folder: Path, step: int) -> list[Path]:
    """Move states of later steps into `abandoned`: a run that resumes from `step` replaces them."""
    return move_states(folder, step, "abandoned")


def read_state(path: Path) -> dict[str, Any]:
    """Read one training state.

    Raises:
        CheckpointError: if it is absent, damaged, or no training state of this program.
    """
    try:
        content = read_content(path)
    except CheckpointError as err:
        if _side_checksum(path) == "another":
            side = _checksum_path(path).name
            raise CheckpointError(
                f"{path}: damaged, its checksum is not the one in {side}"
            ) from err
        raise
    return checked_state(content, path)


def checked_state(content: Any, path: Path) -> dict[str, Any]:
    """Return what a file holds as a training state.

    The checksum inside decides; where there is none, the one in the file beside it.

    Raises:
        CheckpointError: if it is damaged, or no training state of this program.
    """
    if not is_state(content):
        raise CheckpointError(
            f"{path}: holds no training state of this program; to start from weights: "
            f"net_g.pretrained={path}"
        )
    layout = content.get("format")
    if type(layout) is not int or layout < _OLDEST_FORMAT:
        raise CheckpointError(f"{path}: has layout {brief(layout)}, expected {FORMAT}")
    if layout > FORMAT:
        raise newer(path, layout, FORMAT, content.get("versions"))
    _verify(content, path)
    state = in_new_words(content)
    check_state(state, path)
    return state


def _verify(content: dict[str, Any], path: Path) -> None:
    side, name = _side_checksum(path), _checksum_path(path).name
    inside = content.pop("checksum", None)
    if inside is None and content["format"] == _OLDEST_FORMAT:
        if side == "another":
            raise CheckpointError(f"{path}: damaged, its checksum is not the one in {name}")
        if side != "fits":
            log.info("%s: unverified, there is no checksum in it nor beside it", path)
        return
    if inside != checksum(content):
        raise CheckpointError(f"{path}: damaged, it is not what its checksum inside is of")
    if side in {"another", "garbled"}:
        log.warning(
            "warning: %s: not the checksum of %s, which is whole by the one inside it; left aside",
            _checksum_path(path),
            path.name,
        )


def _side_checksum(path: Path) -> Literal["fits", "another", "garbled", "none"]:
    """Compare a file with the checksum beside it, which may be of any kind or damaged itself."""
    try:
        said = _checksum_path(path).read_bytes()[:4096].decode("ascii").split()
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "none"
    except (OSError, ValueError):
        return "garbled"
    if not said or not _SHA256.fullmatch(said[0].lower()):
        return "garbled"
    return "fits" if said[0].lower() == found else "another"


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
