"""How much memory this process may still use."""

import os
from pathlib import Path


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
