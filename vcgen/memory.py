"""Memory on a CPU: blocks that a step has freed are kept for the next step."""

import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Of glibc's mallopt(3): free memory above this many bytes at the top of the heap goes back to the system; larger
#: blocks are mapped.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: Larger than any block of a step, and than what a step frees.
LARGE = 2**31 - 1


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell glibc to keep what is freed, and say whether it will.

    By default it maps blocks of some megabytes anew at every request and unmaps them when they are freed: a training
    step on a CPU then pays for empty pages over and over. The process keeps its peak instead, which it would need at
    the next step anyway. Nothing happens where another C library is in use, and where the user has set the allocator by
    the environment (MALLOC_..., GLIBC_TUNABLES)."""
    if any(name.startswith("MALLOC_") for name in environ) or "malloc" in environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have none, Windows has no such library
        return False
    return all(mallopt(option, LARGE) == 1 for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))


def peak_memory(device: "torch.device") -> int:
    """Bytes: the most that tensors took on a GPU, or that this process took of a CPU's memory."""
    if device.type == "cuda":
        import torch  # stays out of the start of every command

        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
