"""What a data set offers: samples for training, uncropped images and clips for validation."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


class SetFile(NamedTuple):
    """Where a frame or image of a data set comes from."""

    path: str
    num_bytes: int
    number: int | None = None
    """Of a frame within a video file."""


class TrainDataset(ABC):
    """Samples by (epoch, index); the base class of every training set.

    A set of one's own needs `__len__` and `sample`. It must be picklable, and a sample must
    depend on nothing but the arguments and what the constructor was given.
    """

    num_frames: int | None = None
    """Frames of a sample, where samples are clips; None: they are images."""

    sample_bytes: int = 0
    """Memory that a sample takes; 0: unknown."""

    extra_channels: Mapping[str, int] = MappingProxyType({})
    """Names of further tensors in a sample, on the grid of `lq`, and their channels."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples in an epoch."""

    @abstractmethod
    def sample(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Return one sample, e.g. `lq` (3, h, w) and `gt` (3, h * scale, w * scale), uint8.

        Of clips, `lq` (T, 3, h, w) and so on; further tensors by name, (T, S, h, w).
        """

    @property
    def in_ram(self) -> bool:
        """Whether samples are cut from memory, so that worker processes would only cost."""
        return False

    def fill(
        self,
        progress: Callable[[int, int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Load into memory what has a place there, beside a training that runs; none here.

        Args:
            progress: called with (done, in all) of what had to be loaded, from any thread.
            stop: ends it soon once it is set.

        Raises:
            DataError: a file is damaged.
        """
        return

    def cached(self) -> str:
        """Return in words what is in memory now, for the log."""
        return "nothing is kept in memory"

    def warnings(self, num_samples: int = 8) -> list[str]:
        """Return one line for each thing that makes one doubt the set, though it can be used.

        Args:
            num_samples: how many samples may be decoded to tell.
        """
        return []

    def gt_files(self) -> list[SetFile]:
        """Return where the ground truth comes from, to compare sets by; nothing if unknown."""
        return []

    def newly_damaged(self) -> list[tuple[str, str]]:
        """Return (path, why) of files found damaged since the last call, in this process.

        Only where the set goes on without them and other samples stand in for theirs.
        """
        return []

    def batch(
        self, positions: Sequence[tuple[int, int]], pool: Executor | None = None
    ) -> dict[str, Tensor]:
        """Return the samples of some (epoch, index) stacked along a new first axis.

        Args:
            positions: the samples wanted, in order.
            pool: threads that may make them side by side; None: one after the other.
        """
        if pool is None:
            samples = [self.sample(*position) for position in positions]
        else:
            samples = list(pool.map(partial(_sample, self), positions))
        return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def _sample(dataset: TrainDataset, position: tuple[int, int]) -> dict[str, Tensor]:
    return dataset.sample(*position)


@dataclass(frozen=True)
class WholeImage:
    """An uncropped pair, as a validation set hands it out."""

    name: str
    """Path below the root, with `/`, without suffix."""
    lq: np.ndarray
    """(h, w, 3), uint8 or uint16, RGB; may be read-only."""
    gt: np.ndarray
    """(h * scale, w * scale, 3), of the same dtype; may be read-only."""


@runtime_checkable
class WholeClip(Protocol):
    """An uncropped pair of clips, as a validation set hands it out; frames are read when asked for.

    A class of one's own may have this one as its base, or the same methods.
    """

    name: str
    """Of the clip within its set."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of frames."""

    @abstractmethod
    def lq(self, t: int) -> np.ndarray:
        """Return frame t, (h, w, 3), uint8 or uint16, RGB; may be read-only.

        Raises:
            DataError: a file is damaged, or was changed since it was indexed.
        """

    @abstractmethod
    def gt(self, t: int) -> np.ndarray:
        """Return (h * scale, w * scale, 3) of the same dtype; may be read-only."""

    def frame_name(self, t: int) -> str:
        """Return the name of frame t within the clip; its number here."""
        return str(t)

    def extras(self, t: int) -> Mapping[str, np.ndarray]:
        """Return the further inputs by name, each (h, w, S); none here."""
        return {}


class ClipInMemory(WholeClip):
    """A clip whose frames are there already."""

    def __init__(
        self, name: str, frames: Sequence[Mapping[str, np.ndarray]], frame_names: Sequence[str]
    ) -> None:
        """Hold the frames.

        Args:
            name: of the clip.
            frames: `lq`, `gt` and the further inputs of each frame, (h, w, C).
            frame_names: as many; the one of a still image is empty.
        """
        self.name = name
        self._frames = frames
        self._frame_names = frame_names

    def __len__(self) -> int:
        return len(self._frames)

    def lq(self, t: int) -> np.ndarray:
        return self._frames[t]["lq"]

    def gt(self, t: int) -> np.ndarray:
        return self._frames[t]["gt"]

    def frame_name(self, t: int) -> str:
        return self._frame_names[t]

    def extras(self, t: int) -> Mapping[str, np.ndarray]:
        return {key: value for key, value in self._frames[t].items() if key not in {"lq", "gt"}}


class ClipsInMemory:
    """A few clips as a validation set."""

    def __init__(self, clips: Sequence[WholeClip]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def whole(self, index: int) -> WholeClip:
        """Return a clip."""
        return self._clips[index]


def as_clip(whole: WholeImage | WholeClip) -> WholeClip:
    """Return a clip as it is, and an image as a clip of one frame without a name."""
    if isinstance(whole, WholeClip):
        return whole
    return ClipInMemory(whole.name, [{"lq": whole.lq, "gt": whole.gt}], [""])
