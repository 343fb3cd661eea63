"""Which names of files are taken for images, videos and tensors: for training and use alike."""

import os

Name = str | os.PathLike[str]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
"""Lower case, as all of these."""

VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".divx"),
        *(".ts", ".m2ts", ".mts", ".m2t", ".mpg", ".mpeg", ".vob", ".m1v", ".m2v", ".wmv", ".asf"),
        *(".flv", ".ogv", ".mxf", ".nut", ".dv", ".rm", ".rmvb", ".gif", ".y4m", ".ivf", ".obu"),
        *(".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg"),
    }
)
"""Of videos that can be read; `sr_train.io.video.codecs` has those that can be written."""

TENSOR_SUFFIXES = frozenset({".npy", ".pt", ".pth"})


def suffix_of(name: Name) -> str:
    """Return the suffix of a name in lower case, with its dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()


def is_image_file(name: Name) -> bool:
    """Return whether a name is that of an image."""
    return suffix_of(name) in IMAGE_SUFFIXES


def is_video_file(name: Name) -> bool:
    """Return whether a name is that of a video."""
    return suffix_of(name) in VIDEO_SUFFIXES


def is_tensor_file(name: Name) -> bool:
    """Return whether a name is that of a tensor."""
    return suffix_of(name) in TENSOR_SUFFIXES
