"""Options of clusters as they may be recorded: without passwords and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from geoseg.io.location import without_secrets

MASK = "***"
"""Stands for what is not recorded."""

_NAME = (
    r"(?:pass(?:word|wd|phrase)|secret|token|credential|(?:api|access|private)[_-]?key)"
)

_SECRET = re.compile(_NAME, re.IGNORECASE)
"""What names of secrets hold."""

_ASSIGNED = re.compile(
    rf"(\w*{_NAME}\w*[=: ]\s*)(\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE
)
"""A secret of a command line or of a line of a script, and its name."""


def masked(value: object, name: str = "") -> object:
    """Return plain values with a mask in place of each secret.

    Args:
        value: Mappings, lists and scalars.
        name: Key of the value.
    """
    if value is None or isinstance(value, bool):
        return value
    if _SECRET.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    if isinstance(value, str):
        return _ASSIGNED.sub(rf"\1{MASK}", without_secrets(value))
    return value


def masks(value: object, name: str = "") -> Iterator[str]:
    """Yield the dotted name of each value that holds a mask.

    Args:
        value: Mappings, lists and scalars.
        name: Dotted name of the value.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from masks(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from masks(item, name)
    elif isinstance(value, str) and MASK in value:
        yield name
