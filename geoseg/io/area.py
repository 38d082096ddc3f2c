"""True ground area of polygons in any CRS."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyproj
import pyproj.exceptions
import shapely

from geoseg.errors import SceneError
from geoseg.grid import Grid
from geoseg.io.density import AreaDensity
from geoseg.io.projection import affine_points, on_points
from geoseg.vectorize import PolygonBatch
from geoseg.vectorize.moments import Moments

Floats = npt.NDArray[np.float64]

_EARTH_RADIUS = 6.37e6
"""Metres; good enough for error bounds."""

_TOLERANCE = 1e-5
"""Relative error of an area that straight edges may cause."""

_WIDE = 5.0e6
"""Metres from centre to rim above which a scene is measured by the whole globe."""


class GroundArea:
    """Measures polygons that lie on a grid, in square metres on the ellipsoid.

    Vertices are carried into an equal-area projection of the CRS's own ellipsoid. Edges
    that are straight in the CRS are curved there: long ones are divided first.
    """

    def __init__(self, grid: Grid) -> None:
        """Choose a projection for the grid; one without a CRS measures nothing.

        Raises:
            SceneError: PROJ cannot do anything with the CRS.
        """
        self._transformer: pyproj.Transformer | None = None
        self._density: AreaDensity | None = None
        self._longest_edge = math.inf
        self._around = math.inf
        try:
            self._choose(grid)
        except pyproj.exceptions.ProjError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise SceneError(
                f"areas cannot be measured in the CRS of the raster ({reason}); set "
                "the right one with gdal_edit -a_srs"
            ) from error

    def _choose(self, grid: Grid) -> None:
        resolution = grid.ground_resolution()
        if grid.crs is None or resolution is None:
            return
        self._transformer, self._around = _equal_area(grid)
        self._longest_edge = (
            _longest_edge(resolution) / resolution * min(grid.pixel_size)
        )
        self._density = AreaDensity(grid, self._transformer, resolution)
        self._size = np.array([max(grid.width, 1), max(grid.height, 1)])

    @property
    def known(self) -> bool:
        """Whether areas can be measured: the grid is tied to the ground."""
        return self._transformer is not None

    def measure(self, polygons: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
        """Measure shapely polygons, shape (n,), in the grid's CRS.

        Returns:
            Square metres, shape (n,); NaN where not `known`, or where a polygon reaches
            outside the area that the CRS can express.
        """
        if self._transformer is None:
            return np.full(len(polygons), np.nan)
        bounds = shapely.bounds(polygons)
        extents = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
        divided = polygons.copy()
        large = extents > self._longest_edge / 2  # Others have no edge that long.
        divided[large] = shapely.segmentize(polygons[large], self._longest_edge)
        flat = shapely.transform(divided, on_points(self._transformer.transform))
        with np.errstate(invalid="ignore"):  # Vertices outside the CRS are infinite.
            if math.isfinite(self._around) and len(flat):
                flat = _unwrapped(flat, self._around)
            areas: npt.NDArray[np.float64] = np.asarray(shapely.area(flat), np.float64)
        return np.where(np.isfinite(areas), areas, np.nan)

    def measure_batch(self, batch: PolygonBatch, moments: Moments) -> Floats:
        """Measure polygons by their area in the plane, which is much faster.

        Those that are too large for it are measured as `measure` does. Agrees with it
        to 3e-5.

        Args:
            batch: The polygons, shape (n,).
            moments: What they are in the plane.

        Returns:
            Square metres, shape (n,), as of `measure`.
        """
        if self._density is None:
            return np.full(len(batch), np.nan)
        sides = batch.bounds[:, 2:] - batch.bounds[:, :2]
        extents = (sides / self._size).max(axis=1, initial=0)
        areas = moments.area * self._density.at(moments.centroid, extents)
        (large,) = np.nonzero(np.isnan(areas))
        if len(large):
            areas[large] = self.measure(batch.take(large).geometries())
        return areas


def _longest_edge(resolution: float) -> float:
    """Return how long an edge may be, metres, for pixels of `resolution` metres.

    An undivided edge of length L bends by about L^2 / 8R and misses L^3 / 12R of area;
    parts of length s miss L s^2 / 12R. Against the area L^2 of its polygon, edges may
    be undivided up to 12R times the tolerance; the smallest polygons, pixels, set s.
    """
    undivided = 12 * _EARTH_RADIUS * _TOLERANCE
    return max(undivided, math.sqrt(undivided * resolution))


def _unwrapped(
    polygons: npt.NDArray[np.object_], around: float
) -> npt.NDArray[np.object_]:
    """Move vertices by whole turns, so that no edge of a ring spans half a turn.

    At the rim of a map of the whole globe, corners of pixels lie beyond it and come out
    on the other side. Shell and holes may move apart: each keeps its area.

    Args:
        polygons: Their edges are short, shape (n,).
        around: Width of the globe, units of x.
    """
    kind, points, offsets = shapely.to_ragged_array(polygons)
    steps = np.diff(points[:, 0])
    steps[~np.isfinite(steps)] = 0  # They must not move the rings that follow.
    turns = np.rint(steps / around)
    # The step from ring to ring is none.
    turns[offsets[0][1:-1] - 1] = 0
    moved = np.concatenate([[0.0], np.cumsum(turns)])
    starts = np.repeat(moved[offsets[0][:-1]], np.diff(offsets[0]))
    x = points[:, 0] - (moved - starts) * around
    unwrapped: npt.NDArray[np.object_] = shapely.from_ragged_array(
        kind, np.column_stack([x, points[:, 1]]), offsets
    )
    return unwrapped


def _equal_area(grid: Grid) -> tuple[pyproj.Transformer, float]:
    """Choose an equal-area projection that suits the grid.

    Returns:
        The transformer to it, and the width of the globe in it, metres, if longitudes
        jump from one side to the other there; else infinity.
    """
    crs = pyproj.CRS.from_wkt(str(grid.crs)).to_2d()
    if crs.is_bound and crs.source_crs is not None:
        crs = crs.source_crs  # A datum shift would change the ellipsoid.
    ellipsoid = crs.ellipsoid
    assert ellipsoid is not None, "a grid with a ground resolution has an ellipsoid"
    axes = f"+a={ellipsoid.semi_major_metre!r} +b={ellipsoid.semi_minor_metre!r}"
    to_degrees = pyproj.Transformer.from_crs(
        crs, pyproj.CRS.from_proj4(f"+proj=longlat {axes} +type=crs"), always_xy=True
    )
    # ^ To a nameless datum, so that PROJ shifts nothing but the prime meridian.
    lon, lat = to_degrees.transform(
        *(grid.transform @ (grid.width / 2, grid.height / 2))
    )
    around = math.inf
    if crs.is_geographic:
        # Exact here: the edges of unrotated pixels stay straight. `over`: longitudes
        # beyond 180 degrees must not jump to the other side.
        projection = f"+proj=cea +lon_0={lon!r} +over"
    elif _reach(grid, to_degrees, pyproj.Geod(ellps="WGS84"), lon, lat) > _WIDE:
        projection = f"+proj=cea +lon_0={lon!r}"
        around = 2 * math.pi * ellipsoid.semi_major_metre
    else:
        # Also good at the poles and across the date line.
        projection = f"+proj=laea +lat_0={lat!r} +lon_0={lon!r}"
    target = pyproj.CRS.from_proj4(f"{projection} {axes} +units=m +type=crs")
    return pyproj.Transformer.from_crs(crs, target, always_xy=True), around


def _reach(
    grid: Grid,
    to_degrees: pyproj.Transformer,
    geod: pyproj.Geod,
    lon: float,
    lat: float,
) -> float:
    """Return the largest distance of a grid corner from the centre, metres."""
    corners = np.array([(c, r) for c in (0, grid.width) for r in (0, grid.height)])
    lons, lats = to_degrees.transform(*affine_points(grid.transform)(corners).T)
    if not np.isfinite([*lons, *lats]).all():
        return math.inf
    distances = geod.inv([lon] * 4, [lat] * 4, lons, lats)[2]
    return float(max(distances))
