"""The report of a clip set: what is used, what is too short or left out, and the cache's need."""

from collections import Counter
from dataclasses import dataclass

from data.cache.clip_frames import CacheFacts
from data.index.sequences import SequenceIndex
from data.report import told_kinds
from sr_train.api.text import one_line
from sr_train.utils.memory import available_bytes

_SHOWN = 10
_GIB = 1 << 30


@dataclass(frozen=True)
class ClipReport:
    """Facts about a clip set, from names and headers only; `str()` is for people."""

    name: str
    sequences: int
    """Usable ones."""
    segments: int
    """Parts of them without a gap in their numbering."""
    frames: int
    """In all segments."""
    clips: int | None
    """In an epoch; None: for validation only."""
    clip_frames: int
    """From the first to the last frame of a clip."""
    scale: int
    lq: str
    """`from files` or `made by bicubic`."""
    extras: dict[str, str]
    """Channels and dtype of each further input."""
    sizes: dict[str, int]
    """Sequences by the size of their GT."""
    counts: tuple[int, int]
    """Frames of the shortest and of the longest segment."""
    is_16_bit: bool
    with_alpha: int
    """Runs with images that have alpha, which is ignored."""
    cache: str
    """`decoded` or `encoded`."""
    cached: int
    """Of `cache_records` with a place in the RAM cache; the others are read at every access."""
    cache_records: int
    """Frames or, of the cache `encoded`, files."""
    cache_bytes: int
    """Memory of the cache when it is full."""
    wanted_bytes: int
    """Memory that a cache of everything would take."""
    available_bytes: int
    """What the machine and its limits leave now."""
    too_short: list[tuple[str, int]]
    """(name, frames) of segments with fewer frames than a clip spans."""
    gaps: list[tuple[str, str]]
    """(sequence, where) of gaps in numberings, which no clip crosses."""
    scenes: dict[str, list[str]]
    """Folder -> sequences, where the names of frames show that it holds several scenes."""
    ignored: dict[str, int]
    """Files that are no frames, by suffix."""
    left_out: list[tuple[str, str]]
    """(path, why)"""

    def __str__(self) -> str:
        kind = "16 bit" if self.is_16_bit else "8 bit"
        sizes = ", ".join(f"{count} of {size}" for size, count in self.sizes.items())
        low, high = self.counts
        clips = "" if self.clips is None else f", {self.clips} clips"
        what = "frames" if self.cache == "decoded" else "files"
        lines = [
            f"{one_line(self.name)}: {self.sequences} sequences, {self.frames} frames{clips}, "
            f"x{self.scale}, LQ {self.lq}, {kind}",
            f"  sizes: {sizes}; {low} to {high} frames in a segment",
            f"  in memory ({self.cache}): {self.cached} of {self.cache_records} {what}, "
            f"{self.cache_bytes / _GIB:.2f} of {self.wanted_bytes / _GIB:.2f} GiB"
            + ("" if self.cached == self.cache_records else "; the others are read every time")
            + f"; {self.available_bytes / _GIB:.2f} GiB available",
        ]
        lines += [f"  input {name}: {kind}" for name, kind in self.extras.items()]
        if self.with_alpha:
            lines.append(f"  alpha ignored in {self.with_alpha} segments")
        scenes = [
            f"{name}: {len(each)} scenes, {_names(each)}" for name, each in self.scenes.items()
        ]
        lines += _some("folders with several scenes, by the names of their frames", scenes)
        short = [f"{name}: {count} frames" for name, count in self.too_short]
        lines += _some(f"too short for clips that span {self.clip_frames} frames", short)
        gaps = [f"{name}: {where}" for name, where in self.gaps]
        lines += _some("gaps in the numbering, which no clip crosses", gaps)
        if self.ignored:
            lines.append(f"  not frames, ignored: {told_kinds(self.ignored)}")
        lines += _some("left out", [f"{path}: {why}" for path, why in self.left_out])
        return "\n".join(lines)


def _names(scenes: list[str]) -> str:
    return ", ".join(scenes[:3]) + (", ..." if len(scenes) > 3 else "")


def _some(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    lines = [f"  {what}: {len(items)}", *(f"    {one_line(item)}" for item in items[:_SHOWN])]
    return [*lines, f"    ... and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else lines


def make_clip_report(
    name: str,
    index: SequenceIndex,
    scale: int,
    clips: int | None,
    clip_frames: int,
    cache: CacheFacts,
) -> ClipReport:
    """Sum up an index and its cache."""
    segments = index.segments
    with_lq = sum("lq" in segment.tracks for segment in segments)
    headers = [
        segment.tracks[m].header
        for segment in segments
        for m in ("gt", "lq")
        if m in segment.tracks
    ]
    gts = [segment.tracks["gt"].header for segment in segments]
    extras = {
        modality: f"{track.header.channels} channels of {track.header.dtype}"
        + (f" ({track.header.stored} in the files)" if track.header.stored else "")
        for modality, track in segments[0].tracks.items()
        if modality not in ("gt", "lq")
    }
    counts = [len(segment) for segment in segments]
    return ClipReport(
        name=name,
        sequences=index.num_sequences,
        segments=len(segments),
        frames=sum(counts),
        clips=clips,
        clip_frames=clip_frames,
        scale=scale,
        lq="from files" if with_lq else "made by bicubic",
        extras=extras,
        sizes=dict(Counter(f"{h.width}x{h.height}" for h in gts).most_common()),
        counts=(min(counts), max(counts)),
        is_16_bit=any(header.dtype == "uint16" for header in headers),
        with_alpha=sum(
            any(track.header.has_alpha for track in segment.tracks.values()) for segment in segments
        ),
        cache=cache.mode,
        cached=cache.held,
        cache_records=cache.records,
        cache_bytes=cache.num_bytes,
        wanted_bytes=cache.wanted_bytes,
        available_bytes=available_bytes(),
        too_short=list(index.too_short),
        gaps=list(index.gaps),
        scenes=dict(index.scenes),
        ignored=dict(Counter(index.ignored).most_common()),
        left_out=list(index.left_out),
    )
