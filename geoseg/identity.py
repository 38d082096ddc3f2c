"""What a scene is made of on disk: the files whose change makes it another one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from geoseg.errors import SceneError
from geoseg.io.gdal import open_dataset

_APPENDED = (".aux.xml", ".msk")
_REPLACED = (".tfw", ".tifw", ".tiffw", ".j2w", ".jp2w", ".wld", ".prj")
"""Sidecars that may hold a raster's nodata, mask, position or CRS."""

_DERIVED = ".ovr"
"""Overviews: scenes are read in full resolution, so they change nothing."""


def input_state(path: Path | str) -> str:
    """Hash of the names, sizes and times of change of all files behind a scene.

    Args:
        path: The raster; of a VRT, sources count too, and theirs in turn.

    Raises:
        SceneError: It cannot be opened.
    """
    digest = hashlib.sha256()
    for file in sorted(_files(str(path))):
        try:
            state = Path(file).stat()
        except OSError:
            continue  # A sidecar that is not there, or part of an archive.
        digest.update(f"{file!r} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def check_unchanged(path: str, state: str) -> None:
    """Refuse an input that is not the one that a run was planned with.

    Args:
        path: The raster.
        state: Its `input_state` then.

    Raises:
        SceneError: A file was replaced, edited or removed.
    """
    if input_state(path) != state:
        raise SceneError(f"{path} changed while it was read; run again")


def _files(path: str) -> set[str]:
    found, pending = set[str](), [path]
    while pending:
        raster = pending.pop()
        with open_dataset(raster) as dataset:
            named = [raster, *dataset.files, *_sidecars(Path(raster))]
        new = {name for name in named if not name.endswith(_DERIVED)} - found
        found |= new
        # GDAL names the sources of a VRT, and not those of a VRT among them.
        pending += [name for name in new if name.endswith(".vrt") and name != path]
    return found


def _sidecars(path: Path) -> list[str]:
    names = [path.with_name(path.name + end) for end in _APPENDED]
    return list(map(str, names + [path.with_suffix(end) for end in _REPLACED]))
