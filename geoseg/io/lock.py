"""A folder for one process at a time."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoseg.errors import OutputError

logger = logging.getLogger(__name__)


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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another run writes to {folder}; wait for its end, or choose another "
                "-o"
            ) from error
        except OSError:
            logger.debug("%s lies on a disk without locks", folder)
        yield
