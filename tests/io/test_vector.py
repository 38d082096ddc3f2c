from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import pytest
import rasterio.features
import shapely
from affine import Affine
from class_masks import trace_whole
from rasters import CLASSES, GRIDS, NORTH_UP, UTM

from geoseg.errors import FileOutputError
from geoseg.grid import Grid
from geoseg.io import segment_table, vector
from geoseg.io.ogr import finish_geopackage
from geoseg.io.vector import ClassTotal, write_segments
from geoseg.types import ClassInfo
from geoseg.vectorize import PolygonBatch

IDS = np.array([info.id for info in CLASSES], np.uint8)
HOSTILE = "a/b'c\"; DROP TABLE segments; --"


def class_mask() -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    mask = IDS[rng.integers(0, len(IDS), (12, 17))]
    mask[:4, :5] = 255
    return mask


def grid_of(crs: str | None = UTM, transform: Affine = NORTH_UP) -> Grid:
    return Grid(12, 17, transform, None if crs is None else pyproj.CRS(crs).to_wkt())


def trace(mask: npt.NDArray[np.uint8], grid: Grid) -> PolygonBatch:
    """Trace a mask whose confidence is 10 times the class id."""
    confidence = np.where(mask == 255, 255, mask * 10).astype(np.uint8)
    return trace_whole(mask, confidence, grid.transform)


def write(path: Path, grid: Grid, *batches: PolygonBatch) -> dict[int, ClassTotal]:
    return write_segments(
        path,
        iter(batches),
        grid=grid,
        classes=CLASSES,
        scene_id=HOSTILE,
        provenance={"GEOSEG_MODEL": "toy <&> é"},
    )


def load(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(path, layer="segments")


def describe(path: Path) -> dict[str, Any]:
    info: dict[str, Any] = pyogrio.read_info(path, layer="segments")
    return info


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("name", GRIDS)
def test_polygons_rasterised_back_are_the_mask(tmp_path: Path, name: str) -> None:
    crs, transform = GRIDS[name]
    grid, mask = grid_of(crs, transform), class_mask()
    path = tmp_path / "segments.gpkg"
    write(path, grid, trace(mask, grid))
    frame = load(path)
    assert frame.crs == pyproj.CRS(crs)
    burnt = rasterio.features.rasterize(
        zip(frame.geometry, frame.class_id, strict=True),
        out_shape=mask.shape,
        transform=transform,
        fill=255,
        dtype="uint8",
    )
    assert (burnt == mask).all()
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())


def test_columns_hold_what_their_names_say(tmp_path: Path) -> None:
    grid, mask = grid_of(), class_mask()
    path = tmp_path / "segments.gpkg"
    totals = write(path, grid, trace(mask, grid))
    info = describe(path)
    assert info["layer_name"] == "segments"
    assert info["geometry_type"] == "Polygon"
    types = zip(info["fields"], info["dtypes"], strict=True)
    assert list(types) == [
        ("class_id", "int32"),
        ("class_name", "object"),
        ("area_m2", "float64"),
        ("pixels", "int64"),
        ("confidence_mean", "float64"),
        ("scene_id", "object"),
    ]
    frame = load(path)
    names = {item.id: item.name for item in CLASSES}
    assert (frame.class_name == frame.class_id.map(names)).all()
    assert (frame.scene_id == HOSTILE).all()
    assert (frame.confidence_mean == frame.class_id * 10).all()
    assert frame.pixels.sum() == (mask != 255).sum()
    np.testing.assert_allclose(frame.area_m2, frame.pixels * 0.25, rtol=2e-3)
    for class_id, total in totals.items():
        mine = frame[frame.class_id == class_id]
        assert total.polygons == len(mine)
        assert total.pixels == mine.pixels.sum()
        assert total.area_m2 == pytest.approx(mine.area_m2.sum())


def test_without_a_crs_areas_are_null_and_the_crs_undefined(tmp_path: Path) -> None:
    grid, path = grid_of(None), tmp_path / "segments.gpkg"
    totals = write(path, grid, trace(class_mask(), grid))
    frame = load(path)
    assert frame.crs is None
    assert frame.area_m2.isna().all()
    assert {total.area_m2 for total in totals.values()} == {None}
    assert query(path, "SELECT DISTINCT typeof(area_m2) FROM segments") == [("null",)]


