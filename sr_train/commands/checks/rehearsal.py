"""The first validation and the first save of a run, on little data and in a folder that goes again.

Everything is made as `train` makes it. What fails is reported, all of it, and what stands in for it
keeps the rest going.
"""

import io
import logging
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr_train.api.callback import Callback
from sr_train.api.dataset import ClipsInMemory
from sr_train.api.errors import ConfigError, PluginError, SRTrainError
from sr_train.api.logger import Logger
from sr_train.api.metric import ClipMetric, as_number
from sr_train.commands.checks.loggers import WatchedLogger, rehearse
from sr_train.commands.checks.samples import Item, first_items
from sr_train.config.schema import RunConfig, UseConfig
from sr_train.engine.checkpoint import newest_state
from sr_train.engine.distributed import World
from sr_train.engine.live_validation import LiveValidation
from sr_train.engine.model import SRModel
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.trainer import Trainer
from sr_train.engine.weights import save_weights
from sr_train.factory import components, networks
from sr_train.factory.callbacks import callback_makers
from sr_train.factory.trainer import make_trainer, part_makers
from sr_train.inference.calling import kind_of
from sr_train.inference.clips import ClipUpscale, Frame, frame_by_frame
from sr_train.utils.failures import in_words, users_place
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

_HAS_PATH = re.compile(
    r"(arch|data|metrics|logger|callbacks|precision|objective_d|objective|discriminator|train)[.:=]"
)
"""Begins a message that names its config path itself."""

_PREFIX = ".sr_check_"
_OLD_SEC = 60.0


