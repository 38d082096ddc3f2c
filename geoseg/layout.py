"""Names in a run directory; what only reads one needs no more than this."""

from __future__ import annotations

import hashlib
import re

CLASSES, CONFIDENCE, SCORES = "classes.tif", "confidence.tif", "scores.tif"
"""Rasters of a scene."""

SEGMENTS, ITEM = "segments.gpkg", "item.json"
"""Polygons of a scene, and what marks it as whole."""

PREVIEW = "preview.png"
"""Name of the picture beside a scene's results."""

RUN_YAML, MODEL = "run.yaml", "model.json"
"""Configuration of a run, and what its model is."""

PICTURES = "pictures"
"""Folder of what a training run shows of its predictions."""

PICTURE = re.compile(r"step-\d{6,}-.+\.png")
"""Names of the files in it: the step, and what they show."""

REPORT, PAGE, COLLECTION = "report.json", "report.html", "collection.json"
"""What became of the scenes, for programs, for people, and for catalogues."""

MERGED, MERGED_CLASSES, MERGED_CONFIDENCE = (
    "merged.gpkg",
    "classes.vrt",
    "confidence.vrt",
)
"""What `geoseg merge` makes of a run."""

RUN_FILES = (
    *(RUN_YAML, MODEL, REPORT, PAGE, COLLECTION),
    *(MERGED, MERGED_CLASSES, MERGED_CONFIDENCE),
)
"""Files of the run itself."""

STYLES = ("classes.qml", "confidence.qml", "scores.qml")
"""What these open with in QGIS."""

RESERVED = frozenset(
    {*RUN_FILES, CLASSES, f"{CLASSES}.aux.xml", CONFIDENCE, SCORES}
    | {*STYLES, SEGMENTS, ITEM, PREVIEW}
)
"""No folder may take the name of a file beside it."""

RESULT_RASTERS = (CLASSES, CONFIDENCE, SCORES, MERGED_CLASSES, MERGED_CONFIDENCE)
"""Rasters in a run directory that are no scenes."""

WORK = ".geoseg"
"""Folder of parts in the run directory, and of what later calls must know."""

PARTS = "parts"
"""Folder in it that holds the parts, a folder for each scene and key."""

PLAN = "plan.json"
"""File beside the parts of a scene that says how many there will be."""

ROOT_FILE, VERSION_FILE, LOCK_FILE = "root", "version", "lock"
"""Files in it: root of the scene ids, version of geoseg, and who works there."""


def parts_name(scene_id: str, key: str) -> str:
    """Name of the folder of a scene's parts: those of other settings are never met."""
    # A flat name: scene "a" may be done while "a/b" still needs its parts.
    return f"{parts_prefix(scene_id)}{key[:32]}"


def finishing_name(scene_id: str) -> str:
    """Name of a lock beside the parts: who has it writes the outputs of the scene."""
    return f"{parts_prefix(scene_id)}finishing"


def parts_prefix(scene_id: str) -> str:
    """What the names of all folders of a scene's parts begin with."""
    return hashlib.sha256(scene_id.encode()).hexdigest()[:16] + "-"
