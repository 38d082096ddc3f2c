"""Windows are rectangles, and a grid knows how large its pixels are on the ground."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from strategies import grids, windows

from geoseg.errors import UsageError
from geoseg.grid import Grid, Window

NORTH_UP = Affine(1, 0, 0, 0, -1, 0)


def wkt(code: int) -> str:
    """Return an EPSG code's definition as WKT2."""
    return str(CRS.from_epsg(code).to_wkt())


def grid_at(
    code: int, lon: float, lat: float, shape: Affine, size: tuple[int, int] = (101, 60)
) -> Grid:
    """A grid of odd shape whose centre lies at a longitude and latitude in degrees."""
    transformer = Transformer.from_crs(4326, code, always_xy=True)
    x, y = transformer.transform(lon, lat)
    height, width = size
    centred = (
        Affine.translation(x, y) @ shape @ Affine.translation(-width / 2, -height / 2)
    )
    return Grid(height, width, centred, wkt(code))


def metres_per_radian(latitude: float) -> tuple[float, float]:
    """Radii of curvature of WGS 84, north-south and east-west, metres per radian."""
    a, f = 6378137.0, 1 / 298.257223563
    squared = f * (2 - f)
    sine = math.sin(math.radians(latitude))
    normal = a / math.sqrt(1 - squared * sine**2)
    meridian = a * (1 - squared) / (1 - squared * sine**2) ** 1.5
    return meridian, normal * math.cos(math.radians(latitude))


def ground(grid: Grid) -> float:
    """Return the ground resolution of a grid that has one."""
    resolution = grid.ground_resolution()
    assert resolution is not None
    return resolution


@given(windows(40, 40), windows(40, 40))
def test_windows_meet_where_both_hold_pixels(one: Window, two: Window) -> None:
    both = np.zeros((40, 40), bool)
    mask = np.zeros_like(both)
    mask[one.slices] = True
    both[two.slices] = mask[two.slices]
    meeting = one.intersection(two)
    found = np.zeros_like(both)
    if meeting is not None:
        found[meeting.slices] = True
        assert one.contains(meeting)
        assert two.contains(meeting)
    np.testing.assert_array_equal(found, both)
    assert one.contains(two) == (meeting == two)


@given(windows(40, 40), windows(40, 40))
def test_a_relative_window_is_the_same_rectangle(one: Window, two: Window) -> None:
    relative = one.relative_to(two)
    assert (relative.row + two.row, relative.col + two.col) == (one.row, one.col)
    assert (relative.height, relative.width) == (one.height, one.width)


def test_a_window_of_negative_size_is_refused() -> None:
    with pytest.raises(UsageError, match="-1 x 4 pixels has a negative size"):
        Window(0, 0, -1, 4)


def test_windows_that_share_only_an_edge_do_not_meet() -> None:
    assert Window(0, 0, 4, 4).intersection(Window(4, 0, 4, 4)) is None


@given(grids(), st.data())
def test_a_pixel_lies_where_it_lay_in_the_window_around_it(
    grid: Grid, data: st.DataObject
) -> None:
    window = data.draw(windows(grid.height, grid.width))
    part = grid.window(window)
    assert part.shape == (window.height, window.width)
    assert part.transform @ (0, 0) == pytest.approx(
        grid.transform @ (window.col, window.row), abs=1e-6
    )
    assert part.transform @ (window.width, window.height) == pytest.approx(
        grid.transform @ (window.col_stop, window.row_stop), abs=1e-6
    )


@given(grids())
def test_bounds_hold_every_corner_and_touch_them(grid: Grid) -> None:
    corners = np.array(
        [
            grid.transform @ (c, r)
            for r in np.linspace(0, grid.height, 3)
            for c in np.linspace(0, grid.width, 3)
        ]
    )
    expected = (*corners.min(0), *corners.max(0))
    assert grid.bounds == pytest.approx(expected, abs=1e-6)
    assert grid.whole == Window(0, 0, *grid.shape)


def test_a_pixel_size_is_height_then_width_in_any_rotation() -> None:
    transform = Affine.rotation(33) @ Affine.scale(3, -2)
    assert Grid(4, 4, transform, None).pixel_size == pytest.approx((2, 3))


@given(
    grids(),
    st.floats(0.3, 8, allow_nan=False),
    st.floats(0.3, 8, allow_nan=False),
)
def test_resampling_keeps_the_corner_and_takes_the_factor_exactly(
    grid: Grid, row_factor: float, col_factor: float
) -> None:
    coarse = grid.resampled((row_factor, col_factor))
    assert coarse.transform == grid.transform @ Affine.scale(col_factor, row_factor)
    assert coarse.transform @ (0, 0) == grid.transform @ (0, 0)
    height, width = grid.pixel_size
    assert coarse.pixel_size == pytest.approx((height * row_factor, width * col_factor))
    assert coarse.height == max(1, round(grid.height / row_factor))
    assert coarse.width == max(1, round(grid.width / col_factor))


def test_resampling_by_one_changes_nothing() -> None:
    grid = Grid(7, 9, NORTH_UP, None)
    assert grid.resampled((1.0, 1.0)) == grid


