"""The last task of a scene: join its parts into the outputs and mark it as whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geoseg._heap import peak_memory
from geoseg.errors import FileOutputError, SceneAccessError, VectorizeError
from geoseg.generalizing import Generalization, generalize
from geoseg.graph import (
    PartRecord,
    SceneJob,
    discard_parts,
    part_path,
    raster_names,
)
from geoseg.grid import Grid
from geoseg.identity import check_unchanged
from geoseg.io.atomic import remove_leftovers
from geoseg.io.cog import write_cog
from geoseg.io.location import shown
from geoseg.io.map_style import percent_qml
from geoseg.io.mosaic import Part
from geoseg.io.passing import access_error
from geoseg.io.stac import SOURCE, write_item
from geoseg.io.style import shared_qml
from geoseg.io.style_file import remove_style, write_style
from geoseg.io.vector import write_segments
from geoseg.layout import CLASSES, CONFIDENCE, ITEM, SCORES, SEGMENTS
from geoseg.vectorize import join_parts


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """One class in one scene."""

    id: int
    """Value in the class mask."""
    name: str
    """Name of the class."""
    pixels: int
    """Pixels of the class."""
    polygons: int | None
    """Polygons of the class; None if none were asked for."""
    area_m2: float | None
    """True ground area of polygons; None without a CRS, without polygons, or where that
    of one is unknown."""


@dataclass(frozen=True, slots=True)
class SceneResult:
    """A finished scene."""

    scene_id: str
    """Identity in the run."""
    folder: str
    """Folder of its outputs."""
    key: str
    """Key that it was computed under."""
    tiles: int
    """Tiles that cover it."""
    skipped: int
    """Tiles without data, which never reached the model."""
    classes: tuple[ClassSummary, ...]
    """What was found."""
    memory: int | None = field(default=None, compare=False)
    """Most memory of a worker by the end of its work on it, bytes; None where an
    earlier call did that."""


def finish_scene(job: SceneJob, records: Sequence[PartRecord]) -> SceneResult:
    """Write the outputs under their final names, `item.json` last; delete the parts.

    Raises:
        SceneError: The input has changed, the disk is full, the folder cannot be
            written, or a part cannot be read.
    """
    # A file that is written in place while it is read looks the same to each task.
    check_unchanged(job.scene.path, job.state)
    out = Path(job.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        # From here on the scene is not whole until the new item is there.
        (out / ITEM).unlink(missing_ok=True)
        grid = job.scene.grid.window(job.grid.output)
        assets = _write_rasters(job, out, grid)
        summary = _write_polygons(job, out, records)
        if job.polygons:
            assets["segments"] = SEGMENTS
        result = _result(job, records, summary)
        _write_item(job, out, grid, assets, result)
    except VectorizeError as error:  # A part that cannot be read, or not just now.
        raise SceneAccessError(str(error)) from error
    except FileOutputError as error:
        raise access_error(f"the outputs of {job.scene_id}: {error}", error) from error
    except OSError as error:
        raise access_error(
            f"the outputs of {job.scene_id} cannot be written to {out}: {error}; free "
            "some space or choose another -o",
            error,
        ) from error
    discard_parts(job.work)
    return result


def read_result(folder: Path, scene_id: str, key: str) -> SceneResult | None:
    """Result of a scene that is whole under this key, as its item tells it, else None.

    Args:
        folder: Folder of its outputs.
        scene_id: Identity in the run.
        key: Key that it must have been computed under.
    """
    try:
        item = json.loads((folder / ITEM).read_text(encoding="utf-8"))
        properties = item["properties"]
        if properties["geoseg:key"] != key:
            return None
        files = [
            folder / asset["href"]
            for name, asset in item["assets"].items()
            if name != SOURCE
        ]
        result = SceneResult(
            scene_id=scene_id,
            folder=str(folder.absolute()),
            key=key,
            tiles=properties["geoseg:tiles"],
            skipped=properties["geoseg:tiles_skipped"],
            classes=tuple(
                ClassSummary(**entry) for entry in properties["geoseg:classes"]
            ),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # Missing, foreign or damaged: made again.
    return result if all(file.is_file() for file in files) else None


def _write_rasters(job: SceneJob, out: Path, grid: Grid) -> dict[str, str]:
    # A part's raster has the name of the scene's.
    names = {Path(name).stem: name for name in raster_names(job)}
    origin = job.grid.output
    for name in names.values():
        style = shared_qml(job.classes) if name == CLASSES else percent_qml()
        write_style(out / name, style)
        parts = [
            Part(part_path(job, band.index, name), band.output.relative_to(origin))
            for band in job.parts
        ]
        write_cog(
            parts,
            out / name,
            grid=grid,
            classes=job.classes if name == CLASSES else None,
            tags={"scene_id": job.scene_id, **dict(job.provenance)},
            work=Path(job.work),
            codec=job.codec,
            bands=[c.name for c in job.classes] if name == SCORES else [""],
        )
    for name in {CLASSES, CONFIDENCE, SCORES} - set(names.values()):
        (out / name).unlink(missing_ok=True)
        remove_style(out / name)
    return names


def _write_polygons(
    job: SceneJob, out: Path, records: Sequence[PartRecord]
) -> tuple[ClassSummary, ...]:
    counts = {c.id: sum(r.pixels.get(c.id, 0) for r in records) for c in job.classes}
    if not job.polygons:
        (out / SEGMENTS).unlink(missing_ok=True)
        return tuple(
            ClassSummary(c.id, c.name, counts[c.id], None, None) for c in job.classes
        )
    spill = Path(job.work)
    parts = [part_path(job, band.index, "polygons.part") for band in job.parts]
    names = [c.name for c in job.classes if c.id in job.excluded]
    totals = write_segments(
        out / SEGMENTS,
        generalize(
            join_parts(parts, spill=spill), job.generalization, job.scene.grid, spill
        ),
        grid=job.scene.grid,
        classes=[c for c in job.classes if c.id not in job.excluded],
        scene_id=job.scene_id,
        provenance={
            **dict(job.provenance),
            **vector_settings(job.generalization, names),
        },
    )
    return tuple(
        ClassSummary(
            c.id,
            c.name,
            counts[c.id],
            totals[c.id].polygons if c.id in totals else None,
            totals[c.id].area_m2 if c.id in totals else None,
        )
        for c in job.classes
    )


def vector_settings(
    generalization: Generalization, excluded: Iterable[str]
) -> dict[str, str]:
    """Return what a layer's metadata says of polygons that are not as traced."""
    settings = {
        "min_area_m2": f"{generalization.min_area:g}",
        "simplify": f"{generalization.simplify:g}",
        "excluded": ", ".join(excluded),
    }
    return {key: value for key, value in settings.items() if value not in ("0", "")}


