"""Scene ids: their way below a root, each part safe as a folder's name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from urllib.parse import quote

from geoseg.errors import OutsideRootError, UsageError
from geoseg.io.location import name_for_gdal, shown, tree_parts
from geoseg.layout import RESERVED


def common_root(names: Sequence[str]) -> str:
    """Return the folder that all files lie below, as text of its own."""
    first, *others = (tree_parts(name)[:-1] for name in names)
    length = len(first)
    for parts in others:
        pairs = zip(first[:length], parts, strict=False)
        length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return as_text(first[:length])


def as_text(parts: Sequence[str]) -> str:
    """Write the parts of a way as a path or a URL."""
    top, *below = parts[1:] or [""]
    if top.startswith("http"):
        below = [quote(part, safe="") for part in below]
    if "://" in top:
        return "/".join([top, *below])
    return str(PurePosixPath(*parts))


def scene_id(name: str, root: str) -> str:
    """Return the way below a root without the extension, made safe (contract C12).

    Raises:
        OutsideRootError: The scene does not lie below it.
    """
    parts, above = tree_parts(name), tree_parts(name_for_gdal(root))
    if parts[: len(above)] != above or len(parts) == len(above):
        raise OutsideRootError(
            f"{shown(name)} lies outside the root {root}; pass another --root"
        )
    *folders, last = parts[len(above) :]
    # Of scenes on several servers; whether by https or s3 says nothing.
    folders = [part.rpartition("://")[2] for part in folders]
    return "/".join(map(_safe, [*folders, PurePosixPath(last).stem]))


def safe_id(parts: Iterable[str], whose: str) -> str:
    """Return an id that somebody gave, made safe (contract C12).

    Args:
        parts: What stands between its slashes.
        whose: What has it, for the message.

    Raises:
        UsageError: Nothing is left of it.
    """
    safe = "/".join(_safe(part) for part in parts if part)
    if not safe:
        raise UsageError(f"{whose} has no id; give it one")
    return safe


def _safe(part: str) -> str:
    # Composed: some file systems hold an accent as a character of its own.
    cleaned = re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", part))
    # No leading dot: "..", hidden files and geoseg's own folder cannot be met.
    cleaned = re.sub(r"^\.+", "_", cleaned) or "_"
    return f"{cleaned}_" if cleaned.casefold() in RESERVED else cleaned
