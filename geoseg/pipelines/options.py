"""Options of a call of `segment`, one set for the command line and for Python."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from geoseg.config import compose, convert, override
from geoseg.errors import UsageError
from geoseg.pipelines.segment import SegmentConfig
from geoseg.types import BlendSpace, BlendWindow, Codec, Dtype, OnError

DEFAULT_PIPELINE = "segment"
"""Recipe that is read when none is named."""

Scenes = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""One or many files, patterns, folders, manifests, URLs or STAC documents."""


class SegmentOptions(TypedDict, total=False):
    """Options, named as the flags are; None leaves it to the recipe."""

    model: str | os.PathLike[str] | None
    device: str | None
    dtype: Dtype | None
    batch_size: int | None
    tta: bool | None
    tile_size: int | None
    stride: int | None
    overlap: int | None
    blend: BlendWindow | None
    blend_space: BlendSpace | None
    resolution: Literal["auto", "native"] | float | None
    bands: Sequence[int] | None
    scale: float | None
    nodata: float | None
    root: str | os.PathLike[str] | None
    asset: str | None
    mosaic: bool | None
    verify: bool | None
    aoi: str | os.PathLike[str] | None
    bbox: Sequence[float] | None
    cluster: str | None
    workers: int | None
    scheduler: str | None
    scheduler_file: str | os.PathLike[str] | None
    overwrite: bool | None
    confidence: bool | None
    polygons: bool | None
    save_scores: bool | None
    compress: Codec | None
    exclude: Sequence[str | int] | None
    min_area: float | None
    simplify: float | None
    on_error: OnError | None


KEYS: Mapping[str, str] = {
    "model": "model.path",
    "device": "model.device",
    "dtype": "model.dtype",
    "batch_size": "model.batch_size",
    "tta": "model.tta",
    "tile_size": "tiling.tile_size",
    "stride": "tiling.stride",
    "overlap": "tiling.overlap",
    "blend": "tiling.window",
    "blend_space": "tiling.space",
    "resolution": "input.resolution",
    "bands": "input.bands",
    "scale": "input.scale",
    "nodata": "input.nodata",
    "root": "input.root",
    "asset": "input.asset",
    "mosaic": "input.mosaic",
    "verify": "input.verify",
    "aoi": "input.aoi",
    "bbox": "input.bbox",
    "cluster": "clusters",
    "workers": "cluster.workers",
    "scheduler": "cluster.scheduler",
    "scheduler_file": "cluster.scheduler_file",
    "overwrite": "output.overwrite",
    "confidence": "output.confidence",
    "polygons": "output.polygons",
    "save_scores": "output.save_scores",
    "compress": "output.compress",
    "exclude": "output.exclude",
    "min_area": "output.min_area",
    "simplify": "output.simplify",
    "on_error": "output.on_error",
}
"""Key of `SegmentConfig` that each option sets; `clusters` chooses one of configs/."""


def segment_config(
    scenes: Scenes = (),
    out: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    settings: Sequence[str] = (),
    options: Mapping[str, Any],
) -> SegmentConfig:
    """Compose what a call depends on: the recipe, then options, then settings.

    Args:
        scenes: Files, patterns or folders; none leaves them to the recipe.
        out: Run directory; None leaves it to the recipe.
        config: Name of a recipe or path of a YAML file; None is "segment".
        settings: "key=value", as after --set; they win over options.
        options: `SegmentOptions`.

    Raises:
        UsageError: An option, key or value is wrong, or scenes or folder are missing.
    """
    given = {name: value for name, value in options.items() if value is not None}
    composed = compose(
        os.fspath(config) if config is not None else DEFAULT_PIPELINE,
        [*_of_positionals(scenes, out), *_of_options(given), *settings],
    )
    if not composed.get("scenes"):
        raise UsageError(
            "no scene is given; name files, folders or patterns, or list them under "
            "`scenes:` in the configuration"
        )
    if not composed.get("out"):
        raise UsageError(
            "no output folder is given; name one with -o, or as `out:` in the "
            "configuration"
        )
    if isinstance(composed["scenes"], str):
        composed["scenes"] = [composed["scenes"]]
    return convert(composed, SegmentConfig)


def _of_positionals(scenes: Scenes, out: str | os.PathLike[str] | None) -> list[str]:
    """Return overrides for scenes and folder."""
    listed = [scenes] if isinstance(scenes, (str, os.PathLike)) else list(scenes)
    overrides = []
    if listed:
        overrides.append(override("scenes", [os.fspath(scene) for scene in listed]))
    if out is not None:
        overrides.append(override("out", os.fspath(out)))
    return overrides


def _of_options(given: Mapping[str, Any]) -> list[str]:
    """Return overrides for options, None among them already dropped."""
    for name in given:
        if name not in KEYS:
            near = difflib.get_close_matches(name, KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(KEYS)}"
            raise UsageError(f"segment has no option {name!r}; {hint}")
    if "stride" in given and "overlap" in given:
        raise UsageError("stride and overlap are two words for one thing; give one")
    overrides = [override(KEYS[name], _plain(value)) for name, value in given.items()]
    for name, other in (("stride", "overlap"), ("overlap", "stride")):
        if name in given:
            # The recipe may say the same thing in the other word.
            overrides.append(override(KEYS[other], None))
    return overrides


def _plain(value: object) -> object:
    """Return a path as text."""
    return str(Path(value)) if isinstance(value, os.PathLike) else value