def test_an_empty_scene_gives_an_empty_layer_of_the_same_columns(
    tmp_path: Path,
) -> None:
    grid = grid_of()
    write(tmp_path / "full.gpkg", grid, trace(class_mask(), grid))
    for name, batches in (("none", ()), ("empty", (PolygonBatch.empty(),))):
        path = tmp_path / f"{name}.gpkg"
        totals = write(path, grid, *batches)
        assert totals == {info.id: ClassTotal(0, 0, 0.0) for info in CLASSES}
        got, full = describe(path), describe(tmp_path / "full.gpkg")
        assert got["features"] == 0
        for key in ("fields", "dtypes"):
            assert (got[key] == full[key]).all()
        assert got["crs"] == full["crs"]


def test_batches_stream_and_rows_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of()
    batch = trace(class_mask(), grid)
    write(tmp_path / "one.gpkg", grid, batch)
    monkeypatch.setattr(segment_table, "_ROWS", 7)
    halves = [batch.take(part) for part in np.array_split(np.arange(len(batch)), 3)]
    totals = write(tmp_path / "three.gpkg", grid, *halves)
    one, three = (load(tmp_path / f"{name}.gpkg") for name in ("one", "three"))
    assert one.equals(three)
    assert sum(total.polygons for total in totals.values()) == len(batch)


def test_the_file_is_one_and_indexed_and_tells_where_it_came_from(
    tmp_path: Path,
) -> None:
    grid, path = grid_of(), tmp_path / "segments.gpkg"
    write(path, grid, trace(class_mask(), grid))
    assert list(tmp_path.iterdir()) == [path]
    assert describe(path)["layer_metadata"] == {"GEOSEG_MODEL": "toy <&> é"}
    index = "SELECT count(*) FROM rtree_segments_geom"
    assert query(path, index) == query(path, "SELECT count(*) FROM segments")
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA journal_mode") == [("delete",)]


def test_the_style_is_the_default_and_segments_the_first_layer(tmp_path: Path) -> None:
    grid, path = grid_of(), tmp_path / "segments.gpkg"
    write(path, grid, trace(class_mask(), grid))
    assert pyogrio.list_layers(path)[:, 0].tolist() == ["segments", "layer_styles"]
    (row,) = query(
        path,
        "SELECT f_table_catalog, f_table_schema, f_table_name, f_geometry_column, "
        "useAsDefault, styleQML, styleSLD FROM layer_styles",
    )
    assert row[:5] == ("", "", "segments", "geom", 1)
    assert "categorizedSymbol" in row[5]
    assert "StyledLayerDescriptor" in row[6]
    kinds = "SELECT table_name, data_type FROM gpkg_contents ORDER BY rowid"
    assert query(path, kinds) == [
        ("segments", "features"),
        ("layer_styles", "attributes"),
    ]


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE rtree_segments_geom",
        "DELETE FROM rtree_segments_geom WHERE id = 1",
        "UPDATE gpkg_ogr_contents SET feature_count = NULL",
    ],
)
def test_a_geopackage_that_gdal_could_not_finish_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    grid, path = grid_of(), tmp_path / "segments.gpkg"
    finish = finish_geopackage

    def damaged(temporary: Path, rows: int, classes: Sequence[ClassInfo]) -> None:
        with closing(sqlite3.connect(temporary)) as connection, connection:
            connection.execute(damage)
        finish(temporary, rows, classes)

    monkeypatch.setattr(vector, "finish_geopackage", damaged)
    with pytest.raises(FileOutputError, match="could not finish the spatial index"):
        write(path, grid, trace(class_mask(), grid))
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_batches_is_raised_as_it_was(tmp_path: Path) -> None:
    grid, path = grid_of(), tmp_path / "segments.gpkg"
    write(path, grid, trace(class_mask(), grid))
    before = path.read_bytes()

    def batches() -> Iterator[PolygonBatch]:
        yield trace(class_mask(), grid)
        raise ZeroDivisionError("a part is missing")

    with pytest.raises(ZeroDivisionError, match="a part is missing"):
        write_segments(
            path, batches(), grid=grid, classes=CLASSES, scene_id="a", provenance={}
        )
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


@pytest.mark.parametrize("rest", ["-wal", "-shm", "-journal"])
def test_what_an_older_geopackage_left_is_not_replayed(
    tmp_path: Path, rest: str
) -> None:
    path = tmp_path / "segments.gpkg"
    path.with_name(path.name + rest).write_bytes(b"of another file")
    write(path, grid_of())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
