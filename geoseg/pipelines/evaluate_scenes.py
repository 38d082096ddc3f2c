"""Labelled scenes of an evaluation: which, as files, and their masks in a run."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.windows
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoseg.config import convert
from geoseg.data.classes import Unknown, check_known, refuse_or_warn
from geoseg.data.config import DataConfig, SplitConfig
from geoseg.data.labelled import LabelledSource
from geoseg.data.pairs import listed
from geoseg.data.sources import open_first
from geoseg.data.survey import survey_scene
from geoseg.discovery.files import located
from geoseg.errors import (
    EvaluationError,
    OutputError,
    SceneError,
    UsageError,
)
from geoseg.evaluation.results import Failure
from geoseg.grid import Grid, Window
from geoseg.io.atomic import atomic_path
from geoseg.io.gdal import gdal_env, write_errors
from geoseg.reporting.notes import heard
from geoseg.types import ClassInfo, EvaluatedPart

SCENES = "scenes"
"""Folder for images of scenes that lie in no file of their own."""

_ROWS = 1024
"""Rows of an image that are written at a time."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Scenes that are evaluated on."""

    title: str
    """What they are, for people."""
    sources: tuple[LabelledSource, ...]
    """The scenes."""
    classes: tuple[ClassInfo, ...]
    """Classes of their labels."""
    unknown: Unknown
    """What is done about labels that are of none of them."""


@dataclass(frozen=True)
class _Holder:
    """Gives keys of the section their full name in messages."""

    data: DataConfig


def open_labelled(
    data: Mapping[str, Any],
    part: EvaluatedPart,
    model_classes: Sequence[ClassInfo],
    note: Callable[[str], None],
) -> LabelledSet:
    """Find the labelled scenes.

    Args:
        data: The section `data` of a recipe; without classes it takes the model's,
            whose ids are then what masks hold.
        part: Part of the split, or all scenes; auto is the first of test, validation
            and train that has some.
        model_classes: Classes of the model.
        note: Told what is left out.

    Raises:
        UsageError: There are none.
    """
    if data.get("root") in (None, ""):
        raise UsageError(
            "no labelled scenes are given; name their folder, geoseg evaluate FOLDER, "
            "and how they lie there with --data or --images and --labels"
        )
    section = _completed(data)
    if not section.get("classes"):
        section["classes"] = [
            {"id": info.id, "name": info.name, "color": list(info.color)}
            for info in model_classes
        ]
    config = convert({"data": section}, _Holder).data
    if part == "all":
        config = replace(config, split=SplitConfig())
    with heard(note):
        chosen, sources = _open_part(config, part)
    if not sources:
        raise UsageError(
            f"data.split.{chosen} of {config.root} has no scenes; choose another --part"
        )
    # Without a split nobody knows which scenes the model has learned from.
    held = chosen if config.split != SplitConfig() else "all scenes"
    title = f"{config.root.resolve().name} ({held})"
    return LabelledSet(title, sources, config.table.infos, config.unknown)


def readable(
    labelled: LabelledSet, note: Callable[[str], None]
) -> tuple[LabelledSet, list[Failure]]:
    """Read all labels once; return scenes whose labels can be used, and the others.

    Args:
        labelled: The scenes.
        note: Told of labels without a meaning that count as none.

    Raises:
        EvaluationError: There are none that can, or none holds a label.
    """
    sources, failures, any_labels = [], [], False
    ignored: Counter[str] = Counter()
    guilty: list[LabelledSource] = []
    for source in labelled.sources:
        try:
            has_labels, unknown = _look(source, labelled)
        except SceneError as error:
            failures.append(Failure("", source.name, str(error)))
            continue
        sources.append(source)
        any_labels = any_labels or has_labels
        ignored += unknown
        guilty += [source] if unknown else []
    where = f"the labels of {listed(one.name for one in guilty)}"
    with heard(note):
        refuse_or_warn(labelled.unknown, ignored, sum(map(_area, guilty)), where)
    if not sources:
        raise EvaluationError(
            f"no scene has labels that can be used; {failures[0].scene}: "
            f"{failures[0].reason}"
        )
    if not any_labels:
        raise EvaluationError(
            "no pixel of the scenes has a label; check what data.ignore and the mask "
            "of data.classes name, and what the labels hold"
        )
    return replace(labelled, sources=tuple(sources)), failures


