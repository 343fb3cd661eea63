"""What is to be done with the inputs: single images, clips, and where each result goes."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sr_train.api.errors import ConfigError, DataError, Problems
from sr_train.api.text import first_few
from sr_train.inference.finding import Finds, Found, find
from sr_train.inference.naming import (
    Output,
    image_ending,
    longest_name,
    name_results,
    too_long,
    video_ending,
)
from sr_train.io.numbering import find_runs
from sr_train.io.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES


@dataclass(frozen=True)
class Wish:
    """How results are to be called and made."""

    suffix: str = ""
    """Appended to each name."""
    format: str = "png"
    """Of images; one of `naming.FORMATS`."""
    codec: str = "h264"
    """Of videos."""
    overwrite: bool = False
    """Replace files that lie where a result goes in a folder that holds the input, too."""


@dataclass(frozen=True)
class ImageJob:
    """An image, single or a frame of a clip, and the file of its result."""

    source: Path
    target: Path


@dataclass(frozen=True)
class ClipJob:
    """A clip, and the video file or folder that is to hold its result."""

    source: Path
    """A video file, or a folder that directly holds images."""
    target: Path
    relative: Path
    """Of the source below the input; where its further inputs lie below their folder."""
    makes_video: bool
    runs: tuple[tuple[ImageJob, ...], ...] = ()
    """Of a folder: frames that follow each other without a gap or a change of scene."""
    stems: tuple[str, ...] = ()
    """Of all frames in the folder, by which further inputs are paired."""
    scene: str = ""
    """Which of several scenes in the folder it is."""


@dataclass
class Plan:
    """What is to be done."""

    images: list[ImageJob] = field(default_factory=list)
    clips: list[ClipJob] = field(default_factory=list)
    renamed: list[tuple[Path, Path]] = field(default_factory=list)
    """Inputs whose results got another name than their own, and these."""
    left_out: list[Path] = field(default_factory=list)
    """Files that are neither image nor video."""
    earlier: list[Path] = field(default_factory=list)
    """Files among the inputs that are results of an earlier run."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """Inputs that cannot be used, and why."""
    notes: list[str] = field(default_factory=list)
    """What a person should know about scenes, gaps and kinds of files."""

    @property
    def total(self) -> int:
        """Return how many inputs there are."""
        return len(self.images) + len(self.clips) + len(self.failed)


def plan_inputs(inputs: Sequence[Path], output: Output, takes_clips: bool, wish: Wish) -> Plan:
    """Return what is to be done with the inputs.

    A single video becomes the video file or the folder of images that `output` names; a folder of
    images likewise. Where there is more than that and a folder is to hold the results, every
    video becomes one of the same name and container (.mkv or .mp4 where that cannot be written) and
    every image one of its own; for a network that takes clips, images that lie directly in a
    folder are clips, one for each scene and for each part of a scene without a gap. Nested folders
    keep their structure.

    Args:
        inputs: files, and folders that are searched through.
        output: where the results go.
        takes_clips: whether the network does; one that does not takes images one by one.
        wish: how results are called.

    Raises:
        SRTrainError: before any work: nothing found, an output that does not fit the inputs, or one
            that would replace an input.
    """
    _check_single(inputs, output)
    finds = find(inputs, output.path)
    plan = Plan(failed=finds.failed)
    plan.notes += [f"{folder}: left out, as the results go there" for folder in finds.results]
    if output.kind == "video":
        _plan_video(inputs[0], finds, output, plan)
    elif output.kind == "image":
        _plan_image(finds, output, takes_clips, wish, plan)
    elif len(inputs) == 1 and finds.files and finds.files[0].is_named and finds.files[0].is_video:
        only = finds.files[0]
        plan.clips.append(ClipJob(only.path, output.path, Path(), makes_video=False))
    else:
        _plan_folder(finds, output, takes_clips, wish, plan)
    if not plan.total:
        raise DataError(_nothing(finds))
    _refuse_replacing(plan)
    if not wish.overwrite and any(_holds(output.folder, Path(each)) for each in inputs):
        _refuse_existing(plan, output, wish)
    _leave_out_long_names(plan, output)
    return plan


def _check_single(inputs: Sequence[Path], output: Output) -> None:
    if output.kind != "folder" and len(inputs) != 1:
        raise ConfigError(
            f"output={output.path}: names one {output.kind}, but there are {len(inputs)} inputs; "
            "expected a folder"
        )


def _plan_video(given: Path, finds: Finds, output: Output, plan: Plan) -> None:
    """Plan the one video that becomes of a video, or of the images in a folder."""
    given = given.expanduser()
    if given.is_file():
        if not finds.files[0].is_video:
            raise DataError(
                f"{given}: a single image makes no video; expected a video or a folder of frames"
            )
        plan.clips.append(ClipJob(given, output.path, Path(), makes_video=True))
        return
    frames = [each for each in finds.files if each.is_image and each.path.parent == given]
    if not frames:
        raise DataError(f"{given}: no images lie directly in it; {_nothing(finds)}")
    targets = [output.path] * len(frames)
    jobs = _clips_of_folder(given, frames, targets, output, plan)
    if not jobs:
        return
    runs = tuple(run for job in jobs for run in job.runs)
    plan.clips.append(
        ClipJob(given, output.path, Path(), makes_video=True, runs=runs, stems=jobs[0].stems)
    )
    if len(runs) > 1:
        plan.notes.append(f"{given}: {len(runs)} clips, one after the other in {output.path}")
    plan.left_out = [each.path for each in finds.files if each not in frames]


def _plan_image(finds: Finds, output: Output, takes_clips: bool, wish: Wish, plan: Plan) -> None:
    """Plan the one image that becomes of an image."""
    kind = output.path.suffix
    if wish.suffix:
        raise ConfigError(f"suffix={wish.suffix}: output={output.path} is the whole name already")
    only = finds.files[0] if len(finds.files) == 1 and not finds.failed else None
    if only is None or not only.is_image:
        what = only.path if only else f"{len(finds.files) + len(finds.failed)} files"
        raise ConfigError(
            f"output={output.path}: names one image, but the input is {what}; expected a folder"
            + (" or a video" if only and only.is_video else "")
        )
    if takes_clips:
        raise DataError(_takes_clips(only.path))
    if wish.format not in ("png", "same") and image_ending(only, wish.format) != kind.lower():
        raise ConfigError(f"format={wish.format}: output={output.path} says {kind}; leave one out")
    plan.images.append(ImageJob(only.path, output.path))


def _plan_folder(finds: Finds, output: Output, takes_clips: bool, wish: Wish, plan: Plan) -> None:
    used = [each for each in finds.files if each.is_image or each.is_video]
    plan.left_out = [each.path for each in finds.files if not (each.is_image or each.is_video)]
    endings = [
        video_ending(each, wish.codec) if each.is_video else image_ending(each, wish.format)
        for each in used
    ]
    used, endings = _without_results(used, endings, output, wish, plan)
    targets = name_results(used, endings, output.path, wish.suffix)
    by_folder: dict[Path, list[tuple[Found, Path]]] = {}
    for each, ending, target in zip(used, endings, targets, strict=True):
        if each.is_video:
            _note_kind(each, ending, plan)
            relative = each.relative.with_suffix("")
            plan.clips.append(ClipJob(each.path, target, relative, makes_video=True))
        elif not takes_clips:
            plan.images.append(ImageJob(each.path, target))
        elif each.is_named:
            raise DataError(_takes_clips(each.path))
        else:
            by_folder.setdefault(each.path.parent, []).append((each, target))
        if target.stem != f"{each.relative.stem}{wish.suffix}":
            plan.renamed.append((each.path, target))
    clips: list[ClipJob] = []
    for folder, frames in by_folder.items():
        found, results = zip(*frames, strict=True)
        clips += _clips_of_folder(folder, found, results, output, plan)
    plan.clips[:0] = clips


def _note_kind(found: Found, ending: str, plan: Plan) -> None:
    own = found.path.suffix
    if own.lower() == ".webm" and ending != own:
        plan.notes.append(
            f"{found.path}: becomes {ending}, as .webm cannot hold this codec (video.codec=av1 can)"
        )


def _takes_clips(path: Path) -> str:
    return (
        f"{path}: not a video (known: {', '.join(sorted(VIDEO_SUFFIXES))}); this network takes "
        "clips: give a video or a folder of frames"
    )


def _without_results(
    used: list[Found], endings: list[str], output: Output, wish: Wish, plan: Plan
) -> tuple[list[Found], list[str]]:
    """Leave out what a run into the input's own folder would make of another input, if any did."""
    plain = [
        output.path / each.relative.with_name(f"{each.relative.stem}{wish.suffix}{ending}")
        for each, ending in zip(used, endings, strict=True)
    ]
    # Of inputs that share a name, the results have longer ones.
    named = name_results(used, endings, output.path, wish.suffix)
    places = _Places()
    made = {
        places.of(target)
        for each, targets in zip(used, zip(plain, named, strict=True), strict=True)
        for target in targets
        if places.of(target) != places.of(each.path)
    }
    kept = [places.of(each.path) not in made for each in used]
    plan.earlier = [each.path for each, keep in zip(used, kept, strict=True) if not keep]
    return (
        [each for each, keep in zip(used, kept, strict=True) if keep],
        [ending for ending, keep in zip(endings, kept, strict=True) if keep],
    )


