"""Train, resume, validate and ship super-resolution and restoration networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sr_train.config.packages import claim_names

if TYPE_CHECKING:
    from sr_train.api.errors import SRTrainError
    from sr_train.commands.from_python import compose, load_network, train
    from sr_train.commands.train import TrainResult
    from sr_train.inference.upscaler import Upscaler

__all__ = ["SRTrainError", "TrainResult", "Upscaler", "compose", "load_network", "train"]
__version__ = "0.1.0"

_PLACES = {
    "SRTrainError": "api.errors",
    "TrainResult": "commands.train",
    "Upscaler": "inference.upscaler",
    "compose": "commands.from_python",
    "load_network": "commands.from_python",
    "train": "commands.from_python",
}
"""Where the names of the Python API are defined: each is imported when it is first asked for."""

claim_names()  # before anything of `archs`, `losses`, `data` can be imported or unpickled


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
