"""Runs of `segment` in tests: configured, in plain loops, and their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from scipy import ndimage
from stubs import save_stub

from geoseg.archive import RunDirectory
from geoseg.clusters.config import ClusterConfig
from geoseg.discovery import find_scenes
from geoseg.finish import SceneResult, finish_scene
from geoseg.graph import SceneJob, run_scene
from geoseg.inference import Predictor, PredictorConfig
from geoseg.models.registry import read_spec
from geoseg.pipelines.segment import (
    InputConfig,
    Listener,
    ModelConfig,
    OutputConfig,
    SegmentConfig,
    TilingConfig,
)
from geoseg.pipelines.segment_plan import Plan
from geoseg.types import NODATA

TILE, STRIDE = 64, 48
"""Small tiles with the proportions of the real ones."""

SECTIONS: dict[str, Any] = {
    "model": ModelConfig,
    "tiling": TilingConfig,
    "input": InputConfig,
    "cluster": ClusterConfig,
    "output": OutputConfig,
}


def configuration(
    scenes: Path | Sequence[Path | str],
    out: Path,
    model: Path,
    sections: dict[str, dict[str, Any]] | None = None,
) -> SegmentConfig:
    """Configure a run of a stub model.

    Args:
        scenes: One scene, or several.
        out: Run directory.
        model: Folder of a stub.
        sections: Section -> field -> value, over the defaults of tests.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    values["model"] = {"path": str(model), "imports": ("stubs",), "device": "cpu"}
    values["tiling"] = {"stride": STRIDE}
    for name, fields in (sections or {}).items():
        values[name] = {**values[name], **fields}
    built = {name: SECTIONS[name](**fields) for name, fields in values.items()}
    given = [scenes] if isinstance(scenes, Path) else scenes
    return SegmentConfig(tuple(map(str, given)), out, **built)


def predictor_config(config: SegmentConfig) -> PredictorConfig:
    """How a stub runs; on the CPU, tiles one by one unless configured."""
    folder = Path(config.model.path)
    spec = read_spec(folder, tile_size=config.tiling.tile_size)
    return PredictorConfig(
        folder=str(folder),
        sha256=spec.weights_sha256,
        tile_size=spec.tile_size,
        batch_size=config.model.batch_size or 1,
        imports=config.model.imports,
    )


def stub_config(folder: Path, **options: Any) -> PredictorConfig:  # noqa: ANN401
    """Save a stub in `folder`; return how workers load it."""
    return predictor_config(configuration(Path(), Path(), save_stub(folder, **options)))


def plan_jobs(config: SegmentConfig) -> list[SceneJob]:
    """Plan a run as `segment` does; every scene must be left to do."""
    files, root = find_scenes(config.scenes, config.input.root)
    directory = RunDirectory(config.out, root, overwrite=config.output.overwrite)
    spec = read_spec(Path(config.model.path), tile_size=config.tiling.tile_size)
    stride = config.tiling.stride or STRIDE
    model = predictor_config(config)
    plan = Plan(config, spec, model, stride, directory, Listener())
    with directory.locked():
        planned = list(plan.scenes(files))
    jobs = [item for item in planned if isinstance(item, SceneJob)]
    assert len(jobs) == len(planned), planned
    return jobs


def plan_job(*args: Any, **kwargs: Any) -> SceneJob:  # noqa: ANN401 (configuration's)
    """Plan a run of one scene; takes what `configuration` takes."""
    [job] = plan_jobs(configuration(*args, **kwargs))
    return job


def load_predictor(model: Path, batch_size: int = 1) -> Predictor:
    """Load a stub in this process."""
    config = SegmentConfig(
        (), Path(), ModelConfig(str(model), ("stubs",), batch_size=batch_size)
    )
    return Predictor.load(predictor_config(config))


def segment_plainly(
    scenes: Path | Sequence[Path | str],
    out: Path,
    model: Path,
    sections: dict[str, dict[str, Any]] | None = None,
) -> list[SceneResult]:
    """Run scenes in plain loops, without a cluster."""
    predictor = load_predictor(model)
    jobs = plan_jobs(configuration(scenes, out, model, sections))
    return [finish_scene(job, run_scene(job, predictor)) for job in jobs]


def read_band(path: Path) -> npt.NDArray[np.uint8]:
    """Read the first band of a raster, shape (height, width)."""
    with rasterio.open(path) as dataset:
        band: npt.NDArray[np.uint8] = dataset.read(1)
    return band


def read_segments(folder: Path) -> gpd.GeoDataFrame:
    """Read the polygons of a scene."""
    return gpd.read_file(folder / "segments.gpkg", layer="segments")


def polygon_set(folder: Path) -> set[tuple[int, int, float, bytes]]:
    """Everything that polygons say, but for the order of rows."""
    table = read_segments(folder)
    rows = zip(
        table.class_id,
        table.pixels,
        table.confidence_mean,
        shapely.to_wkb(shapely.normalize(table.geometry.array)),
        strict=True,
    )
    found = set(rows)
    assert len(found) == len(table)
    return found


def fingerprint(
    folder: Path,
) -> tuple[bytes, bytes, set[tuple[int, int, float, bytes]]]:
    """Class mask, confidence and polygons of a scene, to be compared byte by byte."""
    return (
        read_band(folder / "classes.tif").tobytes(),
        read_band(folder / "confidence.tif").tobytes(),
        polygon_set(folder),
    )


def count_components(mask: npt.NDArray[np.uint8]) -> int:
    """Count the 4-connected components of all classes."""
    classes = np.unique(mask[mask != NODATA])
    return sum(int(ndimage.label(mask == value)[1]) for value in classes)


def smooth_image(
    height: int, width: int, *, sigma: float = 3.0, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Draw a smooth RGB image with mean 128 and deviation 40, (3, height, width)."""
    noise = np.random.default_rng(seed).standard_normal((3, height, width))
    field = ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="wrap")
    field -= field.mean(axis=(1, 2), keepdims=True)
    spread = field.std(axis=(1, 2), keepdims=True)
    field /= np.where(spread > 0, spread, 1)
    return np.clip(np.rint(128 + 40 * field), 1, 254).astype(np.uint8)
