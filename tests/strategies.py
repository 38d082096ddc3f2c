"""Hypothesis strategies for windows, grids and tilings of small, awkward sizes."""

from __future__ import annotations

from affine import Affine
from hypothesis import strategies as st

from geoseg.grid import Grid, Window
from geoseg.tiling import TileGrid


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> Window:
    """A window of at least one pixel inside height x width pixels."""
    row = draw(st.integers(0, height - 1))
    col = draw(st.integers(0, width - 1))
    return Window(
        row,
        col,
        draw(st.integers(1, height - row)),
        draw(st.integers(1, width - col)),
    )


@st.composite
def transforms(draw: st.DrawFn) -> Affine:
    """A north-up, south-up, rotated or mirrored transform with unequal pixel edges."""
    return (
        Affine.translation(
            draw(st.integers(-500_000, 500_000)), draw(st.integers(-500_000, 5_000_000))
        )
        @ Affine.rotation(draw(st.sampled_from([0.0, 90.0, 180.0, 33.0, -12.5])))
        @ Affine.scale(
            draw(st.sampled_from([0.25, 1.0, 30.0, -2.0])),
            draw(st.sampled_from([-0.25, -1.0, 30.0])),
        )
    )


@st.composite
def grids(draw: st.DrawFn, max_side: int = 200, crs: str | None = None) -> Grid:
    """A grid of 1 x 1 to max_side x max_side pixels."""
    sides = st.integers(1, max_side)
    return Grid(draw(sides), draw(sides), draw(transforms()), crs)


@st.composite
def tile_grids(
    draw: st.DrawFn, max_side: int = 150, max_tile: int = 24, *, factor: int = 1
) -> TileGrid:
    """A tiling whose tile size is a multiple of `factor`, with or without a region."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    tile_size = factor * draw(st.integers(1, max_tile // factor))
    # Strides below a quarter of the tile only make tests slow.
    stride = draw(st.integers(max(1, tile_size // 4), tile_size))
    region = draw(st.none() | windows(height, width))
    return TileGrid(height, width, tile_size, stride, region)
