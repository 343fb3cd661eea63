"""Scoring a network on data sets: every image or clip by every metric, means over them.

A clip's value is the mean over its frames, or over the pairs of neighbouring frames for a metric
of two. Several ranks share the images and clips; all of them get the scores that one would.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from sr_train.api.dataset import WholeClip, WholeImage, as_clip
from sr_train.api.errors import ConfigError, DataError, PluginError
from sr_train.api.metric import ClipMetric, as_number
from sr_train.engine.distributed import World
from sr_train.inference.calling import kind_of
from sr_train.inference.clips import ClipUpscale
from sr_train.inference.wrapping import NonFinitePredictionError
from sr_train.ops.resize import imresize
from sr_train.utils.failures import naming

MetricFunction = Callable[[np.ndarray, np.ndarray, int], float]

Stop = Callable[[], str | None]
"""Returns why to break off, such as a signal's name, or None."""


class ValidationStopped(Exception):
    """A validation was broken off; its words are the reason."""


def never() -> None:
    """Give no reason to break off."""


class Source(Protocol):
    """A validation set of images or of clips."""

    def __len__(self) -> int: ...

    def whole(self, index: int) -> WholeImage | WholeClip: ...


_Row = tuple[str, str, dict[str, float]]
"""Set, image or clip, value of each metric."""


@dataclass
class Scores:
    """Values of every metric, by set, then by image or clip."""

    images: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """set -> image or clip -> metric -> value."""

    def mean(self, set_name: str | None = None) -> dict[str, float]:
        """Return each metric's mean over the images or clips of one set, or of all sets."""
        names = self.images if set_name is None else [set_name]
        rows = [row for name in names for row in self.images[name].values()]
        metrics = rows[0] if rows else {}
        return {key: math.fsum(row[key] for row in rows) / len(rows) for key in metrics}


@dataclass(frozen=True)
class Scored:
    """One frame before its metrics, handed to whoever wants to keep or show it."""

    set_name: str
    name: str
    """Of the image, or `CLIP/FRAME`."""
    index: int
    """Of the image or clip in its set."""
    frame: int
    num_frames: int
    lq: np.ndarray
    gt: np.ndarray
    pred: np.ndarray

    @property
    def is_last(self) -> bool:
        """Whether it is its clip's last frame; true for an image."""
        return self.frame == self.num_frames - 1


