"""What mutated files go through, in a process of its own: GDAL may take it down."""

from __future__ import annotations

import resource
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rasters import rgb_spec

from geoseg.errors import GeosegError, GeosegWarning
from geoseg.grid import Window
from geoseg.io.class_raster import open_class_raster
from geoseg.io.raster import SceneReader, open_scene
from geoseg.pipelines import vectorize

MOST_PIXELS = 1 << 20
"""A mutated size may be huge and, with nothing in it, right."""


def read_scene(path: Path) -> None:
    """Open a scene and read a corner."""
    scene = open_scene(path, rgb_spec(), bands=(1, 1, 1), scale=255)
    with SceneReader(scene) as reader:
        height, width = (min(side, 64) for side in scene.grid.shape)
        reader.read(Window(0, 0, height, width))


def clip_scene(path: Path) -> None:
    """Clip the scene beside a vector file to it."""
    scene = open_scene(path.parent / "whole.tif", rgb_spec(), aoi=path)
    with SceneReader(scene) as reader:
        reader.read(scene.grid.whole)


def trace_classes(path: Path) -> None:
    """Turn a class raster into polygons."""
    height, width = open_class_raster(path).grid.shape
    if height * width <= MOST_PIXELS:
        out = path.with_name("traced.gpkg")
        vectorize.run(
            vectorize.VectorizeConfig(str(path), out, threads=1, overwrite=True)
        )


PROBES: dict[str, Callable[[Path], None]] = {
    "scene": read_scene,
    "aoi": clip_scene,
    "classes": trace_classes,
}


def probe(kind: str, path: Path) -> str | None:
    """Return the error of ours that a file ends in, None if it is fine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeosegWarning)
        try:
            PROBES[kind](path)
        except GeosegError as error:
            return str(error)
    return None


def pool() -> ProcessPoolExecutor:
    """Return a pool of one process, whose memory is bounded."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_bound)


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
