"""The machine under a run: its allocator, and how much memory a step takes."""

import ctypes
import os
import platform
import sys
from pathlib import Path
from types import TracebackType

import torch

from sr_train.utils.memory import available_bytes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_KEEP = (1 << 31) - 1
_GIB = 2**30


def keep_heap() -> None:
    """Let glibc keep freed memory instead of handing it back between steps.

    A CPU step frees its activations at once; by default glibc then returns them to the kernel
    and the next step faults every page in again (10 to 18 % of a small step, half of the time of
    a large image's inference). Elsewhere: nothing.
    Reference: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_MAX.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)
    libc.mallopt(_M_MMAP_MAX, 0)


def give_back_large_blocks() -> None:
    """Let glibc hand blocks of 1 MiB and more back to the kernel as soon as they are free.

    By default it stops doing so for blocks up to 32 MiB once one was freed, and a network that runs
    over and over leaves gaps between them: memory grows with the first chunks of a long clip (by
    16 % for a small recurrent network). It costs time to get pages anew: 60 % of the CPU time of a
    network of 16 channels, less where there is more arithmetic. Elsewhere: nothing.
    Reference: mallopt(3), M_MMAP_THRESHOLD.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


def peak_host_bytes() -> int | None:
    """Return the largest resident size of this process so far; None where it is not known."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int | None:
    """Return the resident size of this process now; None where it is not known."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_bytes(device: torch.device) -> int:
    """Return the memory that tensors on a device may still take."""
    if device.type != "cuda":
        return available_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def trim_heap() -> None:
    """Hand back what glibc's heap keeps, so that what is taken next can be seen to be taken."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """Measure the peak of memory inside a `with` block, on the device and on the host.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.host: int | None = None
        self.on_device: int | None = None
        self._before = 0

    def __enter__(self) -> "PeakMemory":
        clear = Path("/proc/self/clear_refs")
        if clear.exists() and os.access(clear, os.W_OK):
            clear.write_text("5")  # start a new peak, see proc_pid_clear_refs(5)
        self._before = resident_bytes() or 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.host = peak_host_bytes()
        if self.device.type == "cuda":
            self.on_device = torch.cuda.max_memory_allocated(self.device)

    @property
    def growth(self) -> int:
        """Bytes of the peak beyond what was taken before the block, where the tensors lie."""
        peak = self.on_device if self.device.type == "cuda" else self.host
        return max(0, (peak or 0) - self._before)

    def __str__(self) -> str:
        parts = []
        if self.on_device is not None:
            free, total = torch.cuda.mem_get_info(self.device)
            parts.append(
                f"{self.on_device / _GIB:.2f} GiB on {self.device} "
                f"({free / _GIB:.1f} of {total / _GIB:.1f} GiB free now)"
            )
        if self.host is not None:
            parts.append(f"{self.host / _GIB:.2f} GiB of host memory")
        return "peak " + ", ".join(parts or ["not known on this system"])
