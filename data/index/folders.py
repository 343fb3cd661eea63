"""Folders of images: where they are, and which files lie in them."""

import glob
import importlib.util
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.index.arguments import Texts, texts
from sr_train.api.errors import DataError, did_you_mean
from sr_train.io.folders import file_status, kinds_in_words, natural_key, walk
from sr_train.io.suffixes import IMAGE_SUFFIXES

_PACKAGE_PREFIX = "pkg://"
_ANY = "*"
"""A part of a root that stands for every folder there; names keep what it stands for."""

_KNOWN_KINDS = {
    ".dat": "raw spike streams; python -m scripts.spikes_to_voxels makes .npy of them",
    ".npz": "archives of several arrays; save each frame's as .npy",
    ".mat": "MATLAB files; save each frame's array as .npy",
    ".h5": "HDF5 files; save each frame's array as .npy",
    ".mdb": "an LMDB; unpack its images into files",
    ".heic": "HEIF images; convert them to .png",
}
"""Kinds of files that people have and that cannot be read, and what to do about each."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file with an image's suffix, or with one of those that were looked for."""

    path: str
    """Absolute."""
    relative: str
    """Below the root, with `/`, without suffix: what images are paired and named by."""
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
    """Files that are no images, by suffix; hidden ones are not counted."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """(path, why) of broken links and of folders that cannot be entered."""


def expanded(what: str, text: str) -> Path:
    """Return the absolute path that a config names, with `~` resolved.

    Raises:
        DataError: it is empty, no text, or names the home of an unknown user.
    """
    (checked,) = texts(what, text)
    try:
        return Path(checked).expanduser().absolute()
    except RuntimeError:
        user = checked.split("/")[0]
        raise DataError(f"{what}={checked}: there is no user {user[1:]!r} here") from None


def resolve_root(text: str, what: str = "gt") -> Path:
    """Return the absolute folder that a config names.

    Args:
        text: absolute, relative to the working directory, with `~`, or `pkg://PACKAGE/FOLDER`
            for a folder inside an installed package, which is found without importing it. A `*`
            in place of a folder stands for each one there: `GOPRO/train/*/sharp`.
        what: the argument that names it, for messages.

    Raises:
        DataError: no such folder; says where the path ends and what lies there.
    """
    path = _in_package(text) if text.startswith(_PACKAGE_PREFIX) else expanded(what, text)
    fixed = _fixed(path)
    try:
        mode = os.stat(fixed).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_missing(fixed)) from None
    except OSError as error:
        raise DataError(f"{fixed}: cannot be entered: {error.strerror or error}") from None
    if not stat.S_ISDIR(mode):
        raise DataError(f"{fixed}: is a file; a folder is expected")
    return path


def root_name(root: Path) -> str:
    """Return what to call a root: its own name, without what a `*` in it stands for."""
    return _fixed(root).name


def resolve_roots(what: str, value: Texts) -> list[Path]:
    """Return the folders that one argument names, all different.

    Args:
        what: the argument, for messages.
        value: one or several, as `resolve_root` takes them.

    Raises:
        DataError: none, one that is missing, or the same folder twice.
    """
    named = texts(what, value)
    if not named:
        raise DataError(f"{what} names no folder")
    roots = [resolve_root(text, what) for text in named]
    seen: set[Path] = set()
    for root in (root.resolve() for root in roots):
        if root in seen:
            raise DataError(f"{what}: names the same folder twice, {root}")
        seen.add(root)
    for root in seen:
        holder = next((parent for parent in root.parents if parent in seen), None)
        if holder is not None:
            raise DataError(f"{what}: {root} lies inside {holder}, which is given too")
    return roots


def root_labels(roots: Sequence[Path]) -> list[str]:
    """Return what names begin with: nothing for one root, else the root's own or full name."""
    if len(roots) == 1:
        return [""]
    names = [root_name(root) for root in roots]
    short = Counter(names)
    return [f"{n if short[n] == 1 else root}/" for n, root in zip(names, roots, strict=True)]


def check_counts(roots: Mapping[str, Sequence[Path]]) -> None:
    """Raise where there are not as many roots of each modality as of `gt`.

    Raises:
        DataError: naming the modality.
    """
    for modality, each in roots.items():
        if len(each) != len(roots["gt"]):
            raise DataError(
                f"{len(roots['gt'])} gt folders but {len(each)} {modality} folders; expected one "
                f"{modality} for each gt"
            )


