"""Copy what a video file holds beside its image to another: sound, subtitles, chapters, tags.

Packets are copied as they are, without decoding. What the other container cannot hold is named.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer, OutputContainer

from sr_train.api.errors import DataError
from sr_train.io.video.decoding import packets_past_errors
from sr_train.io.video.order import MOST_AHEAD
from sr_train.io.video.source import (
    Source,
    codec_name,
    is_cover,
    open_video,
    start_of,
    video_stream,
)

_TAGS_OF_TRACKS = ("language", "title", "handler_name", "comment")
_TAGS_OF_CONTAINERS = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")
"""What each container says of itself, not of its contents."""
_WITH_CHAPTERS = ("mp4", "mov", "matroska", "webm")
_KEPT_FLAGS = ~av.stream.Disposition.attached_pic


class StreamCopy:
    """The tracks of a file beside its image, copied in step with the frames of another.

    Args:
        source: path or open binary file.
        out: what they go to; its header is not yet written.
        image: its video stream, which gets the tags of the source's.
        mux: writes a packet to it.
        audio: copy the sound, too.

    Raises:
        DataError: if the source cannot be read, or `out` cannot hold its sound.
    """

    def __init__(
        self,
        source: Source,
        out: OutputContainer,
        image: Any,
        mux: Callable[[av.Packet], None],
        *,
        audio: bool = True,
    ) -> None:
        self.notes: list[str] = []
        """What is left out, a line each."""
        self._mux = mux
        self._out = out
        self._kind = out.format.name
        self._container, self._name = open_video(source)
        try:
            self._image = video_stream(self._container, self._name)
            self._streams = self._added(image, audio)
        except BaseException:
            self._container.close()
            raise
        self._origin = start_of(self._container)
        self._copy_tags()
        self._clocks = {index: _Clock(stream) for index, stream in self._streams.items()}
        self._packets = self._shifted()
        self._held: tuple[Fraction, av.Packet] | None = None

    def _added(self, image: Any, audio: bool) -> dict[int, Any]:
        """Add a stream to the output for each that it can hold; return them by their index."""
        added: dict[int, Any] = {}
        for stream in self._container.streams:
            if stream.index == self._image.index or (stream.type == "audio" and not audio):
                continue
            if stream.type == "audio":
                added[stream.index] = self._with_sound(stream)
            elif stream.type == "subtitle" and self._holds(stream):
                added[stream.index] = self._out.add_stream_from_template(stream)
            elif stream.type == "attachment" and self._kind == "matroska":
                self._out.add_stream_from_template(stream)
            elif not self._is_of_chapters(stream):
                self.notes.append(f"{_words(stream)} is left out: {self._why_not(stream)}")
        copies = {**added, self._image.index: image}
        self._places = {index: copied.index for index, copied in copies.items()}
        for index, copied in copies.items():
            self._copy_tags_of_track(self._container.streams[index], copied)
        return added

    def _with_sound(self, stream: Any) -> Any:
        if not self._holds(stream):
            raise DataError(
                f"{self._name}: its audio ({codec_name(stream)}) cannot go into {self._kind}; "
                "write .mkv, which holds most, or leave the audio out"
            )
        return self._out.add_stream_from_template(stream)

    def _holds(self, stream: Any) -> bool:
        if stream.codec_context is None:
            return False
        codec = stream.codec_context.codec
        return bool({codec.name, codec.canonical_name} & self._out.supported_codecs)

    def _is_of_chapters(self, stream: Any) -> bool:
        """Return whether a track is the form in which MP4 stores chapters."""
        return stream.type == "data" and stream.name == "bin_data" and bool(self._chapters())

    def _chapters(self) -> list[Any]:
        return list(self._container.chapters())

    def _why_not(self, stream: Any) -> str:
        if stream.type == "subtitle":
            return f"{self._kind} cannot hold it; .mkv may"
        if stream.type == "attachment":
            return "only .mkv holds files"
        if stream.type == "video":
            return "it does not move" if is_cover(stream) else "only one video track is written"
        return "its kind is unknown"

    def _copy_tags(self) -> None:
        for key, value in self._container.metadata.items():
            if key.lower() not in _TAGS_OF_CONTAINERS:
                self._out.metadata[key] = value
        chapters = self._chapters()
        if chapters and self._kind not in _WITH_CHAPTERS:
            self.notes.append(f"{len(chapters)} chapters are left out")
        elif chapters:
            for chapter in chapters:
                shift = round(self._origin / chapter["time_base"])
                chapter["start"] = max(chapter["start"] - shift, 0)
                chapter["end"] = max(chapter["end"] - shift, 0)
            self._out.set_chapters(chapters)

    def _copy_tags_of_track(self, source: Any, target: Any) -> None:
        for key, value in source.metadata.items():
            if key.lower() in _TAGS_OF_TRACKS:
                target.metadata[key] = value
        if "title" in target.metadata and self._kind in {"mp4", "mov"}:
            # It has no other place there, and players show this one.
            target.metadata["handler_name"] = target.metadata["title"]
        target.disposition = source.disposition & _KEPT_FLAGS

    def losses(self, written: InputContainer) -> list[str]:
        """Return a line for each tag and flag that a file did not take, now that it is written."""
        there = {key.lower() for key in written.metadata}
        given = self._container.metadata
        lost = [key for key in given if key.lower() not in {*there, *_TAGS_OF_CONTAINERS}]
        notes = [f"tags that {self._kind} does not hold: {', '.join(lost)}"] if lost else []
        for index, place in self._places.items():
            source = self._container.streams[index]
            if place >= len(written.streams):
                notes.append(f"{_words(source)} could not be copied: damaged")
                continue
            missing = _lost_of_track(source, written.streams[place])
            if missing:
                notes.append(f"{_words(source)} loses its {', '.join(missing)}")
        return notes

    def _shifted(self) -> Iterator[tuple[Fraction, av.Packet]]:
        """Yield (seconds since the file's start, packet), past what is damaged."""
        streams = [self._container.streams[index] for index in self._streams]
        errors: list[str | None] = []
        for packet in packets_past_errors(self._container, streams, errors.append):
            errors.clear()
            if packet.size and self._clocks[packet.stream_index].set(packet, self._origin):
                time = Fraction(packet.dts or 0) * packet.time_base
                packet.stream = self._streams[packet.stream_index]
                yield time, packet
        if errors:
            self.notes.append("its sound and subtitles could not be read to their end: damaged")

    def copy_until(self, time: Fraction | None) -> None:
        """Copy what is heard before a time; all that is left for None."""
        while self._streams:
            if self._held is None:
                self._held = next(self._packets, None)
            if self._held is None or (time is not None and self._held[0] > time):
                return
            packet, self._held = self._held[1], None
            self._mux(packet)

    def close(self) -> None:
        """Close the source."""
        self._container.close()


class _Clock:
    """Lets the times of a track count from the start of the file, and continue without jumps."""

    def __init__(self, stream: Any) -> None:
        # Subtitles may begin together, and be far apart.
        self._is_sparse = stream.type == "subtitle"
        self._shift = 0
        self._last: int | None = None

    def set(self, packet: av.Packet, origin: Fraction) -> bool:
        """Set the times of a packet; return False if it has none."""
        dts = packet.pts if packet.dts is None else packet.dts
        if dts is None or not packet.time_base:
            return False
        late = 0 if packet.pts is None else packet.pts - dts
        now = dts - round(origin / packet.time_base) + self._shift
        if self._last is not None:
            ahead = (now - self._last) * packet.time_base
            # Files that were put after each other begin again; damaged times are anywhere.
            if ahead < -1 or (ahead > MOST_AHEAD and not self._is_sparse):
                jump = now - self._last - (packet.duration or 1)
                self._shift -= jump
                now -= jump
            now = max(now, self._last + (0 if self._is_sparse else 1))
        self._last = now
        packet.dts, packet.pts = now, now + late
        return True


def _lost_of_track(source: Any, target: Any) -> list[str]:
    """Return what a copy of a track lacks."""
    given, taken = source.metadata, target.metadata
    lost = []
    if given.get("language", "und") not in {"und", taken.get("language")}:
        lost.append(f"language {given['language']}")
    if "title" in given and given["title"] not in {taken.get("title"), taken.get("handler_name")}:
        lost.append(f"title {given['title']}")
    flags = source.disposition & _KEPT_FLAGS & ~target.disposition
    names = [flag.name or "" for flag in av.stream.Disposition if flag & flags]
    return [*lost, f"flag {' and '.join(names)}"] if names else lost


def _words(stream: Any) -> str:
    """Return what people call a track."""
    if is_cover(stream):
        return "the cover image"
    name = getattr(stream, "name", None) if stream.codec_context is None else codec_name(stream)
    about = [stream.metadata[key] for key in ("language", "title") if key in stream.metadata]
    known = [str(part) for part in (name, *about) if part and part != "und"]
    kinds = {"audio": "an audio track", "attachment": "an attached file"}
    what = kinds.get(stream.type, f"a {stream.type} track")
    return f"{what} ({', '.join(known)})" if known else what
