"""The index of an image set: which files are used, as which pair, and which are not and why.

Made once, from names and headers only; no pixel is decoded.
"""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from data.index.folders import FoundFile, Listing, check_counts, list_folder, root_labels
from data.index.requirements import Requirements
from data.index.segments import Frame, Index, make_segment, make_tracks, read_headers
from data.index.selecting import some
from sr_train.api.errors import DataError
from sr_train.io.folders import natural_key


def index_pairs(gt: Sequence[Path], lq: Sequence[Path] | None, requirements: Requirements) -> Index:
    """Scan the roots, pair by name, read every header, check every size.

    An LQ image belongs to the GT image of the same path below the root without suffix. Where
    there is none, the usual published names are accepted: for `baby` at x2 also `babyx2`,
    `babyX2` and `baby_x2`. A GT up to scale - 1 pixels larger than scale times the LQ is
    cropped at its right and bottom.

    Args:
        gt: absolute roots.
        lq: as many roots, in the same order; None: the LQ is made from the GT.
        requirements: what the images must be.

    Raises:
        DataError: a root that is empty or has no partner at all, or patterns that leave nothing.
    """
    if lq is not None:
        check_counts({"gt": gt, "lq": lq})
    index = Index()
    listings = [
        (_listed(root, index), label) for root, label in zip(gt, root_labels(gt), strict=True)
    ]
    names = {
        file.path: _names(file, label) for listing, label in listings for file in listing.files
    }
    chosen, lacking = requirements.selection.chosen(names, "images")
    index.left_out += lacking
    pairs: list[tuple[str, FoundFile, FoundFile | None]] = []
    for number, (listing, label) in enumerate(listings):
        files = [file for file in listing.files if file.path in chosen]
        partners: Mapping[str, FoundFile | None] = {file.path: None for file in files}
        if lq is not None:
            others = _listed(lq[number], index)
            _check_apart(files, listing.root, others)
            partners = _pair(listing, others, chosen, requirements, index)
        for file in _without_twins(files, index):
            if file.path in partners:
                pairs.append((label + file.relative, file, partners[file.path]))
    _add_segments(pairs, requirements, index)
    return index


def _names(file: FoundFile, label: str = "") -> list[str]:
    """Return the names of an image that patterns may match, the plainest first."""
    names = [file.relative + file.suffix, file.relative]
    return [*names, *(label + name for name in names)] if label else names


def _check_apart(files: Sequence[FoundFile], root: Path, lq: Listing) -> None:
    """Raise where images are both GT and LQ: the same folder, or one inside the other."""
    gt_root, lq_root = root.resolve(), lq.root.resolve()
    if lq_root == gt_root:
        raise DataError(f"{root}: the same folder is given as gt and as lq")
    if not (lq_root.is_relative_to(gt_root) or gt_root.is_relative_to(lq_root)):
        return
    both = {str(gt_root / _names(file)[0]) for file in files}
    both &= {str(lq_root / _names(file)[0]) for file in lq.files}
    if both:
        raise DataError(
            f"{len(both)} images are in gt ({root}) and in lq ({lq.root}), such as {min(both)}; "
            "expected two folders of which none holds the other"
        )


def _listed(root: Path, index: Index) -> Listing:
    listing = list_folder(root)
    index.ignored += listing.ignored
    index.left_out += listing.bad
    return listing


def _without_twins(files: Sequence[FoundFile], index: Index) -> list[FoundFile]:
    """Leave out files that differ in nothing but their suffix: no name may mean two images."""
    same: dict[str, list[FoundFile]] = {}
    for file in files:
        same.setdefault(file.relative, []).append(file)
    for twins in same.values():
        for file in twins[1:]:
            index.left_out.append((file.path, f"same name as {twins[0].path}; keep one"))
        if len(twins) > 1:
            index.left_out.append((twins[0].path, f"same name as {twins[1].path}; keep one"))
    return [twins[0] for twins in same.values() if len(twins) == 1]


def _variants(relative: str, scale: int) -> list[str]:
    return [relative, f"{relative}x{scale}", f"{relative}X{scale}", f"{relative}_x{scale}"]


def _pair(
    gt: Listing, lq: Listing, chosen: Container[str], requirements: Requirements, index: Index
) -> dict[str, FoundFile]:
    """Return the LQ file of each GT path; what finds no partner, or two, is left out.

    Args:
        gt: all files, since each may take a name away from others.
        lq: their partners.
        chosen: paths of the GT files that are used.
        requirements: says which LQ files without partner are worth a word, and the scale.
        index: gets what is left out.
    """
    candidates = {file.relative: file for file in _without_twins(lq.files, index)}
    lq_names = {file.relative for file in lq.files}
    gt_names = {file.relative for file in gt.files}
    taken: set[str] = set()
    partners: dict[str, FoundFile] = {}
    problems: list[tuple[str, str]] = []
    for file in gt.files:
        tried = _variants(file.relative, requirements.scale)
        # A name that another GT has exactly is that one's partner.
        names = [
            name
            for name in tried
            if name in lq_names and (name == file.relative or name not in gt_names)
        ]
        taken.update(names)
        if len(names) == 1 and names[0] in candidates:
            partners[file.path] = candidates[names[0]]
        elif len(names) > 1 and file.path in chosen:
            found = ", ".join(f"{lq.root}/{name}" for name in names)
            problems.append((file.path, f"ambiguous partner: found {found}; keep one"))
        elif not names and file.path in chosen:
            why = f"no partner in {lq.root}; looked for {', '.join(tried)}"
            problems.append((file.path, why))
    if not taken:
        found = some([file.relative for file in lq.files])
        others = (
            name for file in lq.files for name in _variants(file.relative, requirements.scale)
        )
        hint = "; are gt and lq swapped?" if any(name in gt_names for name in others) else ""
        raise DataError(
            f"{lq.root}: no image here belongs to one in {gt.root}; found {found}; expected "
            f"names such as {', '.join(_variants(gt.files[0].relative, requirements.scale))}{hint}"
        )
    index.left_out += problems
    selection = requirements.selection
    index.left_out += [
        (file.path, f"no partner in {gt.root}")
        for file in lq.files
        if file.relative not in taken
        and selection.list_file is None
        and selection.selects(_names(file))
    ]
    return partners


def _add_segments(
    pairs: Sequence[tuple[str, FoundFile, FoundFile | None]],
    requirements: Requirements,
    index: Index,
) -> None:
    """Read all headers and put each pair among the segments or among those left out."""
    frames = [
        {"gt": (Frame(gt),)} if lq is None else {"gt": (Frame(gt),), "lq": (Frame(lq),)}
        for _, gt, lq in pairs
    ]
    headers = read_headers([frame for each in frames for (frame,) in each.values()])
    for (name, gt, _), each in zip(pairs, frames, strict=True):
        tracks = make_tracks(each, headers, requirements)
        if isinstance(tracks, dict):
            index.segments.append(make_segment(name, gt.path, ("",), tracks, requirements.scale))
        else:
            index.left_out += tracks
    index.left_out.sort(key=lambda item: natural_key(item[0]))
