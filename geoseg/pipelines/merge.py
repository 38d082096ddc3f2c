"""The job `geoseg merge`: a run's scenes as one layer of polygons and one raster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyproj
from affine import Affine
from pyproj.exceptions import CRSError

from geoseg import __version__
from geoseg.errors import FileOutputError, UsageError
from geoseg.grid import Grid
from geoseg.io.lock import is_held
from geoseg.io.map_style import percent_qml
from geoseg.io.merged import Segments, same_crs, write_merged
from geoseg.io.style import shared_qml
from geoseg.io.style_file import remove_style, style_beside, write_style
from geoseg.io.virtual import Placed, is_upright, same_lattice, write_virtual
from geoseg.layout import (
    LOCK_FILE,
    MERGED,
    MERGED_CLASSES,
    MERGED_CONFIDENCE,
    WORK,
)
from geoseg.reporting.items import read_items
from geoseg.types import ClassInfo

_FEW = 3
"""Kinds that a message names, and scenes of each."""

_MOST = 10
"""Kinds that are told apart: each scene is compared with one scene of each."""


@dataclass(frozen=True, slots=True)
class MergeConfig:
    """What to merge."""

    out: Path
    """Run directory."""
    folder: Path | None = None
    """Where results go; None: the run directory."""
    crs: str | None = None
    """CRS of the polygons; None: that of all scenes."""
    polygons: bool = True
    """Write the GeoPackage."""
    rasters: bool = True
    """Write the VRTs."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What was written."""

    scenes: int
    """Scenes that were merged."""
    files: tuple[tuple[Path, str], ...]
    """Each file, and what it holds."""
    notes: tuple[str, ...]
    """What the user should know."""


@dataclass(frozen=True, slots=True)
class _Whole:
    """A whole scene, as its item tells."""

    scene_id: str
    grid: Grid
    files: Mapping[str, Path]
    """Outputs by the name of their asset."""


def run(config: MergeConfig) -> MergeResult:
    """Merge all scenes of a run directory that are whole.

    Raises:
        UsageError: There is none, or they do not fit together.
        SceneError: Polygons of a scene cannot be read.
        FileOutputError: A disk is full.
    """
    target = _target(config.crs)
    classes, scenes = _load(config.out)
    folder = config.folder or config.out
    notes = []
    if is_held(config.out / WORK / LOCK_FILE):
        notes.append("a run is at work: merged is what is whole now; merge again later")
    files = []
    if config.polygons:
        files += _merge_polygons(folder / MERGED, scenes, classes, target, notes)
    if config.rasters:
        files += _merge_rasters(folder, scenes, classes, notes)
    if not files:
        raise UsageError("; ".join(notes) or "nothing is asked for")
    return MergeResult(len(scenes), tuple(files), tuple(notes))


def _target(crs: str | None) -> str | None:
    if crs is None:
        return None
    try:
        return str(pyproj.CRS.from_user_input(crs).to_wkt("WKT2_2019"))
    except CRSError as error:
        raise UsageError(
            f"--crs {crs} is no CRS that PROJ knows; use one like EPSG:25832"
        ) from error


def _load(out: Path) -> tuple[list[ClassInfo], list[_Whole]]:
    """Read the items of a run: classes and scenes, of each no more than is needed."""
    if not out.is_dir():
        raise UsageError(f"{out} is no folder; name the -o of a `geoseg segment` call")
    scenes, classes = [], dict[int, tuple[ClassInfo, str]]()
    for scene_id, item in read_items(out):
        try:
            scenes.append(_whole(out / scene_id, scene_id, item))
            listed = _classes(item)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"the item of {scene_id} is not as geoseg writes it "
                f"({type(error).__name__}: {error}); remove it, and `geoseg segment` "
                "makes the scene again"
            ) from error
        _check_files(scenes[-1])
        _add_classes(classes, listed, scene_id)
    if not scenes:
        raise UsageError(
            f"{out} holds no finished scene; run `geoseg segment SCENES -o {out}` first"
        )
    return [classes[number][0] for number in sorted(classes)], scenes


def _check_files(scene: _Whole) -> None:
    lost = [file for file in scene.files.values() if not file.is_file()]
    if lost:
        raise UsageError(
            f"{lost[0]} is missing; run `geoseg segment` again, which makes it"
        )


def _add_classes(
    classes: dict[int, tuple[ClassInfo, str]],
    listed: Sequence[ClassInfo],
    scene_id: str,
) -> None:
    """Add classes of a scene to those of others, each with the scene it is of."""
    for info in listed:
        known, owner = classes.setdefault(info.id, (info, scene_id))
        if known.name != info.name:
            raise UsageError(
                f"class {info.id} is {known.name!r} in {owner} and {info.name!r} in "
                f"{scene_id}: they were made by different models; make all scenes "
                "with one, as `geoseg segment` does when it is called again"
            )


def _whole(folder: Path, scene_id: str, item: Mapping[str, Any]) -> _Whole:
    properties, assets = item["properties"], item["assets"]
    height, width = properties["proj:shape"]
    transform = Affine(*properties["proj:transform"])
    grid = Grid(height, width, transform, properties.get("proj:wkt2"))
    files = {
        name: folder / assets[name]["href"]
        for name in ("classes", "confidence", "segments")
        if name in assets
    }
    return _Whole(scene_id, grid, files)


def _classes(item: Mapping[str, Any]) -> list[ClassInfo]:
    listed = item["assets"]["classes"]["classification:classes"]
    return [
        ClassInfo(entry["value"], entry["title"], _rgb(entry["color_hint"]))
        for entry in listed
    ]


