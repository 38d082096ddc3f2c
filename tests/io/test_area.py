from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
from affine import Affine
from class_masks import blobs, trace_whole
from pyproj.crs import BoundCRS
from pyproj.crs.coordinate_operation import ToWGS84Transformation
from rasters import NORTH_UP, ROTATED, UTM

from geoseg.grid import Grid
from geoseg.io.area import GroundArea
from geoseg.vectorize import PolygonBatch, simplify
from geoseg.vectorize.moments import polygon_moments

SIZE = 1000
SIDE = SIZE // 5
CASES: dict[str, tuple[str, Affine]] = {
    "degrees at 60": ("EPSG:4326", Affine(5e-5, 0, 5, 0, -5e-5, 60)),
    "degrees over the date line": ("EPSG:4326", Affine(0.01, 0, 175, 0, -0.01, 60)),
    "degrees at the pole": ("EPSG:4326", Affine(0.01, 0, 10, 0, -0.01, 90)),
    "web mercator at 60": ("EPSG:3857", Affine(1, 0, 1e6, 0, -1, 8_399_738)),
    "coarse web mercator": ("EPSG:3857", Affine(300, 0, 1e6, 0, -300, 8_399_738)),
    "UTM": (UTM, NORTH_UP),
    "UTM at 80, 60 m": (UTM, Affine(60, 0, 3e5, 0, -60, 8.9e6)),
    "UTM rotated": (UTM, ROTATED),
    "south-up": (UTM, Affine(3, 0, 5e5, 0, 3, 5e6)),
    "US feet": ("EPSG:2263", Affine(16, 0, 985_000, 0, -16, 205_000)),
    "Dutch grid": ("EPSG:28992", Affine(2.5, 0, 1e5, 0, -2.5, 4.5e5)),
    "UTM over the date line": ("EPSG:32660", Affine(100, 0, 6e5, 0, -100, 7e6)),
    "around the pole": ("EPSG:3031", Affine(100, 0, -5e4, 0, -100, 5e4)),
}


