"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = ".geoseg-tmp-"
"""Part of every temporary name, so that leftovers of a killed run are recognised."""


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Give a temporary name that becomes `final` when the block ends without an error.

    The name lies in the folder of `final`, hence on the same file system; it is hidden
    and has the same suffix, which drivers choose a format by. After an error the
    temporary file and everything named after it (journals, sidecars) are removed and
    `final` is as it was. The folder is made when it is missing.

    Args:
        final: Path of the finished file; an older file there is replaced.

    Yields:
        Path to write to; the file must exist when the block ends.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(6)
    # The token comes before the suffix: two workers may write the same file at once.
    temporary = final.with_name(f".{final.stem}{_MARK}{token}{final.suffix}")
    try:
        yield temporary
        publish(temporary, final)
    finally:
        _remove_named_after(temporary)


def publish(temporary: Path, final: Path) -> None:
    """Rename a whole file into place so that it survives a power cut.

    Args:
        temporary: A finished file in the folder of `final`.
        final: Its new name; an older file there is replaced.
    """
    _fsync(temporary)
    temporary.replace(final)
    _fsync(final.parent)  # The rename itself is data of the folder.


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of a killed run from a folder that nobody writes to.

    Args:
        folder: Where `atomic_path` wrote; its subfolders are left alone.
    """
    for path in folder.glob(f".*{_MARK}*"):
        path.unlink(missing_ok=True)


def _remove_named_after(temporary: Path) -> None:
    """Remove a temporary file with its sidecars; the token makes the prefix unique."""
    stem = temporary.name.removesuffix(temporary.suffix)
    for path in temporary.parent.iterdir():
        if path.name.startswith(stem):
            path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
