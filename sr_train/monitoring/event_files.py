"""TensorBoard's event files of earlier launches: in order, and without what is written again."""

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from sr_train.io.files import TemporaryFile

_OLD = re.compile(r"events\.out\.tfevents\.(0\d{9})\.launch")


def put_in_order(folder: Path, first_step: int) -> None:
    """Rename the event files of earlier launches by their order, and cut off later steps.

    TensorBoard reads files by name, and theirs begin with the time: where a clock went back, an
    older file would be read after a newer one.

    Args:
        folder: of the event files.
        first_step: events of this step and later are dropped.
    """
    if not folder.is_dir():
        return
    numbered = {int(found[1]): path for path in files(folder) if (found := _OLD.match(path.name))}
    unnumbered = [path for path in files(folder) if path not in numbered.values()]
    following = max(numbered, default=0) + 1
    for number, path in enumerate(sorted(unnumbered, key=lambda each: each.name), following):
        path.replace(folder / f"events.out.tfevents.{number:010d}.launch")
    for path in files(folder):
        _keep(path, lambda event: event.step < first_step)


def drop(folder: Path, names: Collection[str], step: int, current: Path | None) -> None:
    """Drop what earlier launches wrote of some names at a step.

    Args:
        folder: of the event files.
        names: of scalars and images.
        step: of which they are written again.
        current: the file that this launch writes, which stays as it is.
    """

    def stays(event: Event) -> bool:
        tags = {value.tag for value in event.summary.value}
        return event.step != step or not tags & set(names)

    for path in files(folder):
        if path != current:
            _keep(path, stays)


def files(folder: Path) -> list[Path]:
    """Return the event files in a folder, in the order in which they are read."""
    return sorted(path for path in folder.glob("events.out.tfevents.*") if path.is_file())


def _keep(path: Path, stays: Callable[[Event], bool]) -> None:
    """Write a file anew without the events that do not stay, if there are such."""
    if all(stays(event) for event, _ in _events(path)):
        return
    anew = TemporaryFile(path)
    try:
        writer = RecordWriter(anew)
        for event, record in _events(path):
            if stays(event):
                writer.write(record)
    except BaseException:
        anew.discard()
        raise
    anew.commit(sync=False)


def _events(path: Path) -> Iterator[tuple[Event, bytes]]:
    """Yield the events of a file, up to a part that a kill left, with their bytes."""
    for record in RawEventFileLoader(str(path)).Load():
        yield Event.FromString(record), record
