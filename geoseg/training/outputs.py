"""Files of a run folder, and what is told when one cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from geoseg.errors import FileOutputError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what cannot be written, and what to do.

    Args:
        path: What the block writes, and nothing else.

    Raises:
        FileOutputError: The disk is full or gone.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise unwritten(path, error) from error


def unwritten(path: Path, error: Exception, kept: str = "") -> FileOutputError:
    """The error of a file that cannot be written, from what a library raised.

    Args:
        path: The file or folder.
        error: What was raised.
        kept: What is whole all the same, a clause.
    """
    # torch and safetensors tell of a full disk in errors without its number.
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return FileOutputError(
        f"{path} cannot be written ({reason}); {kept and f'{kept}: '}make room and run "
        "the same command again"
    )
