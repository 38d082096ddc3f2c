"""What a scene is made of: the files whose change makes it another one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from geoseg.errors import SceneError
from geoseg.io.gdal import files_behind, is_description, open_dataset
from geoseg.io.location import is_remote, is_virtual, shown, suffix_of
from geoseg.io.vsi import read_chunks, renew

_APPENDED = (".aux.xml", ".msk")
_REPLACED = (".tfw", ".tifw", ".tiffw", ".j2w", ".jp2w", ".wld", ".prj")
"""Sidecars that may hold a raster's nodata, mask, position or CRS."""

_DERIVED = ".ovr"
"""Overviews: scenes are read in full resolution, so they change nothing."""


def input_state(path: Path | str) -> str:
    """Hash of the names, sizes and times of change of all files behind a scene.

    Args:
        path: The raster; of a VRT, sources count too, and theirs in turn. A file of
            another machine has an ETag, or a time of change and a size; what lies
            beside it is not looked at.

    Raises:
        SceneError: It cannot be opened, or its server does not answer.
    """
    return _digest(str(path), _stat)


def input_content(path: Path | str) -> str:
    """Hash of the names and the content of all files behind a scene, all of them read.

    Raises:
        SceneError: It cannot be opened, or not read to its end.
    """
    return _digest(str(path), _content)


def check_unchanged(path: str, state: str) -> None:
    """Refuse an input that is not the one that a run was planned with.

    Args:
        path: The raster.
        state: Its `input_state` then.

    Raises:
        SceneError: A file was replaced, edited or removed.
    """
    if input_state(path) != state:
        raise SceneError(f"{shown(path)} changed while it was read; run again")


def _digest(path: str, describe: Callable[[str], str | None]) -> str:
    digest = hashlib.sha256()
    for file in sorted(_files(path)):
        state = describe(file)
        if state is not None:
            name = shown(file) if is_virtual(file) else file
            digest.update(f"{name!r} {state}\n".encode())
    return digest.hexdigest()


def _stat(file: str) -> str | None:
    """Describe a file; a sidecar that is not there, or part of an archive, is none."""
    if is_remote(file):
        return renew(file)
    if file.endswith(".vrt"):
        return _content(file)  # Small, and often written again as it was.
    try:
        state = Path(file).stat()
    except OSError:
        return None
    return f"{state.st_size} {state.st_mtime_ns}"


def _content(file: str) -> str | None:
    if not is_remote(file) and not Path(file).is_file():
        return None
    digest = hashlib.sha256()
    for chunk in read_chunks(file):
        digest.update(chunk)
    return digest.hexdigest()


def _files(path: str) -> set[str]:
    if is_remote(path):
        if suffix_of(path) != ".vrt":
            # GDAL would ask for thirty files that may lie beside it.
            return {path}
        renew(path)
    found, pending = set[str](), [path]
    while pending:
        raster = pending.pop()
        with open_dataset(raster) as dataset:
            named = [raster, *dataset.files, *_sidecars(raster)]
            if is_virtual(raster) and not is_remote(raster):
                named += files_behind(dataset)  # The archive that it lies in.
        new = {name for name in named if not name.endswith(_DERIVED)} - found
        found |= new
        # GDAL names the sources of a VRT, and not those of a VRT among them.
        pending += [name for name in new if _is_vrt(name) and name != path]
    return found


def _is_vrt(name: str) -> bool:
    # GDAL goes by the content.
    return name.endswith(".vrt") or is_description(name)


def _sidecars(raster: str) -> list[str]:
    """Return what GDAL may name or not; of remote files it names what is there."""
    if is_virtual(raster):
        return []
    path = Path(raster)
    names = [path.with_name(path.name + end) for end in _APPENDED]
    return list(map(str, names + [path.with_suffix(end) for end in _REPLACED]))