@pytest.mark.parametrize("factor", [(0.0, 1.0), (1.0, -2.0), (math.nan, 1.0)])
def test_resampling_by_nothing_is_refused(factor: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="give two factors above 0"):
        Grid(7, 9, NORTH_UP, None).resampled(factor)


def test_without_a_crs_there_is_no_ground_resolution() -> None:
    assert Grid(7, 9, NORTH_UP, None).ground_resolution() is None


def test_a_crs_that_is_not_tied_to_the_earth_has_no_ground_resolution() -> None:
    local = (
        'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],'
        'AXIS["x",east,ORDER[1]],AXIS["y",north,ORDER[2]],LENGTHUNIT["metre",1]]'
    )
    assert Grid(7, 9, NORTH_UP, local).ground_resolution() is None


def test_metres_from_the_earths_centre_have_no_ground_resolution() -> None:
    assert Grid(7, 9, NORTH_UP, wkt(4978)).ground_resolution() is None


def test_a_centre_outside_the_projection_has_no_ground_resolution() -> None:
    far = Affine.translation(1e12, 1e12) @ NORTH_UP
    assert Grid(7, 9, far, wkt(32631)).ground_resolution() is None


@pytest.mark.parametrize("latitude", [0.0, 45.0, 60.0, -75.0])
def test_degrees_shrink_with_latitude(latitude: float) -> None:
    step = 1e-5
    grid = grid_at(4326, 5.0, latitude, Affine.scale(step, -step))
    per_radian = metres_per_radian(latitude)
    expected = math.radians(step) * math.sqrt(per_radian[0] * per_radian[1])
    assert ground(grid) == pytest.approx(expected, rel=1e-6)


def test_web_mercator_metres_are_half_a_metre_at_60_degrees() -> None:
    grid = grid_at(3857, 10.0, 60.0, Affine.scale(1, -1))
    per_radian = metres_per_radian(60.0)
    # Web Mercator stretches both axes by 1 / cos(latitude) of a sphere of radius a.
    east = per_radian[1] / 6378137.0
    north = per_radian[0] / 6378137.0 * math.cos(math.radians(60.0))
    assert ground(grid) == pytest.approx(math.sqrt(east * north), rel=1e-6)
    assert ground(grid) == pytest.approx(0.5, rel=0.01)


def test_us_feet_are_metres_on_the_ground() -> None:
    grid = grid_at(2263, -73.9, 40.7, Affine.scale(2, -2))
    assert ground(grid) == pytest.approx(2 * 1200 / 3937, rel=2e-4)


def test_utm_is_4_in_10000_too_small_on_its_meridian() -> None:
    grid = grid_at(32631, 3.0, 52.0, Affine.scale(0.25, -0.25))
    assert ground(grid) == pytest.approx(0.25 / 0.9996, rel=1e-6)


def test_unequal_edges_give_their_geometric_mean() -> None:
    grid = grid_at(32631, 3.0, 52.0, Affine.scale(0.5, -2.0))
    assert ground(grid) == pytest.approx(1 / 0.9996, rel=1e-6)


@pytest.mark.parametrize(
    "shape",
    [
        Affine.scale(0.5, 0.5),
        Affine.rotation(33) @ Affine.scale(0.5, -0.5),
        Affine.rotation(90) @ Affine.scale(0.5, 0.5),
    ],
    ids=["south-up", "rotated", "quarter turn and mirrored"],
)
def test_the_way_a_grid_is_turned_does_not_matter(shape: Affine) -> None:
    grid = grid_at(32631, 3.0, 52.0, shape)
    assert ground(grid) == pytest.approx(0.5 / 0.9996, rel=1e-6)


def test_a_base_crs_in_grads_is_measured_in_degrees() -> None:
    # NTF (Paris) / Lambert zone II: its base counts grads from the Paris meridian.
    grid = grid_at(27572, 2.4, 46.8, Affine.scale(5, -5))
    assert ground(grid) == pytest.approx(5, rel=1e-3)


@pytest.mark.parametrize("code", [7415, 28992], ids=["with heights", "without"])
def test_heights_in_the_crs_do_not_matter(code: int) -> None:
    flat = grid_at(28992, 5.4, 52.2, Affine.scale(0.25, -0.25))
    grid = replace(flat, crs=wkt(code))
    assert ground(grid) == pytest.approx(0.25, rel=2e-4)


def test_degrees_with_heights_are_degrees() -> None:
    flat = grid_at(4326, 5.4, 52.2, Affine.scale(1e-5, -1e-5))
    assert ground(replace(flat, crs=wkt(4979))) == ground(flat)


def test_a_crs_bound_to_wgs84_is_measured_on_its_own_ellipsoid() -> None:
    bound = CRS.from_proj4(
        "+proj=sterea +lat_0=52.1561605555556 +lon_0=5.38763888888889 +k=0.9999079 "
        "+x_0=155000 +y_0=463000 +ellps=bessel +units=m +type=crs "
        "+towgs84=565.4171,50.3319,465.5524,1.9342,-1.6677,9.1019,4.0725"
    )
    assert bound.is_bound
    flat = grid_at(28992, 5.4, 52.2, Affine.scale(0.25, -0.25))
    same = replace(flat, crs=bound.to_wkt())
    assert ground(same) == pytest.approx(ground(flat), rel=1e-9)
