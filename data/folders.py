"""Folders of pictures: where they are, and which files lie in them."""

import importlib.util
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sr_train.ops.errors import DataError, did_you_mean
from sr_train.ops.folders import natural_key, walk
from sr_train.ops.image_io import SUFFIXES

_PACKAGE_PREFIX = "pkg://"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file with a picture's suffix, or with one of those that were looked for."""

    path: str
    """Absolute."""
    relative: str
    """Below the root, with `/`, without suffix: what pictures are paired and named by."""
    suffix: str
    """As written, e.g. `.PNG`."""
    num_bytes: int
    mtime_ns: int

    @property
    def stem(self) -> str:
        """The file's own name without suffix."""
        return self.relative.rpartition("/")[2]


@dataclass
class Listing:
    """What one root holds."""

    root: Path
    files: list[FoundFile] = field(default_factory=list)
    """Natural order of `relative`."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files that are no pictures, by suffix; hidden ones are not counted."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """(path, why) of broken links and of folders that cannot be entered."""


def resolve_root(text: str) -> Path:
    """Return the absolute folder that a config names.

    Args:
        text: absolute, relative to the working directory, with `~`, or `pkg://PACKAGE/FOLDER`
            for a folder inside an installed package, which is found without importing it.

    Raises:
        DataError: no such folder; says where the path ends and what lies there.
    """
    if text.startswith(_PACKAGE_PREFIX):
        package, _, rest = text.removeprefix(_PACKAGE_PREFIX).partition("/")
        if not package.isidentifier():
            raise DataError(f"{text}: expected pkg://PACKAGE/FOLDER")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"{text}: the package {package!r} is not installed")
        path = Path(spec.submodule_search_locations[0]) / rest
    else:
        path = Path(text).expanduser().absolute()
    if path.is_dir():
        return path
    if path.exists():
        raise DataError(f"{path}: is a file; a folder is expected")
    raise DataError(_missing(path))


def list_folder(root: Path, suffixes: frozenset[str] = SUFFIXES) -> Listing:
    """Find the pictures below a folder, links followed, names that begin with `.` left out.

    Args:
        root: absolute.
        suffixes: of the files to find, lower case; those of pictures if nothing else is said.

    Raises:
        DataError: there is no file with a picture's suffix; says what was found instead.
    """
    listing = Listing(root)
    num_folders = 0
    for folder, names in walk(root, lambda path, why: listing.bad.append((path, why))):
        num_folders += 1
        for name in names:
            path = f"{folder}{os.sep}{name}"
            suffix = os.path.splitext(name)[1].lower()
            if suffix not in suffixes:
                listing.ignored[suffix or "(no suffix)"] += 1
                continue
            try:
                status = os.stat(path)
            except OSError as error:
                why = "broken link" if os.path.islink(path) else error.strerror
                listing.bad.append((path, f"{why}"))
                continue
            stem, written = os.path.splitext(os.path.relpath(path, root))
            relative = stem.replace(os.sep, "/")
            size, time_ns = status.st_size, status.st_mtime_ns
            listing.files.append(FoundFile(path, relative, written, size, time_ns))
    if not listing.files:
        raise DataError(_empty(listing, num_folders - 1, suffixes))
    listing.files.sort(key=lambda file: (natural_key(file.relative), file.path))
    return listing


def _missing(path: Path) -> str:
    """Say at which folder of a path the trouble begins, and what that folder holds."""
    parent, child = path.parent, path
    while not parent.is_dir() and parent != parent.parent:
        parent, child = parent.parent, parent
    try:
        names = [name for name in os.listdir(parent) if not name.startswith(".")]
    except OSError as error:
        return f"{path}: no such folder; {parent} cannot be read: {error.strerror}"
    hint = did_you_mean(child.name, names) if names else "; it is empty"
    return f"{path}: no such folder; looked for {child.name!r} in {parent}{hint}"


def _empty(listing: Listing, num_folders: int, suffixes: frozenset[str]) -> str:
    """Say what a folder without pictures holds."""
    what = "pictures" if suffixes == SUFFIXES else "frames"
    found = [f"{count} {suffix}" for suffix, count in listing.ignored.most_common(5)]
    found += [f"{path} ({why})" for path, why in listing.bad[:3]]
    if num_folders:
        found.append(f"{num_folders} folder{'s' if num_folders > 1 else ''}")
    return (
        f"{listing.root}: no {what} found (looked for {' '.join(sorted(suffixes))}, in folders "
        f"below it too); it holds {', '.join(found) or 'nothing'}"
    )
