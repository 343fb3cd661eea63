"""`infer`: use a trained network on pictures, folders and videos."""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from sr_train.cli import networks
from sr_train.config.schema import InferConfig
from sr_train.engine.host import give_back_large_blocks, keep_heap
from sr_train.inference.clips import ClipUpscale
from sr_train.inference.folder import check_names, infer_paths
from sr_train.inference.sequences import ClipJob, is_video, plan_inputs
from sr_train.inference.streams import (
    FolderSource,
    Source,
    VideoSource,
    VideoWish,
    upscale_clip,
    writing_pictures,
    writing_video,
)
from sr_train.inference.upscaler import Upscaler
from sr_train.monitoring.console import Bar, console, progress_bar, start_logging
from sr_train.ops.errors import DataError, Problems, SRTrainError, did_you_mean
from sr_train.ops.images.limits import set_max_megapixels
from sr_train.ops.spec import NetSpec
from sr_train.ops.text import one_line
from sr_train.ops.video_out import encoding_problems

log = logging.getLogger(__name__)


def run_infer(config: InferConfig) -> None:
    """Upscale a picture, a video or a folder of either.

    Raises:
        SRTrainError: for everything a user can mend; after the rest is done, also where single
            inputs could not be used.
    """
    start_logging()
    check_names(config.format, config.suffix)
    set_max_megapixels(config.io.max_megapixels)
    net, spec, _ = networks.load_for_use(config)
    given, output = Path(config.input).expanduser(), Path(config.output).expanduser()
    plan = plan_inputs(given, output, spec.takes_clips, config.suffix)
    extra = _extra_folders(config, spec)
    wish = _video_wish(config, plan.jobs)
    if plan.jobs:
        give_back_large_blocks()
    else:
        keep_heap()
    precision = networks.use_precision(config)
    net = net.to(precision.device)
    failed: list[str] = []
    total = len(plan.jobs)
    if plan.has_pictures:
        done, lost = _infer_pictures(
            networks.make_upscaler(net, spec, precision, config.tiling), config, given, output
        )
        failed += lost
        total += done + len(lost)
    if plan.jobs:
        upscale = networks.make_clip_upscaler(net, spec, precision, config.tiling)
        failed += _infer_clips(upscale, spec.scale, plan.jobs, extra, wish, config)
    if plan.left_out:
        names = ", ".join(path.name for path in plan.left_out[:5])
        console.print(f"  neither picture nor video, left out: {len(plan.left_out)} ({names})")
    if failed:
        lines = "\n".join(f"  - {why}" for why in failed)
        raise DataError(f"{len(failed)} of {total} inputs failed:\n{lines}")


def _infer_pictures(
    upscaler: Upscaler, config: InferConfig, given: Path, output: Path
) -> tuple[int, list[str]]:
    """Upscale pictures one by one; return how many were done, and why others were not."""
    with progress_bar("infer", 0) as bar:

        def on_progress(done: int, total: int, path: Path, error: str | None) -> None:
            bar.show(done, total, path.name)
            if error is not None:
                log.warning("warning: %s", error)

        report = infer_paths(
            upscaler,
            [given],
            output,
            config.suffix,
            config.format,  # type: ignore[arg-type]
            on_progress,
        )
    console.print(f"{len(report.done)} pictures written to {output}")
    for source, target in report.renamed:
        console.print(f"  {source.name} became {target.name}, since another has the same name")
    _tell_not_kept(report.not_kept)
    return len(report.done), [why for _, why in report.failed]


def _tell_not_kept(not_kept: Mapping[str, Sequence[Path]]) -> None:
    """Say what results lack that inputs have beside their pixels."""
    for what, paths in not_kept.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        console.print(f"  not kept: {what} ({one_line(paths[0].name)}{more})", markup=False)


