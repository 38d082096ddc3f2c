"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_MARK = ".geoseg-tmp-"
"""Part of every temporary name, so that leftovers of a killed run are recognised."""

_WORK = ".geoseg-work-"
"""The same for folders."""


_SIDECARS = ("-journal", "-wal", "-shm", ".aux.xml")
"""What libraries may leave beside a file that they wrote well."""

_MOST_BYTES = 180
"""Of a name in a temporary one; libraries add to that, as in `-journal`."""


@contextmanager
def atomic_path(final: Path, folder: Path | None = None) -> Iterator[Path]:
    """Give a temporary name that becomes `final` when the block ends without an error.

    The name lies in `folder` or that of `final`, hence on the same file system; it is
    hidden and has the same suffix, which drivers choose a format by. After an error the
    temporary file and everything named after it (journals, sidecars) are removed and
    `final` is as it was. The folder of `final` is made when it is missing.

    Args:
        final: Path of the finished file; an older file there is replaced.
        folder: Folder on the same file system, of `work_folder`.

    Yields:
        Path to write to; the file must exist when the block ends.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(6)
    # Libraries that write it read `!` and `;` in their own ways.
    stem = re.sub("[!;]", "_", final.stem)
    # The token comes before the suffix: two workers may write the same file at once.
    name = f".{_cut(stem)}{_MARK}{token}{final.suffix}"
    temporary = (folder or final.parent) / name
    try:
        yield temporary
        publish(temporary, final)
    except BaseException:
        _remove_named_after(temporary)
        raise
    # Known by name: to look through the folder of 100,000 parts takes longer than one.
    for ending in _SIDECARS:
        temporary.with_name(temporary.name + ending).unlink(missing_ok=True)


def publish(temporary: Path, final: Path) -> None:
    """Rename a whole file into place so that it survives a power cut.

    Args:
        temporary: A finished file on the file system of `final`.
        final: Its new name; an older file there is replaced.
    """
    _fsync(temporary)
    temporary.replace(final)
    _fsync(final.parent)  # The rename itself is data of the folder.


def share(path: Path) -> None:
    """Give a file the rights of any new one, where a library writes for its owner only.

    Whoever may read the other files of a run or of a model must be able to use it:
    safetensors leaves 0600. A disk that knows no rights is left as it is.
    """
    with suppress(OSError):
        path.chmod(_new_file_mode())


@cache
def _new_file_mode() -> int:
    # It can only be read by setting it; other threads see no laxer one meanwhile.
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of a killed run from a folder that nobody writes to.

    Args:
        folder: Where `atomic_path` wrote; its subfolders are left alone.
    """
    for path in folder.glob(f".*{_MARK}*"):
        path.unlink(missing_ok=True)


@contextmanager
def work_folder(final: Path) -> Iterator[Path]:
    """Make a hidden folder beside `final` for what is needed until that is whole.

    It is removed when the block ends. Folders of the same file that killed processes
    left are removed before; those of processes that live stay.

    Args:
        final: Path of the finished file, in a folder that is there.

    Raises:
        OSError: The folder cannot be made.
    """
    prefix = f".{_cut(final.name)}{_WORK}"
    for path in final.parent.iterdir():
        if path.name.startswith(prefix):
            _remove_unless_held(path)
    folder, descriptor = _make_held(final.parent, prefix)
    try:
        yield folder
    finally:
        # What cannot be removed now is by the next run; what is whole stays whole.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _cut(name: str) -> str:
    """Cut a name that leaves no room for a mark in the 255 bytes of a file's name.

    What is made of it may then begin as another file's does, which nothing minds.
    """
    return os.fsdecode(os.fsencode(name)[:_MOST_BYTES])


def _make_held(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder and lock it; the system lets go of it however the process ends.

    Returns:
        The folder, and what to close in the end.
    """
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(6)}"
        folder.mkdir()
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # Another process took it for one of the dead.
            continue
        # So may one before it is locked.
        if _lock(descriptor) is not False and folder.exists():
            return folder, descriptor
        os.close(descriptor)


def _remove_unless_held(folder: Path) -> None:
    """Remove a folder if it is known that no process holds it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # Removed meanwhile, or nothing that geoseg made.
        return
    try:
        if _lock(descriptor):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock a file for this process.

    Returns:
        Whether that went well; None on a disk without locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


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
