"""Find the files in what a user names: files and folders, linked ones too, no earlier results.

Nothing is opened. What cannot be used, such as a broken link or a folder that may not be entered,
is listed, and the rest is found.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sr_train.api.errors import DataError, did_you_mean
from sr_train.io.folders import file_status, kinds_in_words, natural_key, walk
from sr_train.io.suffixes import is_image_file, is_video_file, suffix_of


@dataclass(frozen=True)
class Found:
    """A file, and where its result lies below the output folder."""

    path: Path
    relative: Path
    """Below the folder it was found in; after that folder's own name where several were named."""
    is_named: bool = False
    """Whether the user named the file itself; it is then taken for what it is said to be."""

    @property
    def is_video(self) -> bool:
        """Return whether its name is that of a video."""
        return is_video_file(self.path)

    @property
    def is_image(self) -> bool:
        """Return whether its name is that of an image, or it was named and is no video."""
        return is_image_file(self.path) or (self.is_named and not self.is_video)


@dataclass
class Finds:
    """What was found."""

    files: list[Found] = field(default_factory=list)
    """In natural order within each input; each once."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """What is there, but cannot be used, and why."""
    results: list[Path] = field(default_factory=list)
    """Folders with files that were left out, as the results go there."""
    looked: list[str] = field(default_factory=list)
    """A few words on each folder that was searched."""


def find(inputs: Sequence[Path], output: Path) -> Finds:
    """Return the files that inputs name or hold.

    Args:
        inputs: files, and folders that are searched through.
        output: folder or file of the results. A folder that lies below an input, if through a link,
            is left out of it; one that is an input, or holds it, is not.

    Raises:
        DataError: an input that does not exist.
    """
    finds = Finds()
    roots = [Path(given).expanduser() for given in inputs]
    labels = iter(_labels([root for root in roots if root.is_dir()]))
    taken: set[str] = set()
    for root in roots:
        if root.is_dir():
            found = _in_folder(root, next(labels), output, finds)
        elif root.is_file():
            found = [Found(root, Path(root.name), is_named=True)]
        else:
            raise DataError(missing(root))
        for each in found:
            place = os.path.abspath(each.path)
            if place not in taken:
                taken.add(place)
                finds.files.append(each)
    return finds


def _labels(folders: Sequence[Path]) -> list[Path]:
    """Return what the results of each folder lie below: its own name, where there are several."""
    if len(folders) <= 1:
        return [Path()] * len(folders)
    labels: list[Path] = []
    for folder in folders:
        name = folder.resolve().name or "root"
        label, number = Path(name), 2
        while label in labels:
            label, number = Path(f"{name}_{number}"), number + 1
        labels.append(label)
    return labels


def _in_folder(root: Path, label: Path, output: Path, finds: Finds) -> list[Found]:
    """Return what lies below a folder, but for an output folder in it."""
    own, place = output.resolve(), root.resolve()
    has_results = own not in (place, *place.parents)
    found: list[Found] = []
    unusable: list[tuple[Path, str]] = []
    for folder, names in walk(root, lambda path, why: unusable.append((Path(path), why))):
        here = Path(folder)
        if has_results:
            resolved = here.resolve()
            if own == resolved or own in resolved.parents:
                finds.results += [here] if names else []
                continue
            names = [name for name in names if resolved / name != own]
        for name in names:
            path = here / name
            status = file_status(path)
            if not isinstance(status, str):
                found.append(Found(path, label / path.relative_to(root)))
            elif is_image_file(path) or is_video_file(path):
                unusable.append((path, status))
    finds.failed += unusable
    finds.looked.append(f"{root.absolute()} ({contents([each.path for each in found])})")
    return sorted(found, key=lambda each: natural_key(str(each.relative)))


def missing(path: Path) -> str:
    """Return what to say about an input that does not exist."""
    parent = path.absolute().parent
    if path.exists():
        return f"input {path.absolute()} is neither a file nor a folder"
    if not parent.is_dir():
        return f"input {path.absolute()} does not exist, nor does {parent}"
    try:
        near = did_you_mean(path.name, (entry.name for entry in parent.iterdir()))
    except OSError:
        near = ""
    return f"input {path.absolute()} does not exist{near}"


def contents(files: Sequence[Path]) -> str:
    """Return a few words about what a folder holds."""
    if not files:
        return "empty"
    return f"{len(files)} files: {kinds_in_words(Counter(map(suffix_of, files)))}"