class _Places:
    """Tells where files lie, whatever links lead to their folders."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def of(self, path: Path) -> tuple[str, str]:
        """Return the folder without links, and the name in it."""
        if path.parent not in self._folders:
            self._folders[path.parent] = os.path.realpath(path.parent)
        return self._folders[path.parent], path.name


def _clips_of_folder(
    folder: Path, frames: Sequence[Found], targets: Sequence[Path], output: Output, plan: Plan
) -> list[ClipJob]:
    """Return a clip for each run of frames in a folder; none, and a failure, where one is twice."""
    stems = tuple(each.path.stem for each in frames)
    twins = [stem for stem, count in Counter(stems).items() if count > 1]
    if twins:
        why = f"{len(twins)} frames are there twice, e.g. {twins[0]!r}; keep one of each"
        plan.failed.append((folder, why))
        return []
    relative = frames[0].relative.parent
    jobs: list[ClipJob] = []
    found = find_runs(stems)
    for run in found:
        if run.after_gap:
            before, after = jobs[-1].runs[0][-1].source.stem, stems[run.positions[0]]
            plan.notes.append(f"{folder}: a gap after {before}; a new clip begins at {after}")
        members = tuple(ImageJob(frames[n].path, targets[n]) for n in run.positions)
        target = output.path / relative if output.kind == "folder" else output.path
        scene = run.scene
        jobs.append(ClipJob(folder, target, relative, False, (members,), stems, scene))
    scenes = [run.scene for run in found if run.scene and not run.after_gap]
    if scenes:
        shown = first_few(scenes)
        plan.notes.append(f"{folder}: {len(scenes)} scenes, each a clip of its own: {shown}")
    return jobs


def _nothing(finds: Finds) -> str:
    places = "; ".join(finds.looked) or "nowhere, as no input was given"
    return (
        f"nothing to upscale; looked in {places}; images end in "
        f"{', '.join(sorted(IMAGE_SUFFIXES))}, videos in {', '.join(sorted(VIDEO_SUFFIXES))}"
    )


def _pairs(plan: Plan) -> Iterator[tuple[Path, Path]]:
    """Yield every source with its result."""
    for image in plan.images:
        yield image.source, image.target
    for clip in plan.clips:
        if clip.makes_video or not clip.runs:
            yield clip.source, clip.target
        if not clip.makes_video:
            for frame in (frame for run in clip.runs for frame in run):
                yield frame.source, frame.target


def _refuse_replacing(plan: Plan) -> None:
    """Raise if a result would be written over an input, whatever names that has."""
    sources = {_identity(source) for source, _ in _pairs(plan)}
    for clip in plan.clips:
        sources |= {_identity(frame.source) for run in clip.runs for frame in run}
    sources.discard(None)
    for _, target in _pairs(plan):
        if _identity(target) in sources:
            raise DataError(
                f"{target} is an input and would be replaced; give another output folder or a "
                "suffix such as _sr"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _holds(folder: Path, given: Path) -> bool:
    """Return whether an input is the output folder, or lies directly or deeper in it."""
    place = given.expanduser().resolve()
    return folder.resolve() in (place, *place.parents)


def _refuse_existing(plan: Plan, output: Output, wish: Wish) -> None:
    """Raise if results would replace what lies beside the inputs: it may be somebody's own."""
    if output.kind != "folder":
        return
    there = [str(target) for _, target in _pairs(plan) if os.path.lexists(target)]
    there = [path for path in there if not os.path.isdir(path)]
    for clip in plan.clips:
        if not clip.runs and not clip.makes_video:
            ending = "png" if wish.format == "same" else wish.format
            first = clip.target / f"00000000{wish.suffix}.{ending}"
            there += [str(first)] if os.path.lexists(first) else []
    if there:
        what = "a file" if len(there) == 1 else f"{len(there)} files"
        raise Problems(
            there,
            heading=f"output={output.path} holds the input, and {what} there would be replaced:",
            advice="give another output folder or a suffix, or overwrite=true",
        )


def _leave_out_long_names(plan: Plan, output: Output) -> None:
    """Move jobs whose results would have names that the file system does not take."""
    longest = longest_name(output.folder)
    images, clips = plan.images, plan.clips
    plan.images, plan.clips = [], []
    for image in images:
        why = too_long(image.target, longest)
        if why is None:
            plan.images.append(image)
        else:
            plan.failed.append((image.source, why))
    for clip in clips:
        targets = [clip.target] if clip.makes_video else _targets(clip)
        reasons = [why for target in targets if (why := too_long(target, longest))]
        if reasons:
            plan.failed.append((clip.source, reasons[0]))
        else:
            plan.clips.append(clip)


def _targets(clip: ClipJob) -> list[Path]:
    return [frame.target for run in clip.runs for frame in run]
