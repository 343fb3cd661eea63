"""What a data set offers: samples for training, uncropped images and clips for validation."""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sr_train.api.errors import DataError, SRTrainError


class SetFile(NamedTuple):
    """Where a frame or image of a data set comes from."""

    path: str
    num_bytes: int
    number: int | None = None
    """Of a frame within a video file."""


class TrainDataset(ABC):
    """The base class of every data set; a place in the config required_inputs for one more method.

    A set to train on needs `__len__` and `sample`, a set to validate on `__len__` and `whole`. All
    else has a default. It must be picklable, and a sample must depend on nothing but the arguments
    and what the constructor was given, which comes from the config.

    Example:
        >>> class Noise(TrainDataset):
        ...     def __init__(self, lq_size=48):
        ...         self.lq_size = lq_size
        ...
        ...     def __len__(self):
        ...         return 1000
        ...
        ...     def sample(self, epoch, index):
        ...         random = torch.Generator().manual_seed(1000 * epoch + index)
        ...         gt = torch.rand(3, 2 * self.lq_size, 2 * self.lq_size, generator=random)
        ...         return {"lq": torch.nn.functional.avg_pool2d(gt, 2), "gt": gt}
    """

    num_frames: int | None = None
    """Frames of a sample, where samples are clips; None: they are images."""

    sample_bytes: int = 0
    """Memory that a sample takes; 0: unknown."""

    extra_channels: Mapping[str, int] = MappingProxyType({})
    """Names of further tensors in a sample, on the grid of `lq`, and their channels."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples in an epoch, or of what `whole` returns."""

    def sample(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Return one sample, e.g. `lq` (3, h, w) and `gt` (3, h * scale, w * scale).

        Values are uint8, uint16, or float in [0, 1]. Of clips, `lq` (T, 3, h, w) and so on; further
        tensors by name, (T, S, h, w).
        """
        raise NotImplementedError

    def whole(self, index: int) -> "WholeImage | WholeClip":
        """Return an uncropped pair, for validation."""
        raise NotImplementedError

    def whole_sizes(self) -> list[tuple[int, int, int]] | None:
        """Return (frames, height, width) on the LQ grid of each `whole`, without reading them.

        `check` tries the network on each of them. None: this is not known.
        """
        return None

    def report(self) -> object:
        """Return what `str()` makes a line or more of for the log: what is used, what is not.

        An attribute `left_out` of it holds what is not used, as a sequence.
        """
        return f"{type(self).__name__}: {len(self)} items"

    def fingerprint(self) -> str:
        """Return a short text, the same for the same data only.

        It goes into the run's manifest, and the processes of a run compare theirs. Here it is
        made of the length and of `gt_files`.
        """
        files = [
            (PurePath(file.path).name, file.num_bytes, file.number) for file in self.gt_files()
        ]
        return hashlib.sha256(repr((len(self), files)).encode()).hexdigest()[:16]

    def verify(self) -> list[str]:
        """Read everything once; return one line for each item that cannot be read."""
        faults = []
        for index in range(len(self)):
            try:
                self._read(index)
            except Exception as err:  # whatever a data set of anybody's raises
                faults.append(f"item {index}: {type(err).__name__}: {err}")
        return faults

    def _read(self, index: int) -> None:
        if getattr(self.whole, "__func__", None) is TrainDataset.whole:
            self.sample(0, index)
            return
        clip = as_clip(self.whole(index))
        for t in range(len(clip)):
            clip.lq(t), clip.gt(t), clip.extras(t)

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
            num_samples: how many samples may be decoded to find out.
        """
        return []

    def gt_files(self) -> list[SetFile]:
        """Return where the ground truth comes from, to compare sets by; nothing if unknown."""
        return []

    def newly_damaged(self) -> list[tuple[str, str]]:
        """Return (path, why) of files found damaged since the last call, in this process.

        Only where the set continues without them and other samples stand in for theirs.
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
            samples = [_sample(self, position) for position in positions]
        else:
            samples = list(pool.map(partial(_sample, self), positions))
        return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def _sample(dataset: TrainDataset, position: tuple[int, int]) -> dict[str, Tensor]:
    try:
        return dataset.sample(*position)
    except SRTrainError:
        raise
    except Exception as err:
        err.add_note(f"sample{position}")  # for whoever names what failed
        raise


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
    """Return a clip as it is, and an image as a clip of one frame without a name.

    Raises:
        DataError: if it is neither.
    """
    if isinstance(whole, WholeClip):
        return whole
    missing = [key for key in ("name", "lq", "gt") if not hasattr(whole, key)]
    if missing:
        raise DataError(
            f"{type(whole).__name__} without {', '.join(missing)}; expected a WholeImage(name, "
            "lq, gt) or a WholeClip of sr_train.api.dataset"
        )
    return ClipInMemory(whole.name, [{"lq": whole.lq, "gt": whole.gt}], [""])


def adopt(dataset: Any) -> TrainDataset:
    """Return a data set as it is, or one of another base class with the defaults it lacks."""
    if isinstance(dataset, TrainDataset):
        return dataset
    kind: type[_Adopted] = type(type(dataset).__name__, (_Adopted,), {})
    return kind(dataset)


class _Adopted(TrainDataset):
    """A data set of another base class."""

    def __init__(self, part: Any) -> None:
        self._part = part
        for name in dir(TrainDataset):
            if not name.startswith("_") and name != "in_ram" and hasattr(part, name):
                setattr(self, name, getattr(part, name))

    def __len__(self) -> int:
        return len(self._part)

    @property
    def in_ram(self) -> bool:
        """Whether samples are cut from memory."""
        return bool(getattr(self._part, "in_ram", False))

    def __getattr__(self, name: str) -> Any:
        if name == "_part":
            raise AttributeError(name)
        return getattr(self._part, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return adopt, (self._part,)
