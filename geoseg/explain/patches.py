"""The patches of a tile: what a vision transformer takes for one token."""

from __future__ import annotations

from dataclasses import dataclass

from geoseg.grid import Window
from geoseg.tiling import check_tile_size


@dataclass(frozen=True, slots=True)
class Patch:
    """One square of pixels."""

    number: int
    """Its place in the order of tokens, from 0, rows first; tokens that are no patches
    not counted."""
    row: int
    """Row of patches."""
    col: int
    """Column of patches."""
    window: Window
    """Its pixels in the tile."""


def patch_grid(tile_size: int, patch_size: int) -> list[Patch]:
    """Return the patches of a tile, numbered.

    Raises:
        TilingError: The tile does not hold a whole number of patches.
    """
    check_tile_size(tile_size, patch_size)
    side = tile_size // patch_size
    return [
        Patch(
            row * side + col,
            row,
            col,
            Window(row * patch_size, col * patch_size, patch_size, patch_size),
        )
        for row in range(side)
        for col in range(side)
    ]
