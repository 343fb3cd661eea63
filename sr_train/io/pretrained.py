"""Published weights that lie on this machine: found, read, checked; never downloaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr_train.api.errors import CheckpointError
from sr_train.io.weight_files import is_dense, read_content


def find_weights(
    user: str, file: str, given: str | Path | None, url: str = "", argument: str = "weights"
) -> Path:
    """Return the path of a file of weights that is on this machine.

    Args:
        user: what needs it, for the error.
        file: its published name, looked for in torch hub's cache (`$TORCH_HOME/hub/checkpoints`).
        given: a path to take instead.
        url: where it is published; empty for torchvision's place.
        argument: of the user, by which a path is given.

    Raises:
        CheckpointError: if it is not there.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / file if given is None else Path(given)
    path = path.expanduser()
    if path.is_file():
        return path
    raise CheckpointError(
        f"{user}: no weights at {path.absolute()}. Download "
        f"{url or f'https://download.pytorch.org/models/{file}'} once, and either put it there or "
        f"name it with {argument}=PATH"
    )


def read_state(path: Path) -> dict[str, Any]:
    """Return the state dict in a file of torch.save or a safetensors file.

    Raises:
        CheckpointError: if the file holds none.
    """
    state = read_content(path)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds {type(state).__name__}, not a state dict")
    return state


def stored_tensor(
    state: Mapping[str, Any], key: str, shape: tuple[int, ...], source: str
) -> Tensor:
    """Return a tensor of a state dict.

    Args:
        state: as read.
        key: its name.
        shape: that it must have.
        source: what to call the state dict in the error.

    Raises:
        CheckpointError: if it is not there, has another shape, or holds no finite numbers.
    """
    stored = state.get(key)
    if not isinstance(stored, Tensor) or not is_dense(stored) or stored.shape != shape:
        found = "nothing"
        if isinstance(stored, Tensor):
            found = str(tuple(stored.shape)) if is_dense(stored) else "another kind of tensor"
        raise CheckpointError(
            f"{source} is not what was asked for: {key} should have shape {shape}, found {found}"
        )
    check_numbers(stored, key, source)
    return stored


def check_numbers(stored: Tensor, key: str, source: str) -> None:
    """Refuse a tensor of anything but finite floating-point numbers.

    Raises:
        CheckpointError: naming it.
    """
    if not is_dense(stored) or not stored.is_floating_point():
        kind = str(stored.dtype).removeprefix("torch.") if is_dense(stored) else "another kind"
        raise CheckpointError(f"{source}: {key} should hold floating-point numbers, found {kind}")
    if not torch.isfinite(stored.float()).all():
        raise CheckpointError(f"{source}: {key} holds NaN or infinite numbers")