class Found:
    """Problems, each once, by what they are about."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._blamed: set[str] = set()

    @contextmanager
    def about(self, path: str, label: str = "", *, once: bool = True) -> Iterator[None]:
        """Note what fails in the block, and continue after it.

        A defect of the program itself, and memory that is too little, go through.

        Args:
            path: config path of the part at work.
            label: what it is at work on.
            once: note one problem of this path only.
        """
        try:
            yield
        except SRTrainError as err:
            self.add(path, str(err), label, once=once)
        except Exception as err:
            if is_out_of_memory(err) or (users_place(err) is None and isinstance(err, OSError)):
                raise
            self.add(path, in_words(err), label, once=once)

    def add(self, path: str, text: str, label: str = "", *, once: bool = True) -> None:
        """Note a problem."""
        if once and path in self._blamed:
            return
        self._blamed.add(path)
        where = f"{label}: " if label and label not in text else ""
        line = text if _HAS_PATH.match(text) else f"{path}: {where}{text}"
        if line not in self.problems:
            self.problems.append(line)


@contextmanager
def rehearsal_folder(out_dir: Path) -> Iterator[RunFolder]:
    """Return a folder beside those of runs, which is gone after the block.

    Those that a killed process left are removed, too.

    Args:
        out_dir: of the runs; where it does not exist yet, the folder lies above it.
    """
    existing = next(path for path in (out_dir, *out_dir.parents) if path.is_dir())
    for left in existing.glob(f"{_PREFIX}*"):
        if time.time() - left.stat().st_mtime > _OLD_SEC:
            try:
                with RunFolder(left).lock():
                    shutil.rmtree(left, ignore_errors=True)
            except ConfigError:
                log.debug("%s: another check is at work", left)
    folder = RunFolder(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=existing)))
    try:
        with folder.lock():
            yield folder
    finally:
        shutil.rmtree(folder.root, ignore_errors=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what is said a second time from being said."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


class Rehearsal:
    """A trainer as `train` makes it, on a few samples, whose parts are watched.

    Args:
        cfg: checked config.
        resolved: the same, plain.
        folder: that goes again.
        model: as built.
        sets: data sets by config path.
    """

    def __init__(
        self,
        cfg: RunConfig,
        resolved: dict[str, Any],
        folder: RunFolder,
        model: SRModel,
        sets: Mapping[str, Any],
    ) -> None:
        self.found = Found()
        self.items: dict[str, list[Item]] = {}
        self.callbacks: dict[str, Callback] = {}
        """By config path; the trainer has none, so that each is tried by itself."""
        self.loggers: dict[str, Logger] = {}
        """As callbacks see them."""
        self._cfg = cfg
        self._resolved = resolved
        self._folder = folder
        self._model = model
        self._sets = sets

    def build(self) -> Trainer | None:
        """Make all parts and put them together; None where that cannot be."""
        cfg, model = self._cfg, self._model
        callbacks = callback_makers(cfg, model, 1)
        makers = part_makers(cfg, self._folder, model, self._sets, World(), dry_run=True)
        attempt = components.attempt_all({**callbacks, **makers})
        parts = attempt.made
        self.found.problems += attempt.problems
        self.callbacks = {path: parts[path] for path in callbacks if path in parts}
        self.loggers = {path: part for path, part in parts.items() if path.startswith("logger.")}
        if "data.stream" not in parts:
            return None
        watched: dict[str, Any] = {"data.stream": parts["data.stream"]}
        for path, part in parts.items():
            if path.startswith("metrics."):
                watched[path] = watched_metric(part, path, self.found)
            elif path.startswith("logger."):
                watched[path] = WatchedLogger(part, path, self.found.about)
        self.items = {
            path: first_items(path, dataset, self._model.spec, self.found.about)
            for path, dataset in self.validation_sets.items()
        }
        few = {path: ClipsInMemory(items) for path, items in self.items.items() if items}
        return make_trainer(
            cfg,
            self._resolved,
            self._folder,
            self._model,
            {"data.train": self._sets["data.train"], **few},
            {},
            {},
            World(),
            parts=watched,
        )

    @property
    def validation_sets(self) -> dict[str, Any]:
        """Those sets that are validated on, by config path."""
        return {path: each for path, each in self._sets.items() if path != "data.train"}

    def stream(self, trainer: Trainer) -> None:
        """Take the first batch as a run does, with its workers."""
        with quiet(), self.found.about("data.stream"):
            try:
                trainer.stream.seek(0)
                batch = next(trainer.stream)
            finally:
                trainer.stream.close()
            count = self._cfg.data.batch_size // self._cfg.train.accum
            if not isinstance(batch, Mapping) or any(len(each) != count for each in batch.values()):
                raise ConfigError(f"its batches are not {count} samples by name, lq and gt")

    def validate(self, trainer: Trainer, *, with_network: bool) -> None:
        """Score the few items, log, and show images.

        Args:
            trainer: as built.
            with_network: False lets bicubic stand in for a network that does not work.
        """
        rehearse(trainer.loggers, self._resolved, trainer.step)
        validation = trainer.validation
        if not isinstance(validation, LiveValidation):
            return
        bicubic = validation.validator.bicubic
        upscale = frame_by_frame(bicubic)
        if with_network:
            with self.found.about("arch"):
                upscale = watched_upscale(validation.make_upscaler(), bicubic, self.found)
        validation.make_upscaler = lambda: upscale
        best, trainer.best = trainer.best, {}  # whose weights `save` writes
        for name, few in dict(validation.validator.sets).items():
            validation.validator.sets = {name: few}
            with quiet(), self.found.about(f"data.val.{name}"):
                trainer.validate()
        trainer.best = best

    def save(self, trainer: Trainer) -> int:
        """Save, read back, take up again, and build the network from its file.

        Returns:
            Bytes of the training state.
        """
        folder, before, size = self._folder, len(self.found.problems), 0
        with quiet(), self.found.about("arch", "its weights cannot be written"):
            save_weights(folder.last_weights, self._model.net_for_use(), trainer.card)
        if len(self.found.problems) > before:
            return 0
        with quiet(), self._about_state("a training state cannot be written"):
            trainer.save()
        if len(self.found.problems) > before:
            return 0
        with quiet(), self._about_state("a training state cannot be read again"):
            found = newest_state(folder.checkpoints)
            assert found is not None
            path, state = found
            size = path.stat().st_size
            self._model.load_state_dict(state)
        use = UseConfig(checkpoint=str(folder.root), plugins=list(self._cfg.plugins))
        with quiet(), self.found.about("arch", "the network cannot be made from its own file"):
            networks.load_for_use(use)
        return size

    @contextmanager
    def _about_state(self, label: str) -> Iterator[None]:
        """Note what fails in the block, by the part whose state is at fault."""
        found = Found()
        with found.about("train", label):
            yield
        if found.problems:
            path = self._unreadable() or "train"
            self.found.add(path, found.problems[0].removeprefix("train: "))

    def _unreadable(self) -> str | None:
        """Return the config path of a part whose state cannot be stored as plain data."""
        model = self._model
        states: dict[str, Callable[[], Any]] = {
            "arch": model.generator.net.state_dict,
            "optimizer": model.generator.state_dict,
        }
        if model.adversary is not None:
            states["discriminator"] = model.adversary.state_dict
        for path, state_of in states.items():
            stored = io.BytesIO()
            try:
                torch.save(state_of(), stored)
                stored.seek(0)
                torch.load(stored, weights_only=True)
            except Exception as err:  # whatever an object does when it is stored
                log.debug("%s: %s", path, err)
                return path
        return None

    def close(self, trainer: Trainer) -> None:
        """Let go of everything."""
        trainer.loggers.close()


class WatchedMetric:
    """A metric whose failures are noted, each kind once; NaN stands in for the value."""

    def __init__(self, metric: Any, path: str, found: Found) -> None:
        self.higher_is_better = metric.higher_is_better
        self._metric = metric
        self._path = path
        self._found = found

    def __call__(self, pred: Any, gt: Any, scale: int) -> float:
        with self._found.about(self._path, f"on {_shapes(pred)}"):
            value = _number(self._metric(pred, gt, scale), self._metric)
            if math.isnan(value):
                log.warning("warning: %s: NaN on %s", self._path, _shapes(pred))
            return value
        return math.nan


class WatchedClipMetric(WatchedMetric, ClipMetric):
    """The same for a metric of neighbouring frames."""


def watched_metric(metric: Any, path: str, found: Found) -> WatchedMetric:
    """Watch a metric of either kind."""
    kind = WatchedClipMetric if isinstance(metric, ClipMetric) else WatchedMetric
    return kind(metric, path, found)


def watched_upscale(
    upscale: ClipUpscale, bicubic: Callable[[np.ndarray], np.ndarray], found: Found
) -> ClipUpscale:
    """Return what upscales by bicubic where the network cannot, and notes why."""

    def watched(frames: Iterable[Frame], name: str) -> Iterator[np.ndarray]:
        kept = list(frames)
        made: list[np.ndarray] = []
        with found.about("arch", name):
            try:
                made = list(upscale(iter(kept), name))
            except PluginError as err:
                raise PluginError(f"arch: {name}: {str(err).removeprefix('arch: ')}") from err
        yield from made or [bicubic(frame["lq"]) for frame in kept]

    return watched


def _number(value: Any, metric: Any) -> float:
    """Return what a metric gave.

    Raises:
        ConfigError: where it is no number.
    """
    number = as_number(value)
    if number is None:
        label = type(metric).__name__
        raise ConfigError(f"{label} returned {kind_of(value)}; expected one number")
    return number


def _shapes(pred: Any) -> str:
    if isinstance(pred, tuple):
        return f"{len(pred)} frames of {pred[0].shape[1]}x{pred[0].shape[0]}"
    return f"an image of {pred.shape[1]}x{pred.shape[0]}"
