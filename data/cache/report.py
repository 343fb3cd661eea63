"""Reports of data sets: what is used, what not and why, and what memory it takes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data.cache.clip_frames import CacheFacts
from data.index.frame_files import FrameHeader
from data.index.segments import IMAGES, Fault, Index
from data.index.sequences import SequenceIndex
from sr_train.api.text import first_few, one_line
from sr_train.io.folders import kinds_in_words

_SHOWN = 10
_GIB = 1 << 30


@dataclass(frozen=True)
class Report:
    """Facts about a data set, from names and headers only; `str()` is for people."""

    name: str
    scale: int
    index: Index
    cache: CacheFacts

    @property
    def is_16_bit(self) -> bool:
        """Whether some image is, so that every sample is uint16; 8-bit values times 257."""
        return any(header.dtype == "uint16" for header in self._headers())

    @property
    def left_out(self) -> list[Fault]:
        """Return (path, why) of files that cannot be used."""
        return list(self.index.left_out)

    @property
    def depth(self) -> str:
        """In words."""
        return "16 bit" if self.is_16_bit else "8 bit"

    def _headers(self) -> list[FrameHeader]:
        """Return the headers of all images."""
        segments = self.index.segments
        return [
            segment.tracks[m].header for segment in segments for m in IMAGES if m in segment.tracks
        ]

    def _gt_headers(self) -> list[FrameHeader]:
        return [segment.tracks["gt"].header for segment in self.index.segments]

    def _in_memory(self, unit: str) -> str:
        """Return a line about the cache, whose records are called `unit`."""
        cache = self.cache
        verb = "decoded" if cache.mode == "decoded" else "read"
        return (
            f"  in memory ({cache.mode}): {cache.held} of {cache.records} {unit}, "
            f"{cache.num_bytes / _GIB:.2f} of {cache.wanted_bytes / _GIB:.2f} GiB"
            + (" of another process" if cache.is_shared else "")
            + ("" if cache.held == cache.records else f"; the others are {verb} at every access")
            + f"; {cache.free_bytes / _GIB:.2f} GiB are free"
        )

    def _rest(self, unit: str) -> list[str]:
        """Return lines about what is not used, since it is no `unit` or cannot be."""
        ignored = self.index.ignored
        lines = [f"  not {unit}, ignored: {kinds_in_words(ignored, _SHOWN)}"] if ignored else []
        return lines + _some("left out", [f"{path}: {why}" for path, why in self.left_out])


@dataclass(frozen=True)
class ImageReport(Report):
    """Of a set of images."""

    @property
    def images(self) -> int:
        """Usable ground-truth images."""
        return len(self.index.segments)

    @property
    def pairs(self) -> int:
        """Of these, how many have an LQ file; the others get theirs by bicubic resizing."""
        return sum("lq" in segment.tracks for segment in self.index.segments)

    @property
    def min_size(self) -> tuple[int, int]:
        """Smallest GT height and smallest GT width in pixels, not necessarily of one image."""
        headers = self._gt_headers()
        return min(h.height for h in headers), min(h.width for h in headers)

    @property
    def max_size(self) -> tuple[int, int]:
        """Largest GT height and largest GT width in pixels."""
        headers = self._gt_headers()
        return max(h.height for h in headers), max(h.width for h in headers)

    @property
    def with_alpha(self) -> int:
        """GT and LQ files with alpha, which is ignored: the colours count as stored."""
        return sum(header.has_alpha for header in self._headers())

    @property
    def cropped(self) -> int:
        """GT images that lose right columns or bottom rows to become a multiple of the scale."""
        return sum(h.height % self.scale + h.width % self.scale > 0 for h in self._gt_headers())

    def __str__(self) -> str:
        small, large = self.min_size, self.max_size
        lines = [
            f"{one_line(self.name)}: {self.images} images, {self.pairs} with an LQ file, "
            f"x{self.scale}, {self.depth}, {small[1]}x{small[0]} to {large[1]}x{large[0]} pixels",
            self._in_memory("images"),
        ]
        if self.with_alpha:
            lines.append(f"  alpha ignored in {self.with_alpha} files")
        if self.cropped:
            lines.append(f"  {self.cropped} GT cropped at right and bottom to fit the scale")
        return "\n".join([*lines, *self._rest("images")])


@dataclass(frozen=True)
class ClipReport(Report):
    """Of a set of clips."""

    index: SequenceIndex
    clips: int | None
    """In an epoch; None: for validation only."""

    @property
    def frames(self) -> int:
        """In all segments."""
        return sum(map(len, self.index.segments))

    @property
    def lq(self) -> str:
        """Where the LQ comes from."""
        has_lq = any("lq" in segment.tracks for segment in self.index.segments)
        return "from files" if has_lq else "made by bicubic"

    @property
    def extras(self) -> dict[str, str]:
        """Channels and dtype of each further input."""
        return {
            modality: f"{track.header.channels} channels of {track.header.dtype}"
            + (f" ({track.header.stored} in the files)" if track.header.stored else "")
            for modality, track in self.index.segments[0].tracks.items()
            if modality not in IMAGES
        }

    @property
    def with_alpha(self) -> int:
        """Segments with images that have alpha, which is ignored."""
        tracks = [segment.tracks.values() for segment in self.index.segments]
        return sum(any(track.header.has_alpha for track in each) for each in tracks)

    def __str__(self) -> str:
        index, lengths = self.index, list(map(len, self.index.segments))
        counts = Counter(f"{h.width}x{h.height}" for h in self._gt_headers()).most_common()
        sizes = ", ".join(f"{count} of {size}" for size, count in counts)
        clips = "" if self.clips is None else f", {self.clips} clips"
        scenes = [
            f"{name}: {len(each)} scenes, {first_few(each, 3)}"
            for name, each in index.scenes.items()
        ]
        short = [f"{name}: {count} frames" for name, count in index.too_short]
        gaps = [f"{name}: {where}" for name, where in index.gaps]
        lines = [
            f"{one_line(self.name)}: {index.num_sequences} sequences, {self.frames} frames{clips}, "
            f"x{self.scale}, LQ {self.lq}, {self.depth}",
            f"  sizes: {sizes}; {min(lengths)} to {max(lengths)} frames in a segment",
            self._in_memory("frames" if self.cache.mode == "decoded" else "files"),
            *(f"  input {name}: {kind}" for name, kind in self.extras.items()),
        ]
        if self.with_alpha:
            lines.append(f"  alpha ignored in {self.with_alpha} segments")
        lines += [
            *_some("folders with several scenes, by the names of their frames", scenes),
            *_some(f"too short for clips that span {index.span} frames", short),
            *_some("gaps in the numbering, which no clip crosses", gaps),
        ]
        return "\n".join([*lines, *self._rest("frames")])


def _some(what: str, items: Sequence[str]) -> list[str]:
    """Return lines that count items and name the first of them."""
    if not items:
        return []
    lines = [f"  {what}: {len(items)}", *(f"    {one_line(item)}" for item in items[:_SHOWN])]
    return [*lines, f"    ... and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else lines
