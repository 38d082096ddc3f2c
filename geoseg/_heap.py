"""What the C library does with memory that a worker takes and drops for every tile.

By distributed's setting glibc returns it at once, and the system zeroes it page by page
before it gives it out again: that takes as long as all else beside the model. Kept for
good it lies around in pieces that nothing fits in, and grows with the scene. So it is
kept while a task runs, and returned when the task ends.
"""

from __future__ import annotations

import ctypes
from functools import cache

SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
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
