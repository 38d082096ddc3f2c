"""Where pixels lie: windows in a raster, and the grid that ties it to the Earth."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine

from geoseg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels in a raster; may be empty, or reach past the raster."""

    row: int
    """First row, pixels from the top of the raster."""
    col: int
    """First column, pixels from the left of the raster."""
    height: int
    """Number of rows, >= 0."""
    width: int
    """Number of columns, >= 0."""

    def __post_init__(self) -> None:
        """Refuse a negative size: it would pass through slices unnoticed."""
        if self.height < 0 or self.width < 0:
            raise UsageError(
                f"a window of {self.height} x {self.width} pixels has a negative "
                "size; give its height and width as 0 or more"
            )

    @property
    def row_stop(self) -> int:
        """First row below the window, pixels."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window, pixels."""
        return self.col + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into an array (..., height, width)."""
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    def intersection(self, other: Window) -> Window | None:
        """Return the pixels that both windows hold, None if there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        if height <= 0 or width <= 0:
            return None
        return Window(row, col, height, width)

    def contains(self, other: Window) -> bool:
        """Tell whether `other` lies inside this window, edges included."""
        return (
            self.row <= other.row
            and self.col <= other.col
            and other.row_stop <= self.row_stop
            and other.col_stop <= self.col_stop
        )

    def relative_to(self, other: Window) -> Window:
        """Return the same rectangle in the pixel coordinates of `other`."""
        return Window(
            self.row - other.row, self.col - other.col, self.height, self.width
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape of a raster and where its pixels lie on the Earth."""

    height: int
    """Number of rows, pixels."""
    width: int
    """Number of columns, pixels."""
    transform: Affine
    """From (column, row), pixels from the outer corner, to (x, y), CRS units."""
    crs: str | None
    """Coordinate reference system as WKT2; None if the raster declares none."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.height, self.width

    @property
    def whole(self) -> Window:
        """The window that holds every pixel."""
        return Window(0, 0, self.height, self.width)

    def window(self, window: Window) -> Grid:
        """Return the grid of a window of this grid; it may reach past the edge."""
        transform = self.transform @ Affine.translation(window.col, window.row)
        return Grid(window.height, window.width, transform, self.crs)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of the box around all corners, CRS units."""
        corners = [
            self.transform @ (col, row)
            for col in (0, self.width)
            for row in (0, self.height)
        ]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Lengths of a pixel's (vertical, horizontal) edges, CRS units, > 0."""
        return (
            math.hypot(self.transform.b, self.transform.e),
            math.hypot(self.transform.a, self.transform.d),
        )

    def ground_resolution(self) -> float | None:
        """Measure a pixel at the centre of the grid on the ellipsoid.

        Map units do not tell it: degrees shrink with latitude, EPSG:3857 metres are
        half a metre at 60 degrees, and feet come in two kinds.

        Returns:
            The geometric mean of a pixel's two edges, metres on the ground. None
            without a CRS, for a CRS that is not tied to the Earth, and where the
            centre lies outside the area that the CRS can express.
        """
        if self.crs is None:
            return None
        edges = _ground_edges(self.crs, self._centre_pixel())
        if edges is None:
            return None
        length = math.sqrt(edges[0] * edges[1])
        return length if math.isfinite(length) and length > 0 else None

    def _centre_pixel(self) -> list[tuple[float, float]]:
        """Return the middles of the top, bottom, left, right edge of a centre pixel."""
        col, row = self.width / 2, self.height / 2
        offsets = ((0.0, -0.5), (0.0, 0.5), (-0.5, 0.0), (0.5, 0.0))
        return [self.transform @ (col + dx, row + dy) for dx, dy in offsets]

    def resampled(self, factor: tuple[float, float]) -> Grid:
        """Return the grid with the same corner and pixel edges times `factor`.

        The factor is kept exactly, so the far edges may move by half a new pixel.

        Args:
            factor: New over old pixel edge, (row, column), > 0; above 1 is coarser.
        """
        row_factor, col_factor = factor
        if not (row_factor > 0 and col_factor > 0):
            raise UsageError(
                f"a grid cannot be resampled by {factor}; give two factors above 0"
            )
        return Grid(
            height=max(1, round(self.height / row_factor)),
            width=max(1, round(self.width / col_factor)),
            transform=self.transform @ Affine.scale(col_factor, row_factor),
            crs=self.crs,
        )


def _ground_edges(
    crs_wkt: str, points: list[tuple[float, float]]
) -> tuple[float, float] | None:
    """Measure points 0 to 1 and 2 to 3, CRS units, in metres on the ellipsoid."""
    # Imported here: pyproj opens its database at import, and most users of windows
    # and grids never ask for a length on the ground.
    from pyproj import CRS, Transformer

    crs = CRS.from_wkt(crs_wkt)
    geodetic, geod = crs.geodetic_crs, crs.get_geod()
    if geodetic is None or geod is None:
        return None
    # To the CRS's own base, so that no datum shift and no grid file is involved.
    transformer = Transformer.from_crs(crs, geodetic, always_xy=True)
    xs, ys = zip(*points, strict=True)
    lons, lats = transformer.transform(xs, ys)
    # ^ In the unit of the base CRS, which is not always degrees (NTF Paris: grads).
    unit = math.degrees(geodetic.axis_info[0].unit_conversion_factor)
    (top, bottom, left, right) = (
        (lon * unit, lat * unit) for lon, lat in zip(lons, lats, strict=True)
    )
    if not all(math.isfinite(value) for value in (*top, *bottom, *left, *right)):
        return None
    return float(geod.inv(*top, *bottom)[2]), float(geod.inv(*left, *right)[2])
