"""A folder for one process at a time, and work that only one may do at a time."""

from __future__ import annotations

import fcntl
import logging
import os
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
        OutputError: Another process holds it, or it cannot be made.
    """
    try:
        opened = path.open("a")
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written to ({error.strerror}); choose another -o"
        ) from error
    with opened as file:
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


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for a lock file, hold it, and delete it in the end.

    The system lets go of it however the process ends. Threads of a process wait for
    each other, too. On a disk without locks nobody waits.

    Args:
        path: The lock file, made when missing.
    """
    file = _next_turn(path)
    try:
        yield
    finally:
        if file is not None:
            # Before others have it: they see that it is gone, and make a new one.
            path.unlink(missing_ok=True)
            file.close()


def remove_unless_held(path: Path) -> None:
    """Delete a lock file of `in_turn` that a killed process left."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError as error:  # It is held, or was not there.
        logger.debug("%s stays as it is: %s", path, error)


def _next_turn(path: Path) -> IO[str] | None:
    """Return a lock file that is held, open; None where files cannot be locked."""
    while True:
        try:
            # For writing: NFS gives nobody else a file to himself.
            file = path.open("a")
        except OSError as error:
            logger.debug("no lock can be made at %s: %s", path, error)
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                return file
        except OSError as error:
            logger.debug("%s cannot be locked: %s", path, error)
            file.close()
            return None
        file.close()  # Who had it before has deleted it.


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


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
