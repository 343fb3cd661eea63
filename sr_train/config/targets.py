"""Which classes a `_target_` may name: by where a class is defined, and by what kind it is.

A config may come from somebody else. What is shipped and torch's plain parts are listed here; a
package of one's own counts where `plugins` names it. A class counts by the module that defines it,
never by a module that happens to import it, and nothing but classes counts: no function, no method,
no instance.
"""

import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.config.packages import OWN, ROOT, rename, rival_of

EXTRAS = {
    "pytorch_optimizer": "optimizers",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
"""Packages that shipped configs name but a plain install lacks, and the extra that brings each."""

_TORCH_OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam"),
    *("RAdam", "RMSprop", "Rprop", "SGD"),
)
"""Those that step without a closure, on dense gradients."""

_TORCH_MODULES = (
    *("Conv2d", "Conv3d", "ConvTranspose2d", "ConvTranspose3d", "Linear", "Identity", "Upsample"),
    *("PixelShuffle", "PixelUnshuffle", "ChannelShuffle", "Dropout", "Dropout2d"),
    *("AdaptiveAvgPool2d", "AvgPool2d", "MaxPool2d"),
    *("ReflectionPad2d", "ReplicationPad2d", "ZeroPad2d"),
    *("BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm2d", "LayerNorm", "RMSNorm"),
    *("CELU", "ELU", "GELU", "GLU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "Mish"),
    *("PReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Softsign"),
    *("Tanh", "BCEWithLogitsLoss", "HuberLoss", "L1Loss", "MSELoss", "SmoothL1Loss"),
)
"""Layers and losses that take plain values only."""

_NO_PLUGINS = {
    *("torch", "torchgen", "functorch", "hydra", "hydra_plugins", "omegaconf", "antlr4", "yaml"),
    *("pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel", "submitit", "cloudpickle"),
}
"""Packages that load code or files by name, so that no config may open them; torch's fixed list
stands above."""


@dataclass(frozen=True)
class Kind:
    """One seam: what may stand in it."""

    name: str
    packages: tuple[str, ...]
    """Where the shipped classes of this kind are defined."""
    base: str | None = None
    """Dotted name of the class that all of them derive from; None: what has the methods."""
    methods: tuple[str, ...] = ()
    """What a class must define itself or inherit; of alternatives, `a|b`, one."""
    torch: tuple[str, ...] = ()
    """Classes of torch that may stand there, too."""

    def fault_of(self, target: type) -> str | None:
        """Return what keeps a class from being of this kind; None where nothing does."""
        if self.base is not None:
            module, _, name = self.base.rpartition(".")
            if not issubclass(target, getattr(import_module(module), name)):
                return f"is no {self.name}; expected a subclass of {self.base}"
        for wanted in self.methods:
            if not any(name in vars(each) for name in wanted.split("|") for each in _own(target)):
                words = " or ".join(f"{name}(...)" for name in wanted.split("|"))
                return f"is no {self.name}; expected a class with {words}"
        return None


_MODULES = tuple(f"torch.nn.{name}" for name in _TORCH_MODULES)

_LOGGERS = ("tensorboard", "wandb_logger", "mlflow_logger", "trackio_logger")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("network", ("archs",), "torch.nn.Module", torch=_MODULES),
        Kind("part", ("archs", "losses"), torch=_MODULES),
        Kind("loss", ("losses",), "torch.nn.Module"),
        Kind(
            "optimizer",
            ("pytorch_optimizer",),
            "torch.optim.Optimizer",
            torch=tuple(f"torch.optim.{name}" for name in _TORCH_OPTIMIZERS),
        ),
        Kind("schedule", ("sr_train.engine.schedule",), methods=("__call__",)),
        Kind("data set", ("data",), methods=("__len__", "sample|whole")),
        Kind(
            "stream",
            ("data.loading.stream", "data.loading.one_batch"),
            methods=("__next__", "seek", "close"),
        ),
        Kind("metric", ("sr_train.metrics",), methods=("__call__",)),
        Kind(
            "logger",
            tuple(f"sr_train.monitoring.{name}" for name in _LOGGERS),
            "sr_train.api.logger.Logger",
        ),
        Kind("callback", ("sr_train.callbacks",), "sr_train.api.callback.Callback"),
    )
}

SEAMS: dict[str, str] = {
    "arch": "network",
    "discriminator.arch": "network",
    "optimizer": "optimizer",
    "discriminator.optimizer": "optimizer",
    "scheduler": "schedule",
    "discriminator.scheduler": "schedule",
    "objective.*.loss": "loss",
    "objective_d.*.loss": "loss",
    "data.train": "data set",
    "data.val.*": "data set",
    "data.stream": "stream",
    "metrics.*": "metric",
    "logger.*": "logger",
    "callbacks.*": "callback",
}
"""Where a config holds components, and of which kind. A `part` is what a user's own class takes."""


def kind_of(path: str) -> str | None:
    """Return the kind of component that stands at a config path; None where none does."""
    return next((kind for seam, kind in SEAMS.items() if fnmatchcase(path, seam)), None)


