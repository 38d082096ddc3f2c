"""The command `vectorize` on real rasters: exact polygons of whatever is given."""

from __future__ import annotations

import sqlite3
import time
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from class_rasters import (
    LEGEND,
    assert_exact,
    class_mask,
    read_polygons,
    rows_of,
    write_classes,
    write_own,
)
from commands import geoseg
from rasters import GRIDS, NORTH_UP, write_raster

from geoseg.io.vector import SUFFIXES
from geoseg.types import NODATA


def vectorized(raster: Path, out: Path, *options: object) -> Path:
    """Run the command, which must succeed, and return the file."""
    result = geoseg("vectorize", raster, "-o", out, *options)
    assert result.exit_code == 0, result.stderr
    return out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_polygons_are_exact_in_every_format(tmp_path: Path, suffix: str) -> None:
    mask = class_mask()
    raster = write_classes(tmp_path / "classes.tif", mask)
    out = vectorized(raster, tmp_path / f"out{suffix}")
    assert_exact(out, mask)
    table = read_polygons(out)
    assert table.crs == "EPSG:32631"
    assert set(table.scene_id) == {"classes"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_style_is_where_the_help_says(tmp_path: Path, suffix: str) -> None:
    text = " ".join(geoseg("vectorize", "--help").stdout.split())
    assert "A .gpkg holds its QGIS style; for the others a .qml is written" in text
    raster = write_own(tmp_path / "classes.tif", class_mask(30))
    vectorized(raster, tmp_path / f"out{suffix}")
    style = tmp_path / "out.qml"
    assert style.exists() == (suffix != ".gpkg")
    if style.exists():
        labels = [entry.get("label") for entry in ET.parse(style).iter("category")]
        assert labels == [info.name for info in LEGEND]


@pytest.mark.parametrize("grid", GRIDS)
def test_any_grid_will_do(tmp_path: Path, grid: str) -> None:
    crs, transform = GRIDS[grid]
    mask = class_mask(60)
    raster = write_classes(tmp_path / "c.tif", mask, crs=crs, transform=transform)
    out = vectorized(raster, tmp_path / "out.gpkg")
    assert_exact(out, mask, transform)
    assert read_polygons(out).area_m2.notna().all()


def test_polygons_lie_beside_the_raster_if_nothing_else_is_said(
    tmp_path: Path,
) -> None:
    raster = write_classes(tmp_path / "my classes.tif", class_mask(30))
    result = geoseg("vectorize", raster)
    assert result.exit_code == 0
    out = tmp_path / "my classes.gpkg"
    assert f"Result: '{out}' (" in result.stdout
    assert_exact(out, class_mask(30))
    assert {path.name for path in tmp_path.iterdir()} == {raster.name, out.name}


def test_the_closing_table_tells_polygons_and_area(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 10:] = 3
    raster = write_own(tmp_path / "classes.tif", mask)
    result = geoseg("vectorize", raster)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["water", "50.04", "33.3%", "1"] in lines
    assert ["building", "100.08", "66.7%", "1"] in lines
    assert ["all", "150.12", "2"] in lines
    assert "(2 polygons, " in result.stdout
    assert geoseg("vectorize", raster, "--overwrite", "-q").stdout == ""


def test_geosegs_own_masks_keep_names_colours_and_scene(tmp_path: Path) -> None:
    mask = class_mask(60)
    mask[mask == 2] = 1  # a class of the legend that is not there
    out = vectorized(write_own(tmp_path / "classes.tif", mask), tmp_path / "o.gpkg")
    assert_exact(out, mask)
    table = read_polygons(out)
    names = {info.id: info.name for info in LEGEND}
    assert [names[i] for i in table.class_id] == list(table.class_name)
    assert set(table.scene_id) == {"2024/t_01"}
    with closing(sqlite3.connect(out)) as connection:
        [(qml,)] = connection.execute("SELECT styleQML FROM layer_styles")
    for info in LEGEND:
        assert ",".join(map(str, (*info.color, 255))) in qml


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_byte(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = class_mask()
    raster = write_own(tmp_path / "classes.tif", mask)
    percents = np.random.default_rng(0).integers(0, 101, mask.shape).astype(np.uint8)
    confidence = write_raster(tmp_path / "percent.tif", percents)
    given = ["--confidence", confidence, "--min-area", 3, "--simplify", 0.5]
    expected = rows_of(vectorized(raster, tmp_path / "a.gpkg", *given, "--threads", 1))
    # Small enough to be cut into many bands.
    monkeypatch.setattr("geoseg.io.class_raster._STRIP_PIXELS", 1200)
    monkeypatch.setattr("geoseg.io.class_raster._MOST_PIXELS", 1200)
    found = rows_of(
        vectorized(raster, tmp_path / "b.gpkg", *given, "--threads", threads)
    )
    assert found == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_runs_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    raster = write_own(tmp_path / "classes.tif", class_mask())
    out = tmp_path / f"out{suffix}"
    first = vectorized(raster, out).read_bytes()
    time.sleep(1.1)  # Times in files have seconds.
    assert vectorized(raster, out, "--overwrite").read_bytes() == first


def test_no_time_in_a_geopackage_is_the_clocks(tmp_path: Path) -> None:
    raster = write_own(tmp_path / "classes.tif", class_mask(30))
    out = vectorized(raster, tmp_path / "out.gpkg")
    query = (
        "SELECT last_change FROM gpkg_contents UNION "
        "SELECT timestamp FROM gpkg_metadata_reference UNION "
        "SELECT update_time FROM layer_styles"
    )
    with closing(sqlite3.connect(out)) as connection:
        times = connection.execute(query).fetchall()
    assert times == [("1970-01-01T00:00:00.000Z",)]


def test_confidence_is_the_mean_of_the_pixels(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_classes(tmp_path / "classes.tif", mask)
    percents = np.random.default_rng(0).integers(0, 101, mask.shape).astype(np.uint8)
    percents[mask == NODATA] = NODATA
    confidence = write_raster(tmp_path / "percent.tif", percents, nodata=NODATA)
    out = vectorized(raster, tmp_path / "o.gpkg", "--confidence", confidence)
    table = read_polygons(out)
    for row in table.itertuples():
        inside = rasterio.features.geometry_mask(
            [row.geometry], mask.shape, NORTH_UP, invert=True
        )
        assert row.confidence_mean == pytest.approx(percents[inside].mean())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_confidence_its_column_is_null(suffix: str, tmp_path: Path) -> None:
    raster = write_classes(tmp_path / "classes.tif", class_mask(60))
    table = read_polygons(vectorized(raster, tmp_path / f"o{suffix}"))
    assert len(table)
    assert table.confidence_mean.isna().all()


def test_simplified_polygons_stay_a_coverage_of_the_same_area(tmp_path: Path) -> None:
    mask = class_mask()
    raster = write_classes(tmp_path / "classes.tif", mask)
    exact = read_polygons(vectorized(raster, tmp_path / "a.gpkg"))
    out = vectorized(raster, tmp_path / "b.gpkg", "--simplify", 2)
    simple = read_polygons(out)
    assert shapely.coverage_is_valid(simple.geometry.to_numpy())
    assert list(simple.pixels) == list(exact.pixels)
    assert simple.area.sum() == pytest.approx(exact.area.sum(), rel=1e-9)
    assert simple.geometry.count_coordinates().sum() < (
        0.7 * exact.geometry.count_coordinates().sum()
    )
    # Measured after simplifying, as it is written.
    assert simple.area_m2.sum() == pytest.approx(exact.area_m2.sum(), rel=1e-6)
    assert not np.allclose(simple.area_m2, exact.area_m2, rtol=1e-3)


def test_small_polygons_are_absorbed_on_the_ground(tmp_path: Path) -> None:
    mask = class_mask()
    # EPSG:3857 at 60 degrees: a pixel of 1 map unit squared is a quarter on the ground
    transform = Affine(1, 0, 0, 0, -1, 8_399_738)
    raster = write_classes(
        tmp_path / "c.tif", mask, crs="EPSG:3857", transform=transform
    )
    exact = read_polygons(vectorized(raster, tmp_path / "a.gpkg"))
    out = vectorized(raster, tmp_path / "b.gpkg", "--min-area", 4)
    table = read_polygons(out)
    assert exact.area_m2.min() < 1
    assert 4 <= table.area_m2.min() < 8
    assert len(table) < len(exact) / 2
    assert table.pixels.sum() == (mask != NODATA).sum()
    assert shapely.coverage_is_valid(table.geometry.to_numpy())


def test_excluded_classes_get_no_polygons(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_own(tmp_path / "classes.tif", mask)
    given = ["--exclude", "2", "--exclude", "WATER"]
    out = vectorized(raster, tmp_path / "o.gpkg", *given)
    mask[(mask == 0) | (mask == 2)] = NODATA
    assert_exact(out, mask)


def test_options_are_told_in_the_layers_metadata(tmp_path: Path) -> None:
    raster = write_own(tmp_path / "classes.tif", class_mask(60))
    given = ["--exclude", "2", "--min-area", 2, "--simplify", 0.25]
    out = vectorized(raster, tmp_path / "o.gpkg", *given)
    with closing(sqlite3.connect(out)) as connection:
        [(text,)] = connection.execute("SELECT metadata FROM gpkg_metadata")
    for part in ("classes.tif", "min_area_m2", "0.25", "excluded", "geoseg 0"):
        assert part in text


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int32", "int64"])
def test_whole_numbers_of_any_size(tmp_path: Path, dtype: str) -> None:
    mask = class_mask(60)
    values = mask.astype(dtype)
    values[mask == NODATA] = -1 if dtype != "uint16" else 65535
    nodata = int(values[mask == NODATA][0])
    raster = write_classes(tmp_path / "c.tif", values, nodata=nodata)
    assert_exact(vectorized(raster, tmp_path / "o.gpkg"), mask)


def test_masks_and_alpha_hide_pixels(tmp_path: Path) -> None:
    mask = class_mask(60)
    shown = mask != NODATA
    filled = np.where(shown, mask, 2)
    masked = write_classes(tmp_path / "m.tif", filled, nodata=None, mask=shown)
    assert_exact(vectorized(masked, tmp_path / "m.gpkg"), mask)
    clear = write_classes(tmp_path / "a.tif", filled, nodata=None, alpha=shown)
    assert_exact(vectorized(clear, tmp_path / "a.gpkg"), mask)


def test_nodata_may_be_named_and_zero_is_a_class(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_classes(tmp_path / "c.tif", mask, nodata=None)
    out = vectorized(raster, tmp_path / "a.gpkg")
    assert set(read_polygons(out).class_id) == {0, 1, 2, 3, NODATA}
    assert_exact(vectorized(raster, tmp_path / "b.gpkg", "--nodata", NODATA), mask)


def test_one_of_several_bands(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_raster(tmp_path / "c.tif", np.stack([mask + 1, mask]), nodata=NODATA)
    assert_exact(vectorized(raster, tmp_path / "o.gpkg", "--band", 2), mask)


@pytest.mark.parametrize("shape", [(1, 1), (40, 1), (1, 40)])
def test_one_pixel_wide(tmp_path: Path, shape: tuple[int, int]) -> None:
    mask = class_mask(60)[20 : 20 + shape[0], 20 : 20 + shape[1]]
    raster = write_classes(tmp_path / "c.tif", np.ascontiguousarray(mask))
    assert_exact(vectorized(raster, tmp_path / "o.gpkg"), mask)


def test_one_class_is_one_polygon(tmp_path: Path) -> None:
    mask = np.full((50, 40), 7, np.uint8)
    raster = write_classes(tmp_path / "c.tif", mask)
    given = ["--min-area", 1e9, "--simplify", 5]
    out = vectorized(raster, tmp_path / "o.gpkg", *given)
    assert len(read_polygons(out)) == 1
    assert_exact(out, mask)


@pytest.mark.parametrize("options", [[], ["--min-area", 5, "--simplify", 1]])
def test_all_nodata_is_an_empty_layer(tmp_path: Path, options: list[object]) -> None:
    raster = write_classes(tmp_path / "c.tif", np.full((50, 40), NODATA, np.uint8))
    result = geoseg("vectorize", raster, *options)
    assert result.exit_code == 0, result.stderr
    table = read_polygons(tmp_path / "c.gpkg")
    assert len(table) == 0
    assert table.crs == "EPSG:32631"
    assert "class_name" in table
    assert "(0 polygons, " in result.stdout


def test_without_a_crs_areas_are_unknown_and_that_is_said(tmp_path: Path) -> None:
    mask = class_mask(40)
    raster = write_classes(
        tmp_path / "c.tif", mask, crs=None, transform=Affine.identity()
    )
    result = geoseg("vectorize", raster)
    assert result.exit_code == 0
    assert "has no CRS or no transform, so areas are unknown" in result.stderr
    assert "gdal_translate -a_srs" in result.stderr
    assert "pixels" in result.stdout
    table = read_polygons(tmp_path / "c.gpkg")
    assert table.area_m2.isna().all()
    assert_exact(tmp_path / "c.gpkg", mask, Affine.identity())
