"""Finding the items of whole scenes in a run directory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoseg.layout import ITEM


def find_items(out: Path) -> Iterator[tuple[str, Path]]:
    """Yield id and item of each scene that is whole, sorted by id.

    Args:
        out: Run directory.
    """
    yield from sorted(
        (Path(folder).relative_to(out).as_posix(), Path(folder, ITEM))
        for folder in _folders(out)
    )


def _folders(out: Path) -> Iterator[str]:
    for folder, below, files in os.walk(out):
        # Ids have no part that starts with a dot; geoseg's own folder of parts does.
        below[:] = [name for name in below if not name.startswith(".")]
        if ITEM in files and Path(folder) != out:
            yield folder


def read_items(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield id and content of each item that geoseg wrote, sorted by id.

    OUT may be the archive, which may hold items of its own; and items may be damaged,
    which makes their scenes unfinished.
    """
    for scene_id, path in find_items(out):
        try:
            item = json.loads(path.read_text(encoding="utf-8"))
            known = "geoseg:key" in item["properties"] and item["id"] == scene_id
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if known:
            yield scene_id, item
