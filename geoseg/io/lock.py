"""A folder for one process at a time."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from geoseg.errors import OutputError

logger = logging.getLogger(__name__)

_TRIES, _PAUSE = 5, 0.05
"""Times that a lock is asked for, seconds between: `is_held` has it for a moment."""


@contextmanager
def exclusive(path: Path, folder: Path) -> Iterator[None]:
    """Hold a lock file; the system lets go of it however the process ends.

    Args:
        path: The lock file, made when missing; its folder exists.
        folder: What it guards, for the message.

    Raises:
        OutputError: Another process holds it.
    """
    with path.open("a") as file:
        try:
            held = _lock(file)
        except OSError:
            logger.debug("%s lies on a disk without locks", folder)
        else:
            if not held:
                raise OutputError(
                    f"another run writes to {folder}; wait for its end, or choose "
                    "another -o"
                )
        yield


def is_held(path: Path) -> bool | None:
    """Tell whether a process holds a lock file; None on a disk without locks."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


def _lock(file: IO[str]) -> bool:
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False