def _look(source: LabelledSource, labelled: LabelledSet) -> tuple[bool, Counter[str]]:
    """Tell whether a scene has labels, and which have no meaning, by pixels.

    Raises:
        SceneError: They cannot be read, or those without a meaning are an error.
    """
    unknown: Counter[str] = Counter()
    seen = survey_scene(source, len(labelled.classes), unknown)
    if labelled.unknown == "fail":
        # Of the whole scene: one block tells neither how many there are nor which.
        check_known(unknown, _area(source), f"the labels of {source.name}")
    return bool(seen.counts.any()), unknown


def _area(source: LabelledSource) -> int:
    return source.grid.height * source.grid.width


def _completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what only training needs to know; labels are read here, not images."""
    filled = {"resolution": 1.0, **data}
    if filled.get("layout") == "parts":
        filled["mean"] = filled["std"] = [0.5] * 3
        return filled
    if not filled.get("mean"):
        filled["bands"] = filled.get("bands") or [1]
        filled["mean"] = filled["std"] = [0.5] * len(filled["bands"])
    if filled.get("scale") is None:
        filled["scale"] = 1.0
    return filled


def _open_part(
    config: DataConfig, part: EvaluatedPart
) -> tuple[str, tuple[LabelledSource, ...]]:
    order: tuple[str, ...] = ("test", "validation", "train")
    if part != "auto":
        order = ("train" if part == "all" else part,)
    return open_first(config, order)


def image_files(sources: Sequence[LabelledSource], out: Path) -> dict[str, str]:
    """Return the image of each scene by its name; write those that lie in no file.

    Args:
        sources: The scenes.
        out: Folder of the evaluation; they go to `scenes/` in it.

    Raises:
        OutputError: One cannot be written.
    """
    files = {}
    for source in sources:
        path = source.path
        if path is None:
            path = out / SCENES / f"{_safe(source.name)}.tif"
            try:
                _write_image(source, path)
            except OSError as error:
                raise OutputError(
                    f"{path} cannot be written ({error.strerror}); free some space or "
                    "choose another -o"
                ) from error
        files[source.name] = located(path)
    return files


def _safe(name: str) -> str:
    """Return a name that can be a file's, different for different names."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80].lstrip(".")
    if safe == name:
        return name
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _write_image(source: LabelledSource, path: Path) -> None:
    """Write the image of a scene, unless it is there: masks are of that file."""
    if path.is_file() and _holds(path, source):
        return
    grid = source.grid
    pixels = source.read(Window(0, 0, 1, 1)).values
    with (
        atomic_path(path) as temporary,
        gdal_env(),
        write_errors(path),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            count=len(pixels),
            height=grid.height,
            width=grid.width,
            dtype=pixels.dtype,
            transform=grid.transform,
            crs=grid.crs,
            tiled=True,
            blockxsize=512,
            blockysize=512,
            compress="deflate",
            bigtiff="if_safer",
        ) as file:
            for place in _strips(grid):
                file.write(source.read(place).values, window=_raster_window(place))


def _holds(path: Path, source: LabelledSource) -> bool:
    """Tell whether a file holds the image of a scene."""
    grid = source.grid
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with gdal_env(), rasterio.open(path) as file:
                same: bool = (file.height, file.width) == grid.shape
                same = same and Affine(*file.transform[:6]) == grid.transform
                return same and all(
                    np.array_equal(
                        file.read(window=_raster_window(place)),
                        source.read(place).values,
                    )
                    for place in _strips(grid)
                )
    except RasterioError:
        return False


def _strips(grid: Grid) -> list[Window]:
    return [
        Window(row, 0, min(_ROWS, grid.height - row), grid.width)
        for row in range(0, grid.height, _ROWS)
    ]


def _raster_window(window: Window) -> rasterio.windows.Window:
    return rasterio.windows.Window(window.col, window.row, window.width, window.height)
