"""The most memory that a part of a program takes."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from vcgen.memory import peak_memory

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Peak:
    """bytes: the most that was taken, by tensors on a GPU, by the whole process on a CPU. added: above what was taken
    before the part.
    exact: False where the system cannot forget the process's earlier peak, which ``bytes`` then is at least, and
        ``added`` is unknown."""

    bytes: int = 0
    added: int | None = None
    exact: bool = True


@contextmanager
def watch_memory(device: torch.device) -> Iterator[Peak]:
    """Memory of what happens inside; the numbers are there when it is over."""
    peak = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        before = forget_peak()
    yield peak
    peak.exact = before is not None
    peak.bytes = peak_memory(device) if device.type == "cuda" or not peak.exact else resident("VmHWM")
    peak.added = peak.bytes - before if peak.exact else None


def forget_peak() -> int | None:
    """Set the kernel's high-water mark of this process to what it takes now, and return that; None where there is no
    such mark.
    """
    try:
        # Freed memory that the C library holds back would count as taken by the next part.
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR.write_text("5")
        return resident("VmRSS")
    except (OSError, AttributeError):
        return None


def resident(name: str) -> int:
    """A figure of the kernel's on this process, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
