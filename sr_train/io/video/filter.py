"""Turn RGB frames into the pixel format of a video, as players turn them back."""

from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av.filter import Graph
from av.video.reformatter import ColorRange

_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_SCALING = "bicubic+full_chroma_int+full_chroma_inp+accurate_rnd"


class FromRGB:
    """Turns frames of one size and depth into another pixel format, in studio range, tagged.

    A filter does it, as only it places chroma samples where asked: to the left of luma, as players
    take it for H.264 and HEVC.

    Args:
        pixel_format: FFmpeg's name for it.
        matrix: of the colours, as H.273 numbers it; of no account for RGB.
    """

    def __init__(self, pixel_format: str, matrix: int) -> None:
        self.is_rgb = av.VideoFormat(pixel_format).is_rgb
        self._format = pixel_format
        self._matrix = matrix
        self._graph: Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> Any:
        """Return the frame in the other format; it has no time yet."""
        frame.pts, frame.time_base = 0, Fraction(1)
        if self._graph is None:
            self._graph = self._made(frame)
        self._graph.push(frame)
        converted: Any = self._graph.pull()
        if not self.is_rgb:
            converted.colorspace = self._matrix
            converted.color_range = ColorRange.MPEG.value
        return converted

    def _made(self, frame: av.VideoFrame) -> Graph:
        settings = [f"flags={_SCALING}"]
        if not self.is_rgb:
            settings += [f"out_color_matrix={_MATRICES[self._matrix]}", "in_range=pc:out_range=tv"]
            if av.VideoFormat(self._format).chroma_width(2) == 1:
                settings.append("out_chroma_loc=left")
        graph = Graph()
        nodes = [
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=Fraction(1),
            ),
            graph.add("scale", ":".join(settings)),
            graph.add("format", self._format),
            graph.add("buffersink"),
        ]
        for one, following in pairwise(nodes):
            one.link_to(following)
        graph.configure()
        return graph
