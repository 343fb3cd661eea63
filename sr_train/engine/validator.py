"""Scoring a network on data sets: every picture by every metric, means over pictures.

Several ranks share the pictures; all of them get the scores that one would.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from sr_train.engine.distributed import World
from sr_train.ops.resize import imresize

Upscale = Callable[[np.ndarray, str], np.ndarray]
"""(LQ picture (H, W, C), its name for errors) to a picture `scale` times as large, same dtype."""

MetricFunction = Callable[[np.ndarray, np.ndarray, int], float]


class WholePicture(Protocol):
    """An uncropped pair."""

    name: str
    lq: np.ndarray
    gt: np.ndarray


class PictureSource(Protocol):
    """A validation set."""

    def __len__(self) -> int: ...

    def whole(self, index: int) -> WholePicture: ...


_Row = tuple[str, str, dict[str, float]]
"""Set, picture, value of each metric."""


@dataclass
class Scores:
    """Values of every metric, by set, then by picture."""

    pictures: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """set -> picture -> metric -> value."""

    def mean(self, set_name: str | None = None) -> dict[str, float]:
        """Return each metric's mean over the pictures of one set, or of all sets."""
        names = self.pictures if set_name is None else [set_name]
        rows = [row for name in names for row in self.pictures[name].values()]
        metrics = rows[0] if rows else {}
        return {key: math.fsum(row[key] for row in rows) / len(rows) for key in metrics}


@dataclass(frozen=True)
class Scored:
    """One picture after scoring, handed to whoever wants to keep or show it."""

    set_name: str
    name: str
    index: int
    lq: np.ndarray
    gt: np.ndarray
    pred: np.ndarray


class Validator:
    """Run an upscaler over validation sets.

    Args:
        sets: by name.
        metrics: by name; each takes (pred, gt, scale) as stored pixels.
        scale: of the network.
        world: ranks that share the pictures, each taking every `world.size`-th.
    """

    def __init__(
        self,
        sets: Mapping[str, PictureSource],
        metrics: Mapping[str, MetricFunction],
        scale: int,
        world: World | None = None,
    ) -> None:
        self.sets = dict(sets)
        self.metrics = dict(metrics)
        self.scale = scale
        self.world = World() if world is None else world

    def __len__(self) -> int:
        """Return the number of pictures over all sets."""
        return sum(len(source) for source in self.sets.values())

    def bicubic(self, lq: np.ndarray, name: str = "") -> np.ndarray:
        """Upscale by MATLAB's bicubic: the baseline every network is compared with."""
        height, width = lq.shape[:2]
        return imresize(lq, out_size=(height * self.scale, width * self.scale))

    def run(self, upscale: Upscale, on_picture: Callable[[Scored], None] | None = None) -> Scores:
        """Score every picture; `on_picture` sees each result of this rank once.

        Returns:
            The same scores on every rank, in the order of the sets.

        Raises:
            SRTrainError: on every rank, where a picture of one cannot be used.
        """
        rows: dict[int, _Row] = {}
        with self.world.together():
            for number, scored in self._results(upscale):
                values = {
                    name: float(metric(scored.pred, scored.gt, self.scale))
                    for name, metric in self.metrics.items()
                }
                rows[number] = (scored.set_name, scored.name, values)
                if on_picture is not None:
                    on_picture(scored)
        everything = {n: row for share in self.world.gather(rows) for n, row in share.items()}
        scores = Scores()
        for _, (set_name, picture, values) in sorted(everything.items()):
            scores.pictures.setdefault(set_name, {})[picture] = values
        return scores

    def _results(self, upscale: Upscale) -> Iterator[tuple[int, Scored]]:
        """Yield this rank's share, each with its number over all sets."""
        first = 0
        for set_name, source in self.sets.items():
            for index in range(len(source)):
                if (first + index) % self.world.size != self.world.rank:
                    continue
                pair = source.whole(index)
                pred = upscale(pair.lq, f"{set_name}/{pair.name}")
                yield first + index, Scored(set_name, pair.name, index, pair.lq, pair.gt, pred)
            first += len(source)
