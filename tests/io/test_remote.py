"""Scenes on another machine: what is fetched of them, counted by the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasters import rgb_spec, write_raster
from web import Web, serve

from geoseg.io import gdal
from geoseg.io.ahead import PixelsAhead, kept_reader
from geoseg.io.raster import Scene, SceneReader, open_scene
from geoseg.tiling import TileGrid

HEIGHT, WIDTH = 4000, 3600
CACHE = 16 << 20
"""Of GDAL, bytes: less than half of the scene, as with scenes of many Mpx."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with serve(tmp_path, tmp_path / "sent.txt") as web:
        yield web


def read_bands(scene: Scene) -> int:
    """Read all bands as `segment` does, and return their number."""
    grid = TileGrid(*scene.grid.shape, tile_size=240, stride=208)
    bands = grid.bands(whole_rows=scene.by_rows)
    for band in bands:
        with (
            kept_reader(scene, "remote") as reader,
            PixelsAhead(reader, band.footprint, grid.tile_size) as pixels,
        ):
            for place in band.tiles:
                inside = grid.tile(*place).intersection(band.footprint)
                assert inside is not None
                pixels.get(inside)
    return len(bands)


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiled": {"tiled": True, "blockxsize": 256, "blockysize": 256},
    "striped": {"blockysize": 8},
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factor", [1.0, 1.7, 2.5])
def test_a_remote_scene_is_fetched_once(
    tmp_path: Path,
    web: Web,
    layout: str,
    factor: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(gdal._OPTIONS, "GDAL_CACHEMAX", CACHE)
    pixels = np.random.default_rng(0).integers(0, 200, (3, HEIGHT, WIDTH), np.uint8)
    options: dict[str, Any] = {"compress": "deflate", "interleave": "pixel"}
    path = write_raster(tmp_path / "a.tif", pixels, **LAYOUTS[layout], **options)
    resolution: Any = "native" if factor == 1 else 0.5 * factor
    scene = open_scene(f"/vsicurl/{web.url}/a.tif", rgb_spec(), resolution=resolution)
    assert read_bands(scene) > 1
    size = path.stat().st_size
    assert web.sent() <= 1.3 * size
    local = open_scene(path, rgb_spec(), resolution=resolution)
    window = scene.grid.whole
    with SceneReader(scene) as remote, SceneReader(local) as near:
        assert (remote.read(window).values == near.read(window).values).all()
