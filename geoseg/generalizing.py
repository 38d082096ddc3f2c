"""What may be done to polygons between tracing and writing, in the order that works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geoseg.errors import SceneError, UsageError
from geoseg.grid import Grid
from geoseg.io.area import GroundArea
from geoseg.vectorize.absorbing import absorb_small
from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.moments import polygon_moments
from geoseg.vectorize.simplifying import simplify


@dataclass(frozen=True, slots=True)
class Generalization:
    """How polygons are made fewer and their borders simpler; zeros change nothing."""

    min_area: float = 0.0
    """Square metres on the ground that polygons must have."""
    simplify: float = 0.0
    """Tolerance of borders, CRS units."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            UsageError: A number is negative, infinite or none.
        """
        for name, value in (("min-area", self.min_area), ("simplify", self.simplify)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{name} is {value}; use 0, or a number above it")

    def check(self, grid: Grid) -> None:
        """Refuse a grid on which areas are unknown, if they are needed.

        Raises:
            SceneError: The grid is not tied to the ground.
        """
        if self.min_area and not GroundArea(grid).known:
            raise SceneError(
                "min-area is in square metres, and areas are unknown without a CRS; "
                "set one with gdal_edit -a_srs, or leave min-area out"
            )


def generalize(
    batches: Iterable[PolygonBatch], wanted: Generalization, grid: Grid, spill: Path
) -> Iterator[PolygonBatch]:
    """Absorb small polygons, then simplify borders; each holds the scene's polygons.

    Args:
        batches: All polygons of a scene, as they were traced.
        wanted: What to do. Nothing passes batches on as they come.
        grid: Grid that they were traced on.
        spill: Folder for a temporary file.

    Raises:
        SceneError: Areas are needed and unknown.
    """
    wanted.check(grid)
    ground = GroundArea(grid)
    absorbed = absorb_small(
        batches,
        wanted.min_area,
        area=lambda batch: ground.measure_batch(batch, polygon_moments(batch.geometry)),
        transform=grid.transform,
        spill=spill,
    )
    return simplify(absorbed, wanted.simplify)