def _infer_clips(
    upscale: ClipUpscale,
    scale: int,
    jobs: Sequence[ClipJob],
    extra: Mapping[str, Path],
    wish: VideoWish,
    config: InferConfig,
) -> list[str]:
    """Upscale clips one after the other; return why some were not."""
    failed = []
    with progress_bar("infer", 0) as bar:
        for number, job in enumerate(jobs, start=1):
            not_kept: dict[str, list[Path]] = {}
            notes: list[str] = []
            note = job.source.name + (f" ({number} of {len(jobs)})" if len(jobs) > 1 else "")
            try:
                source = _source(job)
                folders = {key: folder / job.relative for key, folder in extra.items()}
                opened = (
                    writing_video(job.target, source, scale, wish, notes)
                    if job.makes_video
                    else writing_pictures(job.target, config.suffix, config.format, not_kept)
                )
                count = upscale_clip(
                    upscale, source, folders, opened, _counter(bar, source.total, note)
                )
            except SRTrainError as err:
                if len(jobs) == 1:
                    raise
                log.warning("warning: %s", err)
                failed.append(str(err))
                continue
            console.print(f"{count} frames written to {job.target}")
            _tell_not_kept(not_kept)
            for line in (*(source.info.notes if source.info else ()), *notes, *source.losses.notes):
                console.print(f"  {job.source.name}: {line}")
            if source.losses:
                failed.append(f"{job.source}: {source.losses}; the rest is in {job.target}")
                log.warning("warning: %s", failed[-1])
    return failed


def _source(job: ClipJob) -> Source:
    return VideoSource(job.source) if is_video(job.source) else FolderSource(job.source)


def _counter(bar: Bar, total: int, note: str) -> Callable[[], None]:
    """Return what moves a bar by a frame; a total that was an estimate grows with what comes."""
    done = itertools.count(1)

    def on_frame() -> None:
        number = next(done)
        bar.show(number, max(total, number), note)

    bar.show(0, total, note)
    return on_frame


def _video_wish(config: InferConfig, jobs: Sequence[ClipJob]) -> VideoWish:
    """Return how videos are to be written.

    Raises:
        Problems: what cannot be.
    """
    wanted = config.video
    fps = None if config.fps is None else _rate(config.fps)
    problems = []
    if fps == 0:
        problems.append(f"fps={config.fps}: expected frames per second, as 25 or 30000/1001")
    makes_video = [job for job in jobs if job.makes_video]
    needs_rate = [job for job in makes_video if not is_video(job.source)]
    if fps is None and needs_rate:
        problems.append("fps: pictures tell no frame rate; add fps=25, for example")
    if fps is not None and not needs_rate:
        problems.append("fps: is for a folder of pictures that becomes a video; leave it out")
    for job in makes_video:
        found = encoding_problems(job.target, wanted.codec, wanted.quality, wanted.pixel_format)
        problems += [problem for problem in found if problem not in problems]
    if problems:
        raise Problems(problems)
    return VideoWish(wanted.codec, wanted.quality, wanted.pixel_format, wanted.audio, fps)


def _rate(given: object) -> Fraction:
    """Return frames per second; 0 where they are none."""
    try:
        return max(Fraction(str(given)), Fraction(0))
    except (ValueError, ZeroDivisionError):
        return Fraction(0)


def _extra_folders(config: InferConfig, spec: NetSpec) -> dict[str, Path]:
    """Return the folder of each further input of the network.

    Raises:
        Problems: one is missing, or the network asks for none of that name.
    """
    problems = [
        f"extra.{key}: the network takes no such input{did_you_mean(key, spec.extra_inputs)}"
        for key in config.extra
        if key not in spec.extra_inputs
    ]
    problems += [
        f"extra.{key}: the network wants it ({channels} channels); add extra.{key}=FOLDER of "
        ".npy or .pt tensors, one a frame"
        for key, channels in spec.extra_inputs.items()
        if key not in config.extra
    ]
    if problems:
        raise Problems(problems)
    return {key: Path(folder).expanduser() for key, folder in config.extra.items()}
