"""When memory is looked through and given back: by the C library, and by Python.

And how much of it a process has held.

A worker takes and drops megabytes for every tile. By distributed's setting glibc
returns them at once, and the system zeroes them page by page before it gives them out
again: that takes as long as all else beside the model. Kept for good they lie around in
pieces that nothing fits in, and grow with the scene. So they are kept while a task
runs, and returned when it ends. Large arrays come and go by themselves. Arrow has
memory of its own unless it is told otherwise, and keeps what it had for the largest
scene.
"""

from __future__ import annotations

import ctypes
import gc
import resource
from functools import cache
from pathlib import Path

SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""Environment of a worker; glibc reads it as a process starts."""


def return_memory() -> None:
    """Return what is free; a C library other than glibc is left to itself."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def peak_memory() -> int:
    """Most memory that this process has held so far, bytes."""
    try:
        status = Path("/proc/self/status").read_text()
        kibibytes = status.partition("VmHWM:")[2].split()[0]
    except (OSError, IndexError):
        # On Linux it would begin with what the parent had when it forked.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return int(kibibytes) << 10


def collect_less_often() -> None:
    """Let Python look for cycles less often.

    It does so while libraries are imported, which make a million objects and drop none:
    that is a fifth of the time until the first tile.
    """
    gc.set_threshold(50_000, 20, 100)
