"""What a run directory holds of each scene, as its STAC items tell it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.errors import UsageError
from geoseg.reporting.items import read_items
from geoseg.types import ClassInfo


@dataclass(frozen=True, slots=True)
class Prediction:
    """A finished scene."""

    scene_id: str
    """Identity in the run."""
    source: str
    """What was segmented."""
    mask: Path
    """Class mask."""
    confidence: Path | None
    """Confidence raster; None if none was written."""
    classes: tuple[ClassInfo, ...]
    """Classes of its model."""
    model: str
    """Name of its model."""
    model_sha256: str
    """Hash of its weights and configuration."""


def read_predictions(
    out: Path, wanted: Collection[str] | None = None
) -> dict[str, Prediction]:
    """Return finished scenes of a run directory by id.

    Args:
        out: The run directory.
        wanted: Ids; None for all of them.

    Raises:
        UsageError: There is none, or they are of several models.
    """
    found = {
        scene_id: _prediction(out / scene_id, scene_id, item)
        for scene_id, item in read_items(out)
        if wanted is None or scene_id in wanted
    }
    if not found and wanted is None:
        raise UsageError(
            f"{out} holds no finished scene; name the -o of a `geoseg segment` call"
        )
    models = {one.model_sha256: one.model for one in found.values()}
    if len(models) > 1:
        raise UsageError(
            f"{out} holds scenes of several models ({', '.join(models.values())}); run "
            "`geoseg segment` again, so that they are of one"
        )
    return found


def _prediction(folder: Path, scene_id: str, item: Mapping[str, Any]) -> Prediction:
    try:
        assets, properties = item["assets"], item["properties"]
        confidence = assets.get("confidence")
        return Prediction(
            scene_id=scene_id,
            source=properties["geoseg:source"],
            mask=folder / assets["classes"]["href"],
            confidence=confidence and folder / confidence["href"],
            classes=tuple(
                _class(entry) for entry in assets["classes"]["classification:classes"]
            ),
            model=str(properties["geoseg:model"]),
            model_sha256=str(properties["geoseg:model_sha256"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{folder}/item.json is not as geoseg writes it ({type(error).__name__}: "
            f"{error}); remove it, and `geoseg segment` makes the scene again"
        ) from error


def _class(entry: Mapping[str, Any]) -> ClassInfo:
    red, green, blue = bytes.fromhex(entry["color_hint"])
    return ClassInfo(entry["value"], entry["title"], (red, green, blue))
