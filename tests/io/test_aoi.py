from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine
from rasters import GRIDS, NORTH_UP, UTM, rgb_spec, write_raster
from shapely.geometry.base import BaseGeometry

from geoseg.errors import SceneError, UsageError
from geoseg.grid import Window
from geoseg.io.raster import Scene, SceneReader, open_scene

HEIGHT, WIDTH = 20, 30
Ring = list[tuple[float, float]]
TRIANGLE: Ring = [(3.2, 2.1), (21.7, 6.3), (8.4, 17.9)]
"""(column, row), edges through no pixel centre."""


@pytest.fixture
def scene_path(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "a.tif", np.full((3, HEIGHT, WIDTH), 9, np.uint8))


def save(path: Path, areas: list[BaseGeometry], crs: str | None) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        gpd.GeoDataFrame(geometry=areas, crs=crs).to_file(path)
    return path


def on_ground(transform: Affine, ring: Ring) -> shapely.Polygon:
    return shapely.Polygon([transform @ point for point in ring])


def inside(ring: Ring) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centre lies in a ring of pixel coordinates."""
    row, col = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.asarray(shapely.contains_xy(shapely.Polygon(ring), col, row))


def keep(scene: Scene) -> npt.NDArray[np.bool_]:
    with SceneReader(scene) as reader:
        pixels = reader.read(scene.grid.whole)
    assert pixels.valid.all(), "pixels outside are context, not nodata"
    return pixels.keep


@pytest.mark.parametrize("name", GRIDS)
def test_pixels_with_their_centre_inside_are_kept(tmp_path: Path, name: str) -> None:
    crs, transform = GRIDS[name]
    pixels = np.full((3, HEIGHT, WIDTH), 9, np.uint8)
    path = write_raster(tmp_path / "a.tif", pixels, crs=crs, transform=transform)
    aoi = save(tmp_path / "a.gpkg", [on_ground(transform, TRIANGLE)], crs)
    scene = open_scene(path, rgb_spec(), aoi=aoi)
    assert (keep(scene) == inside(TRIANGLE)).all()
    rows, cols = np.nonzero(inside(TRIANGLE))
    assert scene.region is not None
    top, bottom, left, right = 2, 18, 3, 22
    assert Window(top, left, bottom - top, right - left).contains(scene.region)
    assert scene.region.row <= rows.min()
    assert scene.region.col_stop >= cols.max() + 1


def test_the_mask_of_a_window_is_that_of_the_whole(scene_path: Path) -> None:
    aoi = save(scene_path.with_suffix(".gpkg"), [on_ground(NORTH_UP, TRIANGLE)], UTM)
    scene = open_scene(scene_path, rgb_spec(), aoi=aoi)
    whole = keep(scene)
    with SceneReader(scene) as reader:
        for row in range(0, HEIGHT, 3):
            window = Window(row, 5, min(3, HEIGHT - row), 11)
            assert (reader.read(window).keep == whole[window.slices]).all()


def test_an_aoi_in_another_crs_is_transformed(scene_path: Path) -> None:
    area = gpd.GeoSeries([on_ground(NORTH_UP, TRIANGLE)], crs=UTM).to_crs(4326)
    aoi = save(scene_path.with_suffix(".geojson"), list(area), "EPSG:4326")
    scene = open_scene(scene_path, rgb_spec(), aoi=aoi)
    assert (keep(scene) == inside(TRIANGLE)).all()


def test_an_aoi_without_a_crs_is_in_the_scenes(scene_path: Path) -> None:
    aoi = save(scene_path.with_suffix(".shp"), [on_ground(NORTH_UP, TRIANGLE)], None)
    scene = open_scene(scene_path, rgb_spec(), aoi=aoi)
    assert (keep(scene) == inside(TRIANGLE)).all()


def test_an_aoi_around_the_whole_earth_wants_everything(scene_path: Path) -> None:
    aoi = save(
        scene_path.with_suffix(".gpkg"), [shapely.box(-180, -90, 180, 90)], "EPSG:4326"
    )
    scene = open_scene(scene_path, rgb_spec(), aoi=aoi)
    assert scene.region == scene.grid.whole
    assert keep(scene).all()


def test_several_polygons_are_one_area_and_lines_count_for_nothing(
    scene_path: Path,
) -> None:
    first: Ring = [(1.1, 1.1), (6.1, 1.1), (6.1, 6.1), (1.1, 6.1)]
    second: Ring = [(4.1, 4.1), (9.1, 4.1), (9.1, 9.1), (4.1, 9.1)]
    shapes = [on_ground(NORTH_UP, first), on_ground(NORTH_UP, second)]
    line = shapely.LineString([NORTH_UP @ (0, 0), NORTH_UP @ (30, 20)])
    aoi = save(scene_path.with_suffix(".gpkg"), [*shapes, line], UTM)
    scene = open_scene(scene_path, rgb_spec(), aoi=aoi)
    assert scene.region == Window(1, 1, 8, 8)
    assert (keep(scene) == (inside(first) | inside(second))).all()


def test_a_box_of_whole_pixels_keeps_just_them(scene_path: Path) -> None:
    left, top = NORTH_UP @ (4, 3)
    right, bottom = NORTH_UP @ (14, 9)
    scene = open_scene(scene_path, rgb_spec(), bbox=(left, bottom, right, top))
    assert scene.region == Window(3, 4, 6, 10)
    kept = keep(scene)
    assert kept[scene.region.slices].all()
    assert kept.sum() == 60


def test_a_box_and_an_aoi_keep_what_they_share(scene_path: Path) -> None:
    aoi = save(scene_path.with_suffix(".gpkg"), [on_ground(NORTH_UP, TRIANGLE)], UTM)
    left, top = NORTH_UP @ (0, 0)
    right, bottom = NORTH_UP @ (10, 20)
    box = (left, bottom, right, top)
    kept = keep(open_scene(scene_path, rgb_spec(), aoi=aoi, bbox=box))
    want = inside(TRIANGLE)
    want[:, 10:] = False
    assert (kept == want).all()


def test_the_region_counts_processed_pixels(scene_path: Path) -> None:
    left, top = NORTH_UP @ (10, 4)
    right, bottom = NORTH_UP @ (20, 12)
    box = (left, bottom, right, top)
    ground = open_scene(scene_path, rgb_spec()).grid.ground_resolution()
    assert ground is not None
    scene = open_scene(scene_path, rgb_spec(), resolution=2 * ground, bbox=box)
    assert scene.region == Window(2, 5, 4, 5)


def test_a_box_of_a_scene_without_crs_is_in_pixels(tmp_path: Path) -> None:
    pixels = np.full((3, HEIGHT, WIDTH), 9, np.uint8)
    path = write_raster(
        tmp_path / "a.tif", pixels, crs=None, transform=Affine.identity()
    )
    with pytest.warns(UserWarning, match="no CRS"):
        scene = open_scene(path, rgb_spec(), bbox=(4, 3, 14, 9))
    assert scene.region == Window(3, 4, 6, 10)


def test_an_aoi_with_a_crs_needs_a_scene_with_one(tmp_path: Path) -> None:
    pixels = np.full((3, HEIGHT, WIDTH), 9, np.uint8)
    path = write_raster(
        tmp_path / "a.tif", pixels, crs=None, transform=Affine.identity()
    )
    area = shapely.box(4, 3, 14, 9)
    located = save(tmp_path / "a.geojson", [area], "EPSG:4326")
    with (
        pytest.warns(UserWarning, match="no CRS"),
        pytest.raises(SceneError, match="--bbox in pixels"),
    ):
        open_scene(path, rgb_spec(), aoi=located)
    # A GeoPackage without a CRS says "Undefined Cartesian SRS".
    for name in ("a.gpkg", "a.shp"):
        aoi = save(tmp_path / name, [area], None)
        with pytest.warns(UserWarning, match="no CRS"):
            scene = open_scene(path, rgb_spec(), aoi=aoi)
        assert scene.region == Window(3, 4, 6, 10)


@pytest.mark.parametrize("name", ["a.gpkg", "a.gdb"])
def test_the_first_layer_with_polygons_is_the_aoi(scene_path: Path, name: str) -> None:
    path = scene_path.with_name(name)
    driver = "OpenFileGDB" if name.endswith("gdb") else "GPKG"
    layers = {
        "layer_styles": None,
        "points": shapely.Point(NORTH_UP @ (1, 1)),
        "area": on_ground(NORTH_UP, TRIANGLE),
        "other": on_ground(NORTH_UP, [(0, 0), (1, 0), (1, 1)]),
    }
    for layer, shape in layers.items():
        if shape is None:
            table = pd.DataFrame({"style": ["<qgis/>"]})
            pyogrio.write_dataframe(table, path, layer=layer, driver=driver)
        else:
            frame = gpd.GeoDataFrame({"name": ["a"]}, geometry=[shape], crs=UTM)
            frame.to_file(path, layer=layer, driver=driver, mode="a")
    scene = open_scene(scene_path, rgb_spec(), aoi=path)
    assert (keep(scene) == inside(TRIANGLE)).all()


@pytest.mark.parametrize("crs", ["EPSG:4326", UTM])
def test_an_aoi_elsewhere_is_told(scene_path: Path, crs: str) -> None:
    aoi = save(scene_path.with_suffix(".gpkg"), [shapely.box(60, 10, 61, 11)], crs)
    with pytest.raises(SceneError, match="does not touch the scene"):
        open_scene(scene_path, rgb_spec(), aoi=aoi)


def test_an_aoi_between_pixel_centres_is_told(scene_path: Path) -> None:
    sliver = on_ground(NORTH_UP, [(3.6, 2.6), (4.4, 2.6), (4.4, 3.4), (3.6, 3.4)])
    aoi = save(scene_path.with_suffix(".gpkg"), [sliver], UTM)
    with pytest.raises(SceneError, match="no pixel centre"):
        open_scene(scene_path, rgb_spec(), aoi=aoi)


@pytest.mark.parametrize("text", ["", "no json", json.dumps({"type": "Feature"})])
def test_an_unreadable_aoi_is_wrong_usage(scene_path: Path, text: str) -> None:
    aoi = scene_path.with_suffix(".geojson")
    aoi.write_text(text)
    with pytest.raises(UsageError, match="AOI"):
        open_scene(scene_path, rgb_spec(), aoi=aoi)


@pytest.mark.filterwarnings("ignore:Non closed ring")
def test_a_ring_that_does_not_close_is_closed(scene_path: Path) -> None:
    ring = [list(NORTH_UP @ point) for point in TRIANGLE]
    crs = {"type": "name", "properties": {"name": UTM}}
    aoi = scene_path.with_suffix(".geojson")
    area = {"type": "Polygon", "coordinates": [ring], "crs": crs}
    aoi.write_text(json.dumps(area))
    kept = keep(open_scene(scene_path, rgb_spec(), aoi=aoi))
    assert (kept == inside(TRIANGLE)).all()


def test_an_aoi_whose_fields_are_not_utf_8_is_wrong_usage(scene_path: Path) -> None:
    area = {"type": "Feature", "properties": {"?": 1}}
    area["geometry"] = {"type": "Point", "coordinates": [0, 0]}
    aoi = scene_path.with_suffix(".geojson")
    aoi.write_bytes(json.dumps(area).encode().replace(b"?", b"\xd6"))
    with pytest.raises(UsageError, match="cannot be read"):
        open_scene(scene_path, rgb_spec(), aoi=aoi)


def test_an_aoi_without_polygons_is_wrong_usage(scene_path: Path) -> None:
    aoi = save(scene_path.with_suffix(".gpkg"), [shapely.Point(5e5, 5.8e6)], UTM)
    with pytest.raises(UsageError, match="no polygon"):
        open_scene(scene_path, rgb_spec(), aoi=aoi)


@pytest.mark.parametrize("box", [(2.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, float("nan"))])
def test_an_empty_box_is_wrong_usage(
    scene_path: Path, box: tuple[float, float, float, float]
) -> None:
    with pytest.raises(UsageError, match="left,bottom,right,top"):
        open_scene(scene_path, rgb_spec(), bbox=box)


def test_a_long_straight_edge_is_straight_in_the_crs_of_the_aoi(tmp_path: Path) -> None:
    # A parallel of latitude bows by 6 pixels against the chord between its ends.
    transform = Affine(500, 0, 360_000, 0, -500, 6_700_000)
    pixels = np.full((3, 200, 560), 9, np.uint8)
    path = write_raster(tmp_path / "a.tif", pixels, transform=transform)
    aoi = save(tmp_path / "a.gpkg", [shapely.box(0, 60, 6, 61)], "EPSG:4326")
    scene = open_scene(path, rgb_spec(), aoi=aoi)
    with SceneReader(scene) as reader:
        kept = reader.read(scene.grid.whole).keep
    row, col = np.mgrid[:200, :560] + 0.5
    to_degrees = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*(transform @ (col, row)))
    want = (lon > 0) & (lon < 6) & (lat > 60) & (lat < 61)
    assert (kept != want).sum() < 10, "only pixels that the edge runs through"
