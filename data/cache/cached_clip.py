"""A whole clip for validation whose frames come from the cache, or from their files."""

from collections.abc import Sequence

import numpy as np

from data.cache.clip_frames import ClipFrames
from sr_train.api.dataset import WholeClip


class CachedClip(WholeClip):
    """An uncropped segment of frames for validation; frames are read when they are asked for."""

    def __init__(
        self, name: str, frame_names: Sequence[str], segment: int, frames: ClipFrames
    ) -> None:
        self.name = name
        """The sequence's path below the root, with `/`; see `data.index.sequences.Segment`."""
        self._frame_names = frame_names
        self._segment = segment
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frame_names)

    def frame_name(self, t: int) -> str:
        """Return the name of frame t: that of its GT file, without suffix."""
        return self._frame_names[t]

    def lq(self, t: int) -> np.ndarray:
        return self._part(t, "lq")

    def gt(self, t: int) -> np.ndarray:
        return self._part(t, "gt")

    def extras(self, t: int) -> dict[str, np.ndarray]:
        """Return the further inputs by name, each (h, w, S) of its file's dtype, as views."""
        return {name: np.moveaxis(self._part(t, name), 0, -1) for name in self._frames.extras}

    def _part(self, t: int, name: str) -> np.ndarray:
        if not 0 <= t < len(self):
            raise IndexError(f"{self.name}: frame {t} of {len(self)}")
        return self._frames.part(self._segment, t, name)
