"""How much memory this process may still use, and errors that show it was too little."""

import os
from pathlib import Path

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "_STATUS_ALLOC_FAILED",
    "could not create a primitive",
    "Insufficient memory",
    "Failed to allocate",
)
"""What the errors of CUDA, MPS, the CPU's allocator, cuDNN and cuBLAS, oneDNN and OpenCV say."""


def is_out_of_memory(err: BaseException) -> bool:
    """Tell an allocation that failed, on any device and in any library, from other errors."""
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        return True
    of_a_library = isinstance(err, RuntimeError) or type(err).__module__.startswith("cv2")
    return of_a_library and any(word in str(err) for word in _WORDS)


def available_bytes() -> int:
    """Return the memory that this process may still use: the machine's and its group's limit."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return min([free, *_group_limits()])


def _group_limits() -> list[int]:
    """Return what is left under each memory limit of the control groups we are in."""
    left = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.strip("/")
        while True:
            limit, used = (_lines(folder / name) for name in names[:2])
            if limit and used and limit[0] != "max":
                stat = dict(line.split() for line in _lines(folder / "memory.stat"))
                # File cache that the kernel would give back counts as used there.
                left.append(max(0, int(limit[0]) - int(used[0]) + int(stat.get(names[2], 0))))
            if folder == root:
                break
            folder = folder.parent
    return left


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
