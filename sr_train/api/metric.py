"""What a metric is: one number that compares a prediction with the ground truth."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""(H, W, C) as stored: uint8, or uint16 for 16-bit images."""


class Metric(ABC):
    """The base class of metrics that look at one image, or at one frame of a clip, at a time.

    A metric of one's own needs `higher_is_better` and `__call__`; arguments of its constructor
    come from the config. The value of a set is the mean over its images.

    Example:
        >>> class MeanError(Metric):
        ...     higher_is_better = False
        ...
        ...     def __call__(self, pred, gt, scale):
        ...         return np.abs(pred.astype(float) - gt.astype(float)).mean()
    """

    higher_is_better: ClassVar[bool]
    """Which way is up: the weights of the best value so far are kept. It has no default, as the
    wrong one would keep the worst."""

    @abstractmethod
    def __call__(self, pred: Pixels, gt: Pixels, scale: int) -> float:
        """Return the value for one pair.

        Args:
            pred: (H, W, C), uint8 or uint16, RGB; it must stay as it is.
            gt: of the same shape and dtype.
            scale: upscaling factor, for metrics that leave out a border of so many pixels.

        Returns:
            One finite number; NaN where there is none.
        """


class ClipMetric(ABC):
    """The base class of metrics that look at two neighbouring frames of a clip at a time.

    The value of a clip is the mean over its pairs.
    """

    higher_is_better: ClassVar[bool]
    """Which way is up, see `Metric`."""

    @abstractmethod
    def __call__(self, pred: Sequence[Pixels], gt: Sequence[Pixels], scale: int) -> float:
        """Return the value for (earlier, later) frames, each (H, W, C), all of one shape."""


def as_number(value: object) -> float | None:
    """Return what a metric gave as a float, be it of NumPy or a tensor; None: it is no number."""
    if isinstance(value, str | bytes | complex):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None