def polygons(transform: Affine) -> npt.NDArray[np.object_]:
    """Return a square, two strips, an L with a hole, and the whole grid."""
    end = SIZE

    def ground(ring: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [transform @ point for point in ring]

    def box(col: int, row: int, width: int, height: int) -> list[tuple[float, float]]:
        right, bottom = col + width, row + height
        return [(col, row), (right, row), (right, bottom), (col, bottom)]

    ell = [(0, 0), (end, 0), (end, 500), (500, 500), (500, end), (0, end)]
    found = [
        shapely.Polygon(ground(box(40, 60, 20, 20))),
        shapely.Polygon(ground(box(0, 500, end, 5))),
        shapely.Polygon(ground(box(3, 0, 5, end))),
        shapely.Polygon(
            ground([(float(x), float(y)) for x, y in ell]), [ground(box(9, 9, 90, 30))]
        ),
        shapely.Polygon(ground(box(0, 0, end, end))),
    ]
    return np.array(found, object)


def geodesic_area(polygon: shapely.Polygon, crs: pyproj.CRS) -> float:
    """Measure with geodesics between points so dense that they follow the edges."""
    dense = shapely.segmentize(polygon, polygon.length / 2000)
    geodetic = crs.geodetic_crs
    geod = crs.get_geod()
    assert geodetic is not None
    assert geod is not None
    to_degrees = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
    outer, *holes = (
        abs(geod.polygon_area_perimeter(*to_degrees.transform(*ring.coords.xy))[0])
        for ring in (dense.exterior, *dense.interiors)
    )
    return float(outer - sum(holes))


@pytest.mark.parametrize("name", CASES)
def test_areas_are_those_of_the_ellipsoid(name: str) -> None:
    code, transform = CASES[name]
    crs = pyproj.CRS.from_user_input(code)
    shapes = polygons(transform)
    area = GroundArea(Grid(SIZE, SIZE, transform, crs.to_wkt()))
    assert area.known
    want = [geodesic_area(shape, crs) for shape in shapes]
    np.testing.assert_allclose(area.measure(shapes), want, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_traced_polygons_have_the_same_areas_by_their_plane(name: str) -> None:
    code, transform = CASES[name]
    crs = pyproj.CRS.from_user_input(code)
    mask = blobs(SIDE, 4, sigma=4)
    mask[:50, 100:103] = 7  # A strip, and its surroundings with a hole.
    grid = Grid(SIDE, SIDE, transform @ Affine.scale(5), crs.to_wkt())
    batch = trace_whole(mask, None, grid.transform)
    area, moments = GroundArea(grid), polygon_moments(batch.geometry)
    found = area.measure_batch(batch, moments)
    np.testing.assert_allclose(found, area.measure(batch.geometries()), rtol=3e-5)
    largest = np.argsort(batch.pixels)[-3:]
    want = [geodesic_area(shape, crs) for shape in batch.geometries()[largest]]
    np.testing.assert_allclose(found[largest], want, rtol=1e-4)


def test_simplified_polygons_have_the_areas_of_what_is_written() -> None:
    code, transform = CASES["web mercator at 60"]
    mask = blobs(SIDE, 4, sigma=2)
    grid = Grid(SIDE, SIDE, transform, pyproj.CRS(code).to_wkt())
    whole = trace_whole(mask, None, transform)
    batch = PolygonBatch.concat(list(simplify([whole], 4)))
    area = GroundArea(grid)
    found = area.measure_batch(batch, polygon_moments(batch.geometry))
    np.testing.assert_allclose(found, area.measure(batch.geometries()), rtol=3e-5)
    before = area.measure_batch(whole, polygon_moments(whole.geometry))
    assert (abs(found - before) > 0.01 * before).any()
    assert found.sum() == pytest.approx(before.sum(), rel=1e-6)


def test_few_polygons_need_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[int] = []
    measure = GroundArea.measure

    def counted(
        self: GroundArea, polygons: npt.NDArray[np.object_]
    ) -> npt.NDArray[np.float64]:
        slow.append(len(polygons))
        return measure(self, polygons)

    monkeypatch.setattr(GroundArea, "measure", counted)
    mask = blobs(SIDE, 4, sigma=2)
    for name in ("UTM", "web mercator at 60", "UTM at 80, 60 m", "degrees at 60"):
        code, transform = CASES[name]
        crs = pyproj.CRS.from_user_input(code)
        grid = Grid(SIDE, SIDE, transform @ Affine.scale(5), crs.to_wkt())
        batch = trace_whole(mask, None, grid.transform)
        GroundArea(grid).measure_batch(batch, polygon_moments(batch.geometry))
        assert sum(slow) <= len(batch) // 20, name
        slow.clear()


def test_web_mercator_at_60_degrees_is_not_measured_in_the_plane() -> None:
    code, transform = CASES["web mercator at 60"]
    grid = Grid(SIZE, SIZE, transform, pyproj.CRS(code).to_wkt())
    shapes = polygons(transform)
    ratio = shapely.area(shapes) / GroundArea(grid).measure(shapes)
    np.testing.assert_allclose(ratio, 4, rtol=0.02)


def test_the_whole_earth_is_measured() -> None:
    grid = Grid(180, 360, Affine(1, 0, -180, 0, -1, 90), pyproj.CRS(4326).to_wkt())
    halves = np.array([shapely.box(-180, -90, 0, 90), shapely.box(0, -90, 180, 90)])
    areas = GroundArea(grid).measure(halves)
    np.testing.assert_allclose(areas, 510_065_621.724e6 / 2, rtol=1e-9)


def test_pixels_that_stick_out_at_the_rim_of_a_globe_do_not_wrap() -> None:
    radius, side = 6_371_007.181, 100_000.0
    crs = pyproj.CRS.from_proj4(f"+proj=sinu +R={radius} +units=m +type=crs")
    # Not in the middle, or errors of both rims would cancel out.
    transform = Affine(side, 0, -20_080_000, 0, -side, 9_950_000)
    grid = Grid(199, 402, transform, crs.to_wkt())
    col, row = np.meshgrid(np.arange(402) + 0.5, np.arange(199) + 0.5)
    x, y = transform @ (col, row)
    on_earth = np.abs(x) <= np.pi * radius * np.cos(y / radius)
    mask = np.where(on_earth, 1 + (y < 0), 255).astype(np.uint8)
    mask[90:95, 150:160] = 3  # Its surroundings have a hole.
    batch = trace_whole(mask, None, transform)
    area = GroundArea(grid)
    wanted = batch.pixels * side**2  # Equal-area, on a sphere.
    measured = area.measure(batch.geometries())
    np.testing.assert_allclose(measured, wanted, rtol=1e-4)
    by_plane = area.measure_batch(batch, polygon_moments(batch.geometry))
    np.testing.assert_allclose(by_plane, wanted, rtol=1e-4)


def test_a_polygon_without_an_area_takes_none_from_others() -> None:
    crs = pyproj.CRS("ESRI:54009")  # Mollweide: an ellipse, nothing in the corners.
    transform = Affine(1e5, 0, -1.8e7, 0, -1e5, 9e6)
    grid = Grid(180, 360, transform, crs.to_wkt())
    corner = shapely.box(-1.8e7, 8e6, -1.7e7, 9e6)
    inside = shapely.box(1e6, 1e6, 2e6, 2e6)
    unknown, known = GroundArea(grid).measure(np.array([corner, inside]))
    assert np.isnan(unknown)
    assert known == pytest.approx(inside.area, rel=0.01)  # Equal-area on a sphere.


def test_a_datum_shift_in_the_crs_changes_nothing() -> None:
    plain = pyproj.CRS("EPSG:28992")
    shift = ToWGS84Transformation(
        plain.geodetic_crs, 565.4, 50.3, 465.5, -0.4, 0.34, -1.88, 4.08
    )
    bound = BoundCRS(plain, "EPSG:4326", shift)
    transform = CASES["Dutch grid"][1]
    shapes = polygons(transform)
    areas = [
        GroundArea(Grid(SIZE, SIZE, transform, crs.to_wkt())).measure(shapes)
        for crs in (plain, bound)
    ]
    assert bound.is_bound
    np.testing.assert_allclose(areas[0], areas[1], rtol=1e-7)


def test_a_paris_meridian_and_grads_are_understood() -> None:
    transform = Affine(1, 0, 6e5, 0, -1, 2.4e6)
    grid = Grid(SIZE, SIZE, transform, pyproj.CRS("EPSG:27572").to_wkt())
    shapes = polygons(transform)
    scale = shapely.area(shapes) / GroundArea(grid).measure(shapes)
    np.testing.assert_allclose(scale, 1, rtol=1e-3)  # The grid is near true to scale.


def test_without_a_crs_there_is_no_area() -> None:
    area = GroundArea(Grid(10, 10, NORTH_UP, None))
    assert not area.known
    assert np.isnan(area.measure(polygons(NORTH_UP))).all()
