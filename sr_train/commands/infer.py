"""`infer`: use a trained network on images, folders and videos."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from sr_train.api.errors import MOST_SHOWN, DataError, Problems, did_you_mean, raise_all
from sr_train.api.network import NetSpec
from sr_train.api.text import one_line
from sr_train.commands.run_plugins import with_plugins_of_run
from sr_train.config.compose import typed
from sr_train.config.preflight import use_problems
from sr_train.config.schema import InferConfig
from sr_train.engine.precision import Precision
from sr_train.factory import networks
from sr_train.inference.clips import ClipUpscale
from sr_train.inference.extras import Extra
from sr_train.inference.faults import Failures
from sr_train.inference.feeding import Feeder
from sr_train.inference.folder import check_writable, upscale_images
from sr_train.inference.naming import check_suffix, parse_format, parse_output
from sr_train.inference.planning import ClipJob, ImageJob, Plan, Wish, plan_inputs
from sr_train.inference.streams import (
    ClipEnd,
    NotKept,
    Source,
    VideoWish,
    open_source,
    upscale_clip,
    writing_images,
    writing_video,
)
from sr_train.io.formats.limits import set_max_megapixels
from sr_train.io.suffixes import is_video_file
from sr_train.io.video.codecs import parse_codec
from sr_train.io.video.writer import encoding_problems
from sr_train.monitoring.console import Bar, console, progress_bar, start_logging
from sr_train.utils.heap import give_back_large_blocks, keep_heap
from sr_train.utils.signals import Stop, Stopped

log = logging.getLogger(__name__)

MOST_FRAMES = 3
"""Frames of a clip that are named where they cannot be read."""

_OF_IMAGES = "stops after this image; what is done is kept; again: at once, without this image"
_OF_CLIPS = (
    "stops before the next frame; what is done is kept, a video is as long as that; again: at once"
)
"""What is said to a signal."""


@dataclass(frozen=True)
class _Network:
    """A network that is ready to be used."""

    net: nn.Module
    spec: NetSpec
    precision: Precision


def run(cfg: DictConfig) -> None:
    """Upscale images, videos and folders of either.

    Ctrl-C, SIGTERM and SIGHUP end the work early: images that are done stay, a video is as long
    as the frames that are done, and the exit code is that of the signal.

    Raises:
        SRTrainError: for everything a user can fix; after the rest is done, also where single
            inputs could not be used.
        SystemExit: where a signal ended the work.
    """
    start_logging()
    config = with_plugins_of_run(typed(cfg, InferConfig))
    raise_all(use_problems(config))
    codec = parse_codec(config.video.codec)
    wish = Wish(config.suffix, parse_format(config.format), codec, config.overwrite)
    check_suffix(wish.suffix)
    output = parse_output(config.output)
    set_max_megapixels(config.io.max_megapixels)
    net, spec, _ = networks.load_for_use(config)
    inputs = [Path(given).expanduser() for given in input_paths(config.input)]
    plan = plan_inputs(inputs, output, spec.takes_clips, wish)
    if not plan.images and not plan.clips:
        _failures_of(plan).raise_any(plan.total)
    extra = _extra_folders(config, spec)
    video = _video_wish(config, codec, plan.clips)
    check_writable(output.folder)
    if plan.clips:
        give_back_large_blocks()
    else:
        keep_heap()
    precision = networks.use_precision(config)
    network = _Network(net.to(precision.device), spec, precision)
    work = _Work(config, wish, video, extra, plan)
    work.say_plan()
    with Stop("stops; nothing is written yet") as stop:
        work.run(network, stop)
        work.say_end(stop)
        if stop.requested is not None:
            raise SystemExit(stop.exit_code)
    work.failures.raise_any(plan.total)


def input_paths(given: str | Sequence[str]) -> list[str]:
    """Return the one path or several that `input` names."""
    return [given] if isinstance(given, str) else list(given)


class _Work:
    """Everything that is to be done, and what became of it.

    Args:
        config: of the command.
        wish: how results are called.
        video: how videos are written.
        extra: the folder of each further input.
        plan: the inputs.
    """

    def __init__(
        self,
        config: InferConfig,
        wish: Wish,
        video: VideoWish,
        extra: Mapping[str, Path],
        plan: Plan,
    ) -> None:
        self.failures = _failures_of(plan)
        self._config = config
        self._wish = wish
        self._video = video
        self._extra = extra
        self._plan = plan
        self._tried = 0
        self._images = 0
        self._not_kept: NotKept = {}

    def say_plan(self) -> None:
        """Tell what a person should know before the work."""
        plan = self._plan
        _listed(plan.notes)
        _listed(
            [
                f"{source} becomes {target.name}, since another has the same name"
                for source, target in plan.renamed
            ]
        )
        _left_out("results of an earlier run", plan.earlier)
        _left_out("neither image nor video", plan.left_out)

    def run(self, network: _Network, stop: Stop) -> None:
        """Go through all inputs, or up to where a signal ends that."""
        try:
            self._run_images(network, stop)
            self._run_clips(network, stop)
        except Stopped:
            return

    def say_end(self, stop: Stop) -> None:
        """Tell how far it came."""
        if self._plan.images:
            output = one_line(self._config.output)
            what = "1 image" if self._images == 1 else f"{self._images} images"
            console.print(f"{what} written to {output}")
        for what, paths in self._not_kept.items():
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            console.print(f"  not kept: {what} ({one_line(paths[0].name)}{more})")
        if stop.requested is not None:
            left = len(self._plan.images) + len(self._plan.clips) - self._tried
            console.print(f"stopped by {stop.requested.name}: {left} of {self._plan.total} left")

    def _run_images(self, network: _Network, stop: Stop) -> None:
        jobs = self._plan.images
        if not jobs:
            return
        stop.promise = _OF_IMAGES
        upscaler = networks.make_upscaler(
            network.net, network.spec, network.precision, self._config.tiling, measure=True
        )
        with progress_bar("infer", len(jobs), lines=True) as bar:

            def on_image(job: ImageJob, error: Exception | None, lost: Sequence[str]) -> None:
                self._tried += 1
                if error is None:
                    self._images += 1
                else:
                    self._fail(error, job.source)
                for what in lost:
                    self._not_kept.setdefault(what, []).append(job.source)
                bar.advance(one_line(job.source.name))

            upscale_images(upscaler, jobs, on_image, lambda: stop.requested is None)

    def _run_clips(self, network: _Network, stop: Stop) -> None:
        jobs = self._plan.clips
        if not jobs or stop.requested is not None:
            return
        stop.promise = _OF_CLIPS

        @contextmanager
        def computing() -> Iterator[None]:
            with network.precision.autocast(), stop.leaving_off():
                yield

        upscale = networks.make_clip_upscaler(
            network.net,
            network.spec,
            network.precision,
            self._config.tiling,
            measure=True,
            around=computing,
        )
        with progress_bar("infer", 0, lines=True) as bar:
            for number, job in enumerate(jobs, start=1):
                stop.check()
                note = one_line(job.source.name)
                note += f" ({number} of {len(jobs)})" if len(jobs) > 1 else ""
                self._run_clip(job, upscale, network.spec.scale, bar, note, stop)

    def _run_clip(
        self, job: ClipJob, upscale: ClipUpscale, scale: int, bar: Bar, note: str, stop: Stop
    ) -> None:
        notes: list[str] = []
        try:
            source = open_source(job)
            feeder = Feeder(Extra(job, self._extra), stop, may_change=not job.makes_video)
            opened = (
                writing_video(job.target, source, scale, self._video, stop, notes)
                if job.makes_video
                else writing_images(
                    job.target, self._wish.suffix, self._wish.format, self._not_kept
                )
            )
            on_frame = _counter(bar, source.total, note)
            end = upscale_clip(upscale, source, feeder, opened, on_frame)
        except Exception as err:
            self._fail(err, job.source)
            self._tried += 1
        else:
            self._say_clip(job, source, end, notes)
            self._tried += not end.is_early or end.failure is not None

    def _say_clip(self, job: ClipJob, source: Source, end: ClipEnd, notes: Sequence[str]) -> None:
        target = job.target
        if end.is_early and job.makes_video:
            target = target.with_name(f"{target.stem}.partial{target.suffix}")
        scene = f" ({one_line(job.scene)})" if job.scene else ""
        frames, are = ("1 frame", "is") if end.count == 1 else (f"{end.count} frames", "are")
        console.print(f"{frames} written to {one_line(target)}{scene}")
        of_source = source.info.notes if source.info else ()
        name = one_line(job.source.name)
        _listed([f"{name}: {note}" for note in (*of_source, *notes, *source.losses.notes)])
        if end.failure is not None:
            self._fail(end.failure, job.source, f"; the {frames} before it {are} kept")
        elif end.left_out or source.losses:
            lost = [str(source.losses)] if source.losses else []
            if end.left_out:
                count = len(end.left_out)
                words = "1 frame cannot" if count == 1 else f"{count} frames cannot"
                lost.append(f"{words} be read: {_first(end.left_out)}")
            text = f"{job.source}: {'; '.join(lost)}; the rest is in {target}"
            self._fail(DataError(text), job.source)

    def _fail(self, err: Exception, source: Path, more: str = "") -> None:
        why = self.failures.add(err, source, more)
        if self.failures.is_to_be_shown():
            log.warning("warning: %s", why)


def _first(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - MOST_FRAMES} more" if len(lines) > MOST_FRAMES else ""
    return "; ".join(lines[:MOST_FRAMES]) + more


def _failures_of(plan: Plan) -> Failures:
    """Return the inputs that cannot be used from the start."""
    failures = Failures()
    for path, why in plan.failed:
        failures.add(DataError(f"{path}: {why}"), path)
    return failures


def _left_out(what: str, paths: Sequence[Path]) -> None:
    if paths:
        names = ", ".join(one_line(path.name) for path in paths[:5])
        console.print(f"  {what}, left out: {len(paths)} ({names})")


def _listed(lines: Sequence[str]) -> None:
    """Print the first lines of a list, and how many more there are."""
    for line in lines[:MOST_SHOWN]:
        console.print(f"  {one_line(line)}")
    if len(lines) > MOST_SHOWN:
        console.print(f"  ... and {len(lines) - MOST_SHOWN} more such lines")


def _counter(bar: Bar, total: int, note: str) -> Callable[[], None]:
    """Return what moves a bar by a frame; a total that was an estimate grows with what comes."""
    done = itertools.count(1)

    def on_frame() -> None:
        number = next(done)
        bar.show(number, max(total, number), note)

    bar.show(0, total, note)
    return on_frame


def _video_wish(config: InferConfig, codec: str, jobs: Sequence[ClipJob]) -> VideoWish:
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
    needs_rate = [job for job in makes_video if not is_video_file(job.source)]
    if fps is None and needs_rate:
        problems.append("fps: images hold no frame rate; add fps=25, for example")
    if fps is not None and not needs_rate:
        problems.append("fps: is for a folder of images that becomes a video; leave it out")
    for path in {job.target.suffix.lower(): job.target for job in makes_video}.values():
        found = encoding_problems(path, codec, wanted.quality, wanted.pixel_format)
        problems += [problem for problem in found if problem not in problems]
    if problems:
        raise Problems(problems)
    return VideoWish(codec, wanted.quality, wanted.pixel_format, wanted.audio, fps)


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
