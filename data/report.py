"""The report of an image set: what will be used, what not and why, and what memory it takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.cache.frame_cache import FrameCache
from data.index.pairs import Entry, Index
from sr_train.api.text import one_line
from sr_train.utils.memory import available_bytes

_SHOWN = 10
_GIB = 1 << 30


@dataclass(frozen=True)
class Report:
    """Facts about an image set, from headers only; `str()` is for people."""

    name: str
    images: int
    """Usable ground-truth images."""
    pairs: int
    """Of these, how many have an LQ file; the others get theirs by bicubic resizing."""
    scale: int
    min_size: tuple[int, int]
    """Smallest GT height and smallest GT width in pixels, not necessarily of one image."""
    max_size: tuple[int, int]
    """Largest GT height and largest GT width in pixels."""
    decoded_bytes: int
    """Memory that all images take when decoded, LQ and GT."""
    is_16_bit: bool
    """Some image is 16 bit, so every sample is uint16; 8-bit values are multiplied by 257."""
    with_alpha: int
    """GT and LQ files with alpha, which is ignored: the colours count as stored."""
    cropped: int
    """GT images that lose right columns or bottom rows to become a multiple of the scale."""
    cached: int
    """Images with a place in the RAM cache; the others are decoded at every access."""
    cache_bytes: int
    """Memory of the cache when it is full."""
    cache_is_shared: bool
    """Another process of this machine has that memory already, so it costs nothing here."""
    free_bytes: int
    """Memory that the machine and the container leave at this time."""
    ignored: dict[str, int]
    """Files that are no images, by suffix."""
    left_out: list[tuple[str, str]]
    """(path, why)"""

    def __str__(self) -> str:
        small, large = self.min_size, self.max_size
        kind = "16 bit" if self.is_16_bit else "8 bit"
        lines = [
            f"{one_line(self.name)}: {self.images} images, {self.pairs} with an LQ file, "
            f"x{self.scale}, {kind}, {small[1]}x{small[0]} to {large[1]}x{large[0]} pixels",
            f"  in memory: {self.cached} of {self.images} images, "
            f"{self.cache_bytes / _GIB:.2f} of {self.decoded_bytes / _GIB:.2f} GiB"
            + (" of another process" if self.cache_is_shared else "")
            + ("" if self.cached == self.images else "; the others are decoded at every access")
            + f"; {self.free_bytes / _GIB:.2f} GiB are free",
        ]
        if self.with_alpha:
            lines.append(f"  alpha ignored in {self.with_alpha} files")
        if self.cropped:
            lines.append(f"  {self.cropped} GT cropped at right and bottom to fit the scale")
        if self.ignored:
            lines.append(f"  not images, ignored: {told_kinds(self.ignored)}")
        if self.left_out:
            lines.append(f"  left out: {len(self.left_out)}")
            lines += [f"    {one_line(f'{path}: {why}')}" for path, why in self.left_out[:_SHOWN]]
            if len(self.left_out) > _SHOWN:
                lines.append(f"    ... and {len(self.left_out) - _SHOWN} more")
        return "\n".join(lines)


def told_kinds(ignored: Mapping[str, int]) -> str:
    """Return files that were ignored by kind, the first kinds of many."""
    kinds = [f"{count} {one_line(suffix)}" for suffix, count in ignored.items()]
    more = f", ... {len(kinds) - _SHOWN} more kinds" if len(kinds) > _SHOWN else ""
    return ", ".join(kinds[:_SHOWN]) + more


def make_report(
    name: str, index: Index, scale: int, store: FrameCache, decoded_bytes: int
) -> Report:
    """Sum up an index and its cache."""
    entries = index.entries
    headers = [
        header for entry in entries for header in (entry.gt_header, entry.lq_header) if header
    ]
    return Report(
        name=name,
        images=len(entries),
        pairs=sum(entry.lq is not None for entry in entries),
        scale=scale,
        min_size=_extreme(entries, smallest=True),
        max_size=_extreme(entries, smallest=False),
        decoded_bytes=decoded_bytes,
        is_16_bit=any(header.dtype == "uint16" for header in headers),
        with_alpha=sum(header.has_alpha for header in headers),
        cropped=sum(
            (entry.gt_header.height, entry.gt_header.width)
            != (entry.lq_height * scale, entry.lq_width * scale)
            for entry in entries
        ),
        cached=store.num_held,
        cache_bytes=store.num_bytes,
        cache_is_shared=store.shared,
        free_bytes=available_bytes(),
        ignored=dict(Counter(index.ignored).most_common()),
        left_out=list(index.left_out),
    )


def _extreme(entries: Sequence[Entry], smallest: bool) -> tuple[int, int]:
    choose = min if smallest else max
    return (
        choose(entry.gt_header.height for entry in entries),
        choose(entry.gt_header.width for entry in entries),
    )
