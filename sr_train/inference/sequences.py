"""Find the clips in what a user names, and decide where each one goes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sr_train.inference.folder import contents, files_below, lies_in, missing
from sr_train.ops.errors import DataError
from sr_train.ops.folders import natural_key
from sr_train.ops.image_io import SUFFIXES as PICTURES
from sr_train.ops.video_io import SUFFIXES as VIDEOS
from sr_train.ops.video_out import SUFFIXES as WRITABLE_VIDEOS


@dataclass(frozen=True)
class ClipJob:
    """A clip, and the video file or folder that is to hold its result."""

    source: Path
    """A video file, or a folder that directly holds pictures."""
    target: Path
    relative: Path
    """Of the source below the input; where its further inputs lie below their folder."""

    @property
    def makes_video(self) -> bool:
        """Return whether the target is a video file."""
        return is_video(self.target)


@dataclass
class Plan:
    """What is to be done with an input."""

    jobs: list[ClipJob] = field(default_factory=list)
    has_pictures: bool = False
    """Whether there are single pictures, to be upscaled each on its own."""
    left_out: list[Path] = field(default_factory=list)
    """Files that are neither picture nor video."""


def is_video(path: Path) -> bool:
    """Return whether a name is that of a video file."""
    return path.suffix.lower() in VIDEOS | WRITABLE_VIDEOS


def plan_inputs(given: Path, output: Path, takes_clips: bool, suffix: str = "") -> Plan:
    """Return what is to be done with an input.

    A video file becomes the video file or the folder of pictures that `output` names; a folder of
    pictures likewise. In a folder that is to become a folder, every video file becomes one of the
    same name and container (.mp4 where that cannot be written); for a network that takes clips,
    every folder that directly holds pictures is a clip.

    Args:
        given: what the user names.
        output: a video file by its suffix, else a folder.
        takes_clips: whether the network does; one that does not takes pictures one by one.
        suffix: put behind the name of each video.

    Raises:
        DataError: nothing found, or an output that would replace an input.
    """
    if given.is_file():
        plan = _plan_file(given, output, takes_clips)
    elif given.is_dir():
        plan = _plan_folder(given, output, takes_clips, suffix)
    else:
        raise DataError(missing(given))
    sources = {job.source.resolve() for job in plan.jobs}
    for job in plan.jobs:
        if job.target.resolve() in sources:
            raise DataError(f"{job.target} is an input and would be replaced; give another output")
        if job.makes_video and job.target.is_dir():
            raise DataError(f"{job.target}: a folder with this name exists")
        if not job.makes_video and job.target.is_file():
            raise DataError(f"{job.target}: a file with this name exists; expected a folder")
    return plan


def _plan_file(given: Path, output: Path, takes_clips: bool) -> Plan:
    if is_video(given):
        if output.suffix.lower() in PICTURES:
            raise DataError(f"output must be a video or a folder, got {output}")
        return Plan([ClipJob(given, output, Path())])
    if takes_clips:
        raise DataError(
            f"{given}: not a video (known: {', '.join(sorted(VIDEOS))}); this network takes clips: "
            "give a video or a folder of frames"
        )
    if is_video(output):
        raise DataError(f"{given}: a single picture makes no video; give a video or a folder")
    return Plan(has_pictures=True)


def _plan_folder(given: Path, output: Path, takes_clips: bool, suffix: str) -> Plan:
    if is_video(output):
        return Plan([ClipJob(given, output, Path())])
    files = [path for path in files_below(given) if not lies_in(path, output, given)]
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    videos = [path for path in files if is_video(path)]
    if not pictures and not videos:
        raise DataError(
            f"nothing to upscale in {given.absolute()} ({contents(files, 0)}); pictures end in "
            f"{', '.join(sorted(PICTURES))}, videos in {', '.join(sorted(VIDEOS))}"
        )
    plan = Plan(has_pictures=bool(pictures) and not takes_clips)
    plan.left_out = [path for path in files if path not in {*pictures, *videos}]
    if takes_clips:
        folders = sorted({path.parent for path in pictures}, key=lambda at: natural_key(str(at)))
        for folder in folders:
            below = folder.relative_to(given)
            plan.jobs.append(ClipJob(folder, output / below, below))
    plan.jobs += _video_jobs(videos, given, output, suffix)
    return plan


def _video_jobs(videos: Sequence[Path], given: Path, output: Path, suffix: str) -> list[ClipJob]:
    """Give every video a file of its own below `output`."""

    def named(relative: Path, middle: str) -> Path:
        ending = relative.suffix if relative.suffix.lower() in WRITABLE_VIDEOS else ".mp4"
        return output / relative.with_name(f"{relative.stem}{middle}{suffix}{ending}")

    relatives = [path.relative_to(given) for path in videos]
    wanted = Counter(named(relative, "") for relative in relatives)
    jobs = []
    for path, relative in zip(videos, relatives, strict=True):
        target = named(relative, "")
        if wanted[target] > 1:
            target = named(relative, relative.suffix.lower().replace(".", "_"))
        jobs.append(ClipJob(path, target, relative.with_suffix("")))
    return jobs
