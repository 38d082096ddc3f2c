"""Finding the scenes of a call, in files, folders, manifests, URLs and STAC."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from geoseg.discovery import manifest
from geoseg.discovery.catalog import read_catalog
from geoseg.discovery.files import expand, is_folder
from geoseg.discovery.found import Found
from geoseg.discovery.ids import as_text, common_root, safe_id, scene_id
from geoseg.errors import UsageError
from geoseg.io.location import (
    is_virtual,
    name_for_gdal,
    shown,
    suffix_of,
    tree_parts,
)
from geoseg.types import StacSource

CATALOGUES = (".json", ".geojson")
"""What a STAC document's name ends in, lower case."""


@dataclass(frozen=True, slots=True)
class SceneFile:
    """One scene of the archive."""

    path: str
    """What GDAL opens: an absolute path, or a /vsi name, of URLs too."""
    scene_id: str
    """Its path below the root without the extension, or its STAC id; made safe."""
    item: StacSource | None = None
    """The STAC item that it was given as."""


def find_scenes(
    scenes: Sequence[str | Path],
    root: str | Path | None = None,
    *,
    asset: str | None = None,
    distinct: bool = True,
) -> tuple[list[SceneFile], str]:
    """Find scenes in files, folders, manifests, URLs and catalogues; give each its id.

    Args:
        scenes: Files, patterns (`2024/*.tif`), folders, which are searched through,
            manifests (.txt, .csv), URLs, names of GDAL's own, or STAC documents.
        root: What ids are relative to, a folder or a URL; by default the folder given,
            else the files' common folder.
        asset: Key or role of the assets of STAC items that are the scenes.
        distinct: Refuse scenes that would share an id.

    Returns:
        Scenes in the order found, without duplicates, and the root; "" where no id
        depends on one.

    Raises:
        UsageError: A path does not exist, a folder holds no scene, a scene lies outside
            the root, or two scenes would share an id.
    """
    if not scenes:
        raise UsageError("no scene is given; name files, folders or patterns")
    entries = [name_for_gdal(str(scene)) for scene in scenes]
    found = _unique([one for entry in entries for one in _find(entry, asset)])
    base = _root(entries, found, root)
    named = [
        SceneFile(one.name, one.given_id or scene_id(one.name, base), one.item)
        for one in found
    ]
    if distinct:
        _check_ids(named)
    return named, base


def _check_ids(scenes: Sequence[SceneFile]) -> None:
    owners: dict[str, str] = {}
    for scene in scenes:
        # Case must not tell scenes apart: some file systems would merge them.
        other = owners.setdefault(scene.scene_id.casefold(), scene.path)
        if other != scene.path:
            raise UsageError(
                f"{shown(other)} and {shown(scene.path)} would both be scene "
                f"'{scene.scene_id}'; rename one, or run them into two folders"
            )


def mosaic_id(scenes: Sequence[str | Path]) -> str:
    """Return the id of sheets that are one scene: the name of what lists them all."""
    if len(scenes) == 1:
        name = name_for_gdal(str(scenes[0]))
        name = name if is_virtual(name) else os.path.realpath(name)
        last = PurePosixPath(tree_parts(name)[-1])
        if is_folder(name):
            return safe_id([last.name], name)
        if last.suffix.lower() in (*manifest.SUFFIXES, *CATALOGUES):
            return safe_id([last.stem], name)
    return "mosaic"


def _find(entry: str, asset: str | None, *, listed: bool = False) -> list[Found]:
    """Return what one entry stands for.

    Args:
        entry: Path, pattern, or name of GDAL's own.
        asset: Key or role of STAC assets.
        listed: The entry is a line of a manifest.
    """
    found = []
    for name in expand(entry):
        if suffix_of(name) in manifest.SUFFIXES and not listed:
            found += manifest.read_manifest(name, partial(_find_listed, asset=asset))
        elif suffix_of(name) in CATALOGUES:
            found += read_catalog(name, asset)
        else:
            found.append(Found(name))
    return found


def _find_listed(location: str, asset: str | None) -> list[Found]:
    return _find(name_for_gdal(location), asset, listed=True)


def _unique(found: Sequence[Found]) -> list[Found]:
    """Take each raster once; a link and what it leads to are one, named for that."""
    kept: dict[str, Found] = {}
    for one in found:
        real = one.name if is_virtual(one.name) else os.path.realpath(one.name)
        if real not in kept or (one.name == real and kept[real].given_id is None):
            kept[real] = one
    return list(kept.values())


def _root(
    entries: Sequence[str], found: Sequence[Found], root: str | Path | None
) -> str:
    if root is not None:
        name = name_for_gdal(str(root))
        return as_text(tree_parts(name if is_virtual(name) else os.path.realpath(name)))
    names = [one.name for one in found if one.given_id is None]
    if not names:
        return ""
    folders = [entry for entry in entries if is_folder(entry)]
    if len(folders) == 1:
        folder = folders[0] if is_virtual(folders[0]) else os.path.realpath(folders[0])
        parts = tree_parts(folder)
        if all(tree_parts(name)[: len(parts)] == parts for name in names):
            return as_text(parts)
    return common_root(names)
