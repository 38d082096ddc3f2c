from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyproj
import pytest
import shapely
from affine import Affine
from rasters import CLASSES, GRIDS, NORTH_UP, UTM

from geoseg.errors import OutputError
from geoseg.grid import Grid
from geoseg.io.stac import ANY_TIME, footprint, read_item, write_item

ASSETS = {"classes": "classes.tif", "segments": "segments.gpkg"}


def grid_of(
    crs: str | None = UTM, transform: Affine = NORTH_UP, height: int = 100
) -> Grid:
    wkt = None if crs is None else pyproj.CRS(crs).to_wkt()
    return Grid(height, 200, transform, wkt)


def item_of(path: Path, grid: Grid, **properties: object) -> dict[str, Any]:
    write_item(
        path,
        scene_id="2024/north/t_01",
        grid=grid,
        classes=CLASSES,
        assets=ASSETS,
        properties=properties,
    )
    return read_item(path)


def test_an_item_has_what_the_standard_asks_for(tmp_path: Path) -> None:
    item = item_of(tmp_path / "item.json", grid_of(), **{"geoseg:key": "abc"})
    assert list(tmp_path.iterdir()) == [tmp_path / "item.json"]
    assert item["type"] == "Feature"
    assert item["stac_version"] == "1.1.0"
    assert item["id"] == "2024/north/t_01"
    assert item["links"] == []
    assert item["properties"]["geoseg:key"] == "abc"
    assert "geoseg" in item["properties"]["processing:software"]
    assert item["properties"]["proj:code"] == UTM
    assert item["properties"]["proj:shape"] == [100, 200]
    assert item["properties"]["proj:transform"] == list(NORTH_UP)[:6]
    assert item["assets"]["classes"]["href"] == "./classes.tif"
    assert "cloud-optimized" in item["assets"]["classes"]["type"]
    assert item["assets"]["segments"]["type"] == "application/geopackage+sqlite3"


def test_classes_are_listed_with_colours_and_plain_names(tmp_path: Path) -> None:
    item = item_of(tmp_path / "item.json", grid_of())
    classes = item["assets"]["classes"]["classification:classes"]
    assert [entry["value"] for entry in classes] == [info.id for info in CLASSES]
    assert [entry["title"] for entry in classes] == [info.name for info in CLASSES]
    assert all(re.fullmatch(r"[0-9A-Za-z_-]+", entry["name"]) for entry in classes)
    assert classes[0]["color_hint"] == "E2A929"
    assert "classification:classes" not in item["assets"]["segments"]


def test_a_known_time_is_told_and_an_unknown_one_is_any(tmp_path: Path) -> None:
    item = item_of(tmp_path / "item.json", grid_of(), datetime="2018-07-16T06:06:23Z")
    assert item["properties"]["datetime"] == "2018-07-16T06:06:23Z"
    assert "start_datetime" not in item["properties"]
    item = item_of(tmp_path / "item.json", grid_of())
    assert item["properties"]["datetime"] is None
    between = [item["properties"][f"{end}_datetime"] for end in ("start", "end")]
    assert between == list(ANY_TIME)


def test_without_a_crs_there_is_no_geometry(tmp_path: Path) -> None:
    item = item_of(tmp_path / "item.json", grid_of(None))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["proj:code"] is None
    assert "proj:wkt2" not in item["properties"]


@pytest.mark.parametrize("name", GRIDS)
def test_the_footprint_runs_through_the_corners(tmp_path: Path, name: str) -> None:
    crs, transform = GRIDS[name]
    grid = grid_of(crs, transform)
    item = item_of(tmp_path / "item.json", grid)
    area = shapely.geometry.shape(item["geometry"])
    to_degrees = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    for corner in ((0, 0), (200, 0), (200, 100), (0, 100)):
        point = shapely.Point(to_degrees.transform(*(transform @ corner)))
        assert area.boundary.distance(point) < 1e-9
    assert item["bbox"] == pytest.approx(area.bounds)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32660", Affine(1000, 0, 650_000, 0, -1000, 7e6)),
        ("EPSG:4326", Affine(0.02, 0, 178, 0, -0.02, 60)),
        ("EPSG:4326", Affine(0.02, 0, -182, 0, -0.02, 60)),
    ],
)
def test_a_footprint_over_the_date_line_is_two_polygons(
    tmp_path: Path, crs: str, transform: Affine
) -> None:
    item = item_of(tmp_path / "item.json", grid_of(crs, transform))
    area = shapely.geometry.shape(item["geometry"])
    assert len(shapely.get_parts(area)) == 2
    west, _, east, _ = item["bbox"]
    assert west > 170
    assert east < -170
    assert area.bounds[0] == pytest.approx(-180)
    assert area.bounds[2] == pytest.approx(180)
    assert area.area < 10, "not once around the Earth"


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_a_footprint_around_a_pole_holds_the_pole(crs: str, pole: float) -> None:
    area = footprint(grid_of(crs, Affine(1000, 0, -1e5, 0, -1000, 5e4)))
    assert area is not None
    assert area.covers(shapely.Point(12, pole))
    assert area.bounds[0::2] == (-180, 180)
    assert abs(area.bounds[1] if pole > 0 else area.bounds[3]) > 88


def test_the_whole_earth_is_one_polygon() -> None:
    area = footprint(grid_of("EPSG:4326", Affine(1.8, 0, -180, 0, -1.8, 90)))
    assert area is not None
    assert area.bounds == (-180, -90, 180, 90)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"properties": 1})])
def test_a_file_that_is_no_item_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "item.json"
    path.write_text(text)
    with pytest.raises(OutputError, match="STAC item"):
        read_item(path)