def _in_package(text: str) -> Path:
    package, _, rest = text.removeprefix(_PACKAGE_PREFIX).partition("/")
    if not package.isidentifier():
        raise DataError(f"{text}: expected pkg://PACKAGE/FOLDER")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{text}: the package {package!r} is not installed")
    return Path(spec.submodule_search_locations[0]) / rest


def _fixed(path: Path) -> Path:
    """Return the part of a root before the first `*`."""
    parts = path.parts
    return Path(*parts[: parts.index(_ANY)]) if _ANY in parts else path


def _tops(root: Path) -> list[tuple[Path, str]]:
    """Return the folders that a root means, and what the names below each begin with.

    Raises:
        DataError: none fits.
    """
    fixed = _fixed(root)
    if fixed == root:
        return [(root, "")]
    rest = root.parts[len(fixed.parts) :]
    pattern = "/".join(part if part == _ANY else glob.escape(part) for part in rest)
    tops = []
    for top in sorted(fixed.glob(pattern), key=lambda path: natural_key(str(path))):
        parts = zip(rest, top.parts[len(fixed.parts) :], strict=True)
        matched = [found for wanted, found in parts if wanted == _ANY]
        if top.is_dir() and not any(name.startswith(".") for name in matched):
            tops.append((top, "/".join(matched) + "/"))
    if not tops:
        inner = sorted({path.name for path in fixed.glob("*/*") if path.is_dir()})
        hint = did_you_mean(root.name, inner)
        raise DataError(f"{root}: no folder fits; looked in each folder of {fixed}{hint}")
    return tops


def list_folder(root: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> Listing:
    """Find the images below a folder, links followed, names that begin with `.` left out.

    Args:
        root: absolute.
        suffixes: of the files to find, lower case; those of images if nothing else is said.

    Raises:
        DataError: there is no file with an image's suffix; says what was found instead.
    """
    listing = Listing(root)
    num_folders = 0
    for top, start in _tops(root):
        for folder, names in walk(top, lambda path, why: listing.bad.append((path, why))):
            num_folders += folder != str(root)
            below = os.path.relpath(folder, top).replace(os.sep, "/")
            prefix = start if below == "." else f"{start}{below}/"
            _add_files(folder, names, prefix, suffixes, listing)
    if not listing.files:
        raise DataError(_empty(listing, num_folders, suffixes))
    listing.files.sort(key=lambda file: (natural_key(file.relative), file.path))
    return listing


def _add_files(
    folder: str, names: Sequence[str], prefix: str, suffixes: frozenset[str], listing: Listing
) -> None:
    """Put the files of one folder into a listing; their names begin with the prefix."""
    for name in names:
        path = f"{folder}{os.sep}{name}"
        stem, written = os.path.splitext(name)
        suffix = written.lower()
        if suffix not in suffixes:
            listing.ignored[suffix or "(no suffix)"] += 1
            continue
        status = file_status(path)
        if isinstance(status, str):
            listing.bad.append((path, status))
            continue
        size, time_ns = status.st_size, status.st_mtime_ns
        listing.files.append(FoundFile(path, prefix + stem, written, size, time_ns))


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


def advice_on(suffixes: Iterable[str]) -> str:
    """Return what to do about files of known kinds that are not read, or nothing."""
    told = [f"{kind}: {_KNOWN_KINDS[kind]}" for kind in suffixes if kind in _KNOWN_KINDS]
    return f"; {'; '.join(told)}" if told else ""


def _empty(listing: Listing, num_folders: int, suffixes: frozenset[str]) -> str:
    """Say what a folder without images holds."""
    what = "images" if suffixes == IMAGE_SUFFIXES else "frames"
    found = [kinds_in_words(listing.ignored)] if listing.ignored else []
    found += [f"{path} ({why})" for path, why in listing.bad[:3]]
    if num_folders:
        found.append(f"{num_folders} folder{'s' if num_folders > 1 else ''}")
    return (
        f"{listing.root}: no {what} found (looked for {' '.join(sorted(suffixes))}, in folders "
        f"below it too); it holds {', '.join(found) or 'nothing'}{advice_on(listing.ignored)}"
    )
