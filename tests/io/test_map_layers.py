"""Layers of any content: in their place, whole or not there, and styled."""

from __future__ import annotations

import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasters import GRIDS, ROTATED, UTM

from geoseg.grid import Grid, Window
from geoseg.io.map_layers import (
    FeatureLayer,
    boxes,
    raster_layer,
    read_layer,
    write_features,
)
from geoseg.io.map_style import outlines_qml, picture_qml, points_qml, ramp_qml

GRID = Grid(600, 700, ROTATED, pyproj.CRS(UTM).to_wkt())


def write(path: Path, grid: Grid = GRID, *, fail: bool = False) -> None:
    count = grid.height * grid.width
    values = np.arange(count, dtype=np.float32).reshape(1, *grid.shape)
    with raster_layer(
        path,
        grid,
        bands=("amount",),
        dtype="float32",
        nodata=float("nan"),
        qml=ramp_qml(0, 1),
        tags={"model": "toy"},
    ) as layer:
        half = grid.height // 2
        layer.write(values[:, :half], Window(0, 0, half, grid.width))
        if fail:
            raise RuntimeError("no")


@pytest.mark.parametrize("name", [*GRIDS, "none"])
def test_a_raster_lies_in_its_place(tmp_path: Path, name: str) -> None:
    crs, transform = GRIDS.get(name, (None, ROTATED))
    wkt = None if crs is None else pyproj.CRS(crs).to_wkt()
    path = tmp_path / "out" / "layer.tif"
    write(path, Grid(600, 700, transform, wkt))
    with rasterio.open(path) as dataset:
        assert dataset.transform.almost_equals(transform, 1e-9)
        assert (dataset.crs is None) == (crs is None)
        assert dataset.descriptions == ("amount",)
        assert dataset.tags()["model"] == "toy"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        pixels = dataset.read(1)
    assert pixels[1, 2] == 702
    assert np.isnan(pixels[300:]).all(), "what is not written is nodata"
    assert sorted(p.name for p in path.parent.iterdir()) == ["layer.qml", "layer.tif"]
    assert read_layer(path, (6, 7)).shape == (1, 6, 7)


def test_nothing_is_left_of_a_raster_that_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write(tmp_path / "layer.tif", fail=True)
    assert list(tmp_path.iterdir()) == []


def test_features_lie_in_their_place_and_are_styled(tmp_path: Path) -> None:
    path = tmp_path / "layers.gpkg"
    kinds = np.array(["a", "b"])
    polygons = boxes(GRID, [Window(0, 0, 2, 3), Window(4, 4, 1, 1)])
    layers = [
        FeatureLayer(
            "patches",
            polygons,
            {"kind": kinds},
            outlines_qml("kind", "ab", [(1, 2, 3)] * 2),
        ),
        FeatureLayer(
            "points",
            shapely.points([1.0, 2.0], [3.0, 4.0]),
            {"kind": kinds, "weight": np.array([0.5, 1.0])},
            points_qml("kind", {"a": (1, 2, 3), "b": (4, 5, 6)}, '"weight"'),
        ),
    ]
    write_features(path, layers, GRID)
    patches = geopandas.read_file(path, layer="patches")
    assert patches.crs == pyproj.CRS(UTM)
    corner = np.array(patches.geometry[1].exterior.coords[0])
    np.testing.assert_allclose(corner, ROTATED @ (4, 4))
    assert geopandas.read_file(path, layer="points").weight.tolist() == [0.5, 1.0]
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault FROM layer_styles"
        ).fetchall()
        geometry = connection.execute(
            "SELECT DISTINCT column_name FROM gpkg_geometry_columns"
        ).fetchall()
    assert rows == [("patches", "geom", 1), ("points", "geom", 1)]
    assert geometry == [("geom",)]
    assert [p.name for p in tmp_path.iterdir()] == ["layers.gpkg"]


def test_layers_of_equal_content_are_equal_bytes(tmp_path: Path) -> None:
    layer = FeatureLayer(
        "points", shapely.points([1.0], [3.0]), {"n": np.array([1])}, ramp_qml(0, 1)
    )
    first, second = tmp_path / "a.gpkg", tmp_path / "b.gpkg"
    for path in (first, second):
        write_features(path, [layer], Grid(1, 1, ROTATED, None))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("qml", [ramp_qml(-1, 1, band=2), picture_qml()])
def test_styles_are_xml_of_one_renderer(qml: str) -> None:
    root = ET.fromstring(qml.partition("\n")[2])
    (renderer,) = root.iter("rasterrenderer")
    assert renderer.get("type") in ("singlebandpseudocolor", "multibandcolor")
    values = [float(str(item.get("value"))) for item in root.iter("item")]
    assert values in ([], [-1.0, -0.5, 0.0, 0.5, 1.0])