def _result(
    job: SceneJob, records: Sequence[PartRecord], classes: tuple[ClassSummary, ...]
) -> SceneResult:
    return SceneResult(
        scene_id=job.scene_id,
        folder=job.out,
        key=job.key,
        tiles=sum(record.tiles for record in records),
        skipped=sum(record.skipped for record in records),
        classes=classes,
        memory=max([peak_memory(), *(record.memory for record in records)]),
    )


def _write_item(
    job: SceneJob, out: Path, grid: Grid, assets: dict[str, str], result: SceneResult
) -> None:
    provenance = dict(job.provenance)
    properties: dict[str, object] = {
        "geoseg:key": job.key,
        "geoseg:source": shown(job.scene.path),
        "geoseg:model": provenance.get("model"),
        "geoseg:model_sha256": provenance.get("model_sha256"),
        "geoseg:tiles": result.tiles,
        "geoseg:tiles_skipped": result.skipped,
        "geoseg:classes": [
            {
                "id": entry.id,
                "name": entry.name,
                "pixels": entry.pixels,
                "polygons": entry.polygons,
                "area_m2": entry.area_m2,
            }
            for entry in result.classes
        ],
    }
    times = job.item.times if job.item is not None else ()
    if not times and job.scene.acquired is not None:
        times = (("datetime", job.scene.acquired),)
    properties |= dict(times)
    write_item(
        out / ITEM,
        scene_id=job.scene_id,
        grid=grid,
        classes=job.classes,
        assets=assets,
        properties=properties,
        source=shown(job.scene.path),
        source_item=job.item,
        collection=job.collection,
    )
