"""Copy the sound of one video file to another as it is, without decoding."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
from av.container import OutputContainer

from sr_train.ops.errors import DataError
from sr_train.ops.video_io import Source, open_video, start_of


class AudioCopy:
    """The audio tracks of a file, copied packet by packet in step with the frames of another.

    Args:
        source: path or open binary file.
        out: what they go to; its header is not yet written.
        mux: writes a packet to it.

    Raises:
        DataError: if the source cannot be read, or `out` cannot hold a track.
    """

    def __init__(
        self, source: Source, out: OutputContainer, mux: Callable[[av.Packet], None]
    ) -> None:
        self._mux = mux
        self._container, name = open_video(source)
        self._streams = {}
        for stream in self._container.streams.audio:
            codec = stream.codec_context.codec.canonical_name
            if codec not in out.supported_codecs:
                self._container.close()
                raise DataError(
                    f"{name}: its audio ({codec}) cannot go into {out.format.name}; write .mkv, "
                    "which holds any, or leave the audio out"
                )
            self._streams[stream.index] = out.add_stream_from_template(stream)
        self._packets = self._shifted()
        self._held: tuple[Fraction, av.Packet] | None = None

    def _shifted(self) -> Iterator[tuple[Fraction, av.Packet]]:
        """Yield (seconds since the file's start, packet)."""
        origin = start_of(self._container)
        for packet in self._container.demux(*self._container.streams.audio):
            if packet.dts is None:
                continue
            shift = round(origin / packet.time_base)
            time = packet.dts * packet.time_base - origin
            packet.dts -= shift
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.stream = self._streams[packet.stream_index]
            yield time, packet

    def copy_until(self, time: Fraction | None) -> None:
        """Copy what is heard before a time; all that is left for None."""
        while self._streams:
            if self._held is None:
                self._held = next(self._packets, None)
            if self._held is None or (time is not None and self._held[0] > time):
                return
            self._mux(self._held[1])
            self._held = None

    def close(self) -> None:
        """Close the source."""
        self._container.close()
