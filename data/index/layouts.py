"""From the arguments of a clip set to the sequences that lie there."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from data.index.arguments import Texts, mapping, texts
from data.index.folders import check_counts, resolve_roots, root_labels, root_name
from data.index.tracks import Found, find_nested, find_parallel
from sr_train.api.errors import DataError, did_you_mean


def find_sequences(
    gt: Texts | None,
    lq: Texts | None,
    extras: Mapping[str, Texts] | None,
    root: Texts | None,
    split: str | None,
    modalities: Mapping[str, str] | None,
) -> tuple[str, list[tuple[str, Found]]]:
    """Return the first root's name, and what lies below each with what its names begin with.

    Arguments are those of `ClipDataset`.

    Raises:
        DataError: arguments that do not go together, or a folder that is missing or empty.
    """
    if (gt is None) == (root is None):
        raise DataError("give either gt (with lq and extras), or root with modalities")
    if gt is None:
        if lq is not None or extras:
            raise DataError("lq and extras go with gt; with root, name them in modalities")
        return _found_nested(root or (), split, modalities)
    if split is not None or modalities:
        raise DataError("split and modalities go with root, not with gt")
    more = mapping("extras", extras, "{spikes: FOLDER}")
    named = {"gt": gt, **({"lq": lq} if lq is not None else {}), **more}
    roots = {modality: resolve_roots(modality, each) for modality, each in named.items()}
    _check_roots(roots)
    found = []
    for number, label in enumerate(root_labels(roots["gt"])):
        here = {modality: each[number] for modality, each in roots.items()}
        found.append((label, find_parallel(here)))
    return root_name(roots["gt"][0]), found


def _check_roots(roots: Mapping[str, Sequence[Path]]) -> None:
    """Raise where roots are not as many for each modality, or the same folder for two."""
    check_counts(roots)
    places: dict[Path, str] = {}
    for modality, each in roots.items():
        for path in each:
            other = places.setdefault(path.resolve(), modality)
            if other != modality:
                raise DataError(f"{path}: the same folder is given as {other} and as {modality}")


def _found_nested(
    root: Texts, split: str | None, modalities: Mapping[str, str] | None
) -> tuple[str, list[tuple[str, Found]]]:
    given = mapping("modalities", modalities, "{lq: blur, gt: sharp}")
    folders = {
        modality: texts(f"modalities.{modality}", folder)[0].strip("/")
        for modality, folder in given.items()
    }
    if "gt" not in folders:
        hint = did_you_mean("gt", folders) if folders else ""
        raise DataError(f"root needs modalities with the folder of gt, got {folders}{hint}")
    if len(set(folders.values())) < len(folders):
        raise DataError(f"modalities: two of {folders} are the same folder")
    named = texts("root", root)
    roots = resolve_roots(
        "root", [f"{text.rstrip('/')}/{split}" if split else text for text in named]
    )
    labels = root_labels([Path(text) for text in named] if split else roots)
    return Path(named[0]).absolute().name, [
        (label, find_nested(base, folders)) for label, base in zip(labels, roots, strict=True)
    ]