def _rgb(hint: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(hint)
    return red, green, blue


def _merge_polygons(
    path: Path,
    scenes: Sequence[_Whole],
    classes: Sequence[ClassInfo],
    target: str | None,
    notes: list[str],
) -> list[tuple[Path, str]]:
    drawn = [scene for scene in scenes if "segments" in scene.files]
    if not drawn:
        path.unlink(missing_ok=True)
        notes.append(f"no {path.name}: no scene has polygons (--no-polygons)")
        return []
    count = write_merged(
        path,
        [Segments(s.scene_id, s.files["segments"], s.grid) for s in drawn],
        crs=_common_crs(drawn, target),
        classes=classes,
        provenance={"software": f"geoseg {__version__}", "scenes": str(len(drawn))},
    )
    return [(path, f"{count:,} polygons of {_scenes(len(drawn))}")]


def _common_crs(scenes: Sequence[_Whole], target: str | None) -> str | None:
    """Return the CRS of all polygons, or say why there is none."""
    groups = _grouped(scenes, lambda a, b: same_crs(a.crs, b.crs))
    lost = [s for s in scenes if s.grid.crs is None]
    if target is not None:
        if lost:
            raise UsageError(
                f"{_named(lost)} without a CRS cannot be projected to --crs; give "
                "their files one, for example with gdal_edit -a_srs, and segment again"
            )
        return target
    if len(groups) > 1:
        raise UsageError(
            f"scenes are of {_counted(groups)} CRS ({_listed(groups, _crs_name)}); "
            "choose one for all polygons with --crs"
        )
    return groups[0][0].grid.crs


def _merge_rasters(
    folder: Path,
    scenes: Sequence[_Whole],
    classes: Sequence[ClassInfo],
    notes: list[str],
) -> list[tuple[Path, str]]:
    paths = {"classes": MERGED_CLASSES, "confidence": MERGED_CONFIDENCE}
    reason = _why_no_mosaic(scenes)
    if reason is not None:
        for name in paths.values():
            _remove(folder / name)
        notes.append(f"no {MERGED_CLASSES}: {reason}")
        return []
    written = []
    for asset, name in paths.items():
        found = [s for s in scenes if asset in s.files]
        if not found:
            _remove(folder / name)
            continue
        _style(folder / name, classes if asset == "classes" else None)
        write_virtual(
            folder / name,
            [Placed(s.files[asset], s.grid) for s in found],
            classes=classes if asset == "classes" else None,
            tags={"software": f"geoseg {__version__}"},
        )
        written.append((folder / name, f"{asset} of {_scenes(len(found))}"))
    return written


def _style(raster: Path, classes: Sequence[ClassInfo] | None) -> None:
    try:
        write_style(raster, percent_qml() if classes is None else shared_qml(classes))
    except OSError as error:
        raise FileOutputError(
            f"{style_beside(raster)} cannot be written: {error.strerror}; make room on "
            "its disk, or write elsewhere with -o"
        ) from error


def _remove(raster: Path) -> None:
    raster.unlink(missing_ok=True)
    remove_style(raster)


def _why_no_mosaic(scenes: Sequence[_Whole]) -> str | None:
    turned = [scene for scene in scenes if not is_upright(scene.grid)]
    if turned:
        return f"{_named(turned)} are rotated, which a VRT cannot hold; use gdalwarp"
    groups = _grouped(
        scenes, lambda a, b: same_lattice(a, b) and same_crs(a.crs, b.crs)
    )
    if len(groups) == 1:
        return None
    return (
        f"scenes are of {_counted(groups)} CRS or pixel sizes "
        f"({_listed(groups, _lattice_name)}); warp them to one with gdalwarp, or "
        "segment with one --resolution"
    )


def _grouped(
    scenes: Sequence[_Whole], same: Callable[[Grid, Grid], bool]
) -> list[list[_Whole]]:
    """Group scenes by their grids; one group more holds those of no `_MOST` groups."""
    groups: list[list[_Whole]] = []
    others: list[_Whole] = []
    for scene in scenes:
        own = (group for group in groups if same(group[0].grid, scene.grid))
        group = next(own, None)
        if group is not None:
            group.append(scene)
        elif len(groups) < _MOST:
            groups.append([scene])
        else:
            others.append(scene)
    return [*groups, others] if others else groups


def _counted(groups: Sequence[object]) -> str:
    return f"more than {_MOST}" if len(groups) > _MOST else str(len(groups))


def _listed(groups: Sequence[Sequence[_Whole]], name: Callable[[Grid], str]) -> str:
    """Name the first groups, and the first scenes of each."""
    named = [f"{name(group[0].grid)}: {_named(group)}" for group in groups[:_FEW]]
    return "; ".join([*named, "..."] if len(groups) > _FEW else named)


def _crs_name(grid: Grid) -> str:
    if grid.crs is None:
        return "none"
    crs = pyproj.CRS.from_wkt(grid.crs)
    authority = crs.to_authority(min_confidence=70)
    return ":".join(authority) if authority else crs.name


def _lattice_name(grid: Grid) -> str:
    return f"{_crs_name(grid)} at {abs(grid.transform.a):.6g}"


def _named(scenes: Sequence[_Whole]) -> str:
    names = ", ".join(scene.scene_id for scene in scenes[:_FEW])
    more = f" and {len(scenes) - _FEW} more" if len(scenes) > _FEW else ""
    return names + more


def _scenes(count: int) -> str:
    return "1 scene" if count == 1 else f"{count:,} scenes"