class Validator:
    """Run an upscaler over validation sets.

    Args:
        sets: by name.
        metrics: by name; each takes (pred, gt, scale) as stored pixels, a `ClipMetric` two
            neighbouring frames of them.
        scale: of the network.
        world: ranks that share the images and clips, each taking every `world.size`-th.
    """

    def __init__(
        self,
        sets: Mapping[str, Source],
        metrics: Mapping[str, MetricFunction | ClipMetric],
        scale: int,
        world: World | None = None,
    ) -> None:
        self.sets = dict(sets)
        self.metrics = dict(metrics)
        self.scale = scale
        self.world = World() if world is None else world

    def __len__(self) -> int:
        """Return the number of images and clips over all sets."""
        return sum(len(source) for source in self.sets.values())

    def bicubic(self, lq: np.ndarray, name: str = "") -> np.ndarray:
        """Upscale by MATLAB's bicubic: the baseline every network is compared with."""
        height, width = lq.shape[:2]
        return imresize(lq, out_size=(height * self.scale, width * self.scale))

    def run(
        self,
        upscale: ClipUpscale,
        on_frame: Callable[[Scored], None] | None = None,
        stop: Stop = never,
    ) -> Scores:
        """Score every image and clip.

        Args:
            upscale: what upscales.
            on_frame: sees each result of this rank once.
            stop: asked after each image and frame; returns why to break off, or None.

        Returns:
            The same scores on every rank, in the order of the sets.

        Raises:
            SRTrainError: on every rank, where an image of one cannot be used.
            ValidationStopped: on every rank, where one was asked to break off.
            NonFinitePredictionError: on every rank, where the network made NaN or infinity.
        """
        rows: dict[int, _Row] = {}
        ended: ValidationStopped | NonFinitePredictionError | None = None
        with self.world.together():
            try:
                for number, set_name, index in self._rank_indices():
                    clip = self._whole(set_name, index)
                    results = self._results(upscale, clip, set_name, index)
                    values = self._values(_stopping(results, stop), on_frame)
                    rows[number] = (set_name, clip.name, values)
            except (ValidationStopped, NonFinitePredictionError) as err:
                ended = type(err)(str(err))  # without the tensors of its traceback
        gathered = self.world.gather((rows, ended))
        for _, reason in gathered:
            if reason is not None:
                raise reason
        everything = {n: row for found, _ in gathered for n, row in found.items()}
        scores = Scores()
        for _, (set_name, image, values) in sorted(everything.items()):
            scores.images.setdefault(set_name, {})[image] = values
        return scores

    def _rank_indices(self) -> Iterator[tuple[int, str, int]]:
        """Yield number over all sets, set and index of what falls to this rank."""
        places = [(name, index) for name, each in self.sets.items() for index in range(len(each))]
        for number in range(self.world.rank, len(places), self.world.size):
            yield number, *places[number]

    def _whole(self, set_name: str, index: int) -> WholeClip:
        source, where = self.sets[set_name], f"data.val.{set_name}"
        with naming(where, source, lambda: f"whole({index})"):
            whole = source.whole(index)
        try:
            return as_clip(whole)
        except DataError as err:
            label = type(source).__name__
            raise PluginError(f"{where}: whole({index}) of {label} returned {err}") from None

    def _results(
        self, upscale: ClipUpscale, clip: WholeClip, set_name: str, index: int
    ) -> Iterator[Scored]:
        """Yield the frames of a clip as they are made; its truth is read just then."""
        count = len(clip)
        path, where = f"data.val.{set_name}", f"{set_name}/{clip.name}"

        def read(t: int) -> dict[str, np.ndarray]:
            with naming(path, clip, lambda: f"lq({t}) and extras({t}) of {clip.name}"):
                return {"lq": clip.lq(t), **clip.extras(t)}

        frames = (read(t) for t in range(count))
        preds = _told_where(upscale(frames, where), where)
        for t, pred in zip(range(count), preds, strict=True):
            name = "/".join(part for part in (clip.name, clip.frame_name(t)) if part)
            with naming(path, clip, partial(str, f"gt({t}) of {clip.name}")):
                lq, gt = clip.lq(t), clip.gt(t)
            yield Scored(set_name, name, index, t, count, lq, gt, pred)

    def _values(
        self, results: Iterable[Scored], on_frame: Callable[[Scored], None] | None
    ) -> dict[str, float]:
        """Return each metric's mean over the frames of a clip."""
        found: dict[str, list[float]] = {name: [] for name in self.metrics}
        earlier: Scored | None = None
        for scored in results:
            for name, metric in self.metrics.items():
                if not isinstance(metric, ClipMetric):
                    found[name].append(self._value(name, metric, scored.pred, scored.gt))
                elif earlier is not None:
                    pair = (earlier.pred, scored.pred), (earlier.gt, scored.gt)
                    found[name].append(self._value(name, metric, *pair))
            if on_frame is not None:
                on_frame(scored)
            earlier = scored
        assert earlier is not None
        _check_pairs(found, earlier)
        return {name: math.fsum(values) / len(values) for name, values in found.items()}

    def _value(self, name: str, metric: Any, pred: Any, gt: Any) -> float:
        """Call a metric.

        Raises:
            PluginError: naming it, where it fails or gives no number.
        """

        def given() -> str:
            return f"pred {_kind(pred)}, gt {_kind(gt)}, scale={self.scale}"

        with naming(f"metrics.{name}", metric, given):
            value = metric(pred, gt, self.scale)
        number = as_number(value)
        if number is None:
            raise PluginError(
                f"metrics.{name}: {type(metric).__name__} returned {kind_of(value)}; expected one "
                "number"
            )
        return number


def _told_where(preds: Iterable[np.ndarray], where: str) -> Iterator[np.ndarray]:
    """Yield predictions; what a part of the user's own fails on is reported with its name."""
    try:
        yield from preds
    except PluginError as err:
        raise PluginError(f"{where}: {err}") from err


def _kind(pixels: Any) -> str:
    if isinstance(pixels, tuple):
        return f"{len(pixels)} frames {_kind(pixels[0])}"
    return f"{pixels.shape} {pixels.dtype}"


def _stopping(results: Iterable[Scored], stop: Stop) -> Iterator[Scored]:
    """Yield results until there is a reason to break off.

    Raises:
        ValidationStopped: with the reason.
    """
    for scored in results:
        yield scored
        reason = stop()
        if reason is not None:
            raise ValidationStopped(reason)


def on_last(advance: Callable[[], None]) -> Callable[[Scored], None]:
    """Return what to call for each frame so that `advance` is called once for each clip."""

    def on_frame(scored: Scored) -> None:
        if scored.is_last:
            advance()

    return on_frame


def _check_pairs(found: Mapping[str, Sequence[float]], last: Scored) -> None:
    """Raise where a metric of neighbouring frames met a single frame.

    Raises:
        ConfigError: naming both.
    """
    for name, values in found.items():
        if not values:
            raise ConfigError(
                f"metrics.{name}: compares neighbouring frames, but data.val.{last.set_name} has a "
                f"single one in {last.name}; take it out (~metrics.{name}), or validate on clips"
            )