def resolve_target(
    dotted: object, path: str, plugins: Sequence[str] = (), kind: str | None = None
) -> type:
    """Return the class that a `_target_` names, if it may stand there.

    Nothing is imported but modules of the shipped packages for this kind, torch's listed classes,
    and modules below `plugins`.

    Args:
        dotted: module and class, as the config has it.
        path: where the node stands in the config, for messages.
        plugins: the user's packages.
        kind: of `KINDS`; None: what the path says or, where it says nothing, any of them.

    Raises:
        ConfigError: if it lies outside the allowed packages, does not exist, is no class, is
            defined elsewhere, or is of another kind.
    """
    where = f"{path}._target_={dotted}"
    if not isinstance(dotted, str):
        words = "a list" if isinstance(dotted, list | tuple) else str(dotted)
        raise ConfigError(f"{path}._target_: expected the dotted name of a class, found {words}")
    problems = plugin_problems(plugins)
    if problems:
        raise ConfigError("; ".join(problems))
    kinds = _kinds(kind or kind_of(path))
    if any(dotted in each.torch for each in kinds):
        module, _, name = dotted.rpartition(".")
        return _class_of(import_module(module), name, where)
    packages = list(dict.fromkeys(package for each in kinds for package in each.packages))
    if not _below(dotted, (*packages, *plugins)):
        raise ConfigError(f"{where}: {_outside(dotted, kinds, plugins)}")
    module, _, name = dotted.rpartition(".")
    target = _class_of(_imported(module, where), name, where)
    defined = f"{target.__module__}.{target.__qualname__}"
    fitting = [each for each in kinds if _below(defined, (*each.packages, *plugins))]
    if not fitting:
        raise ConfigError(
            f"{where}: is {defined}, which lies outside the allowed packages; name a class by "
            f"the package that defines it (allowed here: {', '.join((*packages, *plugins))})"
        )
    faults = [each.fault_of(target) for each in fitting]
    if None not in faults:
        raise ConfigError(f"{where}: {faults[0]}")
    return target


def plugin_problems(plugins: Sequence[object]) -> list[str]:
    """Return what is wrong with the user's list of packages."""
    problems = []
    for name in plugins:
        top = str(name).split(".")[0]
        if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
            why = "expected the name of a package of your own, as in plugins=[mine]"
        elif top in OWN:
            why = f"is a package of sr_train itself, in {ROOT / top}, whose classes need no entry"
            why += rename(top, rival_of(top))
        elif top in sys.stdlib_module_names or top.startswith("__"):
            why = "is part of Python itself; expected a package of your own"
        elif top in _NO_PLUGINS:
            why = "cannot be opened to configs; expected a package of your own"
        else:
            continue
        problems.append(f"plugins: {name!r} {why}")
    return problems


def _kinds(name: str | None) -> Sequence[Kind]:
    return list(KINDS.values()) if name is None else [KINDS[name]]


def _below(dotted: str, packages: Sequence[str]) -> bool:
    return any(dotted.startswith(f"{package}.") for package in packages)


def _outside(dotted: str, kinds: Sequence[Kind], plugins: Sequence[str]) -> str:
    """Say what a `_target_` may be instead."""
    packages = dict.fromkeys(package for kind in kinds for package in kind.packages)
    words = f"outside the allowed packages ({', '.join((*packages, *plugins))})"
    listed = [name for kind in kinds for name in kind.torch]
    top = dotted.split(".")[0]
    if top == "torch" and listed:
        return f"{words}; of torch, one of a fixed list{did_you_mean(dotted, listed)}"
    if plugin_problems([top]):
        return f"{words}; expected a class of those, or of your own package: plugins=[PACKAGE]"
    return f"{words}; add your own package by plugins=[{top}]"


def _imported(module: str, where: str) -> Any:
    try:
        return import_module(module)
    except ImportError as err:
        extra = _extra_of(err)
        hint = "" if extra is None else f'; pip install "sr_train[{extra}]"'
        hint += _rename_hint(err.name or "", str(err))
        raise ConfigError(f"{where}: cannot be imported: {err}{hint}") from err
    except Exception as err:
        raise ConfigError(
            f"{where}: importing {module} fails: {type(err).__name__}: {err}"
        ) from err


def _rename_hint(module: str, told: str = "") -> str:
    """Tell to rename a user's package that has the name of one of ours, unless that is told."""
    top = module.split(".")[0]
    hint = rename(top, rival_of(module)) if top in OWN else ""
    return "" if hint in told else hint


def _extra_of(err: ImportError) -> str | None:
    """Return the extra that brings what an import did not find."""
    return None if err.name is None else EXTRAS.get(err.name.split(".")[0])


def _class_of(module: Any, name: str, where: str) -> type:
    """Return a class by its name in a module; the module's own, so that nothing is walked."""
    if name not in vars(module):
        here = {word: each for word, each in vars(module).items() if inspect.isclass(each)}
        own = [word for word, each in here.items() if each.__module__ == module.__name__]
        classes = own or list(here)
        hint = did_you_mean(name, [word for word in classes if not word.startswith("_")])
        hint += _rename_hint(module.__name__)
        raise ConfigError(f"{where}: {module.__name__} has no {name!r}{hint}")
    target = vars(module)[name]
    if not isinstance(target, type):
        found = "a function" if callable(target) else "none"
        raise ConfigError(f"{where}: expected a class, found {found}")
    return target


def _own(target: type) -> Iterator[type]:
    """Yield a class and what it derives from, without what every object has."""
    return (each for each in target.__mro__ if each is not object)
