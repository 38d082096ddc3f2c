"""What is explained: a place in a scene, and the tile that decides its class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from geoseg.errors import ExplainError
from geoseg.grid import Grid, Window
from geoseg.inference import Predictor, TileInput
from geoseg.io.aoi import Box
from geoseg.io.raster import Pixels, Scene, SceneReader
from geoseg.tiling import TileGrid


@dataclass(frozen=True)
class Subject:
    """One tile of a scene, as the model gets it, and a place in it."""

    scene: Scene
    """Where it is read from."""
    window: Window
    """Pixels of the tile within the scene, in the scene's grid."""
    tile_size: int
    """Side of the tile, pixels; more than the window's in a scene that is smaller."""
    place: tuple[int, int]
    """Row and column of the place in the tile, pixels."""
    pixels: Pixels
    """What the window holds."""
    images: Tensor
    """The model's input, shape (1, C, tile_size, tile_size), float32, normalised."""

    @property
    def grid(self) -> Grid:
        """Grid of the whole tile, which may reach past a small scene."""
        size = self.tile_size
        return self.scene.grid.window(
            Window(self.window.row, self.window.col, size, size)
        )

    @property
    def share(self) -> tuple[float, float]:
        """Where the place is in the tile, row and column in 0..1."""
        row, col = self.place
        return (row + 0.5) / self.tile_size, (col + 0.5) / self.tile_size

    def cells(self, shape: tuple[int, int]) -> Grid:
        """Return the grid of cells that divide the tile evenly.

        Args:
            shape: Rows and columns of cells.
        """
        factor = (self.tile_size / shape[0], self.tile_size / shape[1])
        return self.grid.resampled(factor)

    def inside(self, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Tell which cells have their centre in the scene, of `shape` cells."""
        rows = (np.arange(shape[0]) + 0.5) * self.tile_size / shape[0]
        cols = (np.arange(shape[1]) + 0.5) * self.tile_size / shape[1]
        inside = (rows < self.window.height)[:, None] & (cols < self.window.width)
        return np.asarray(inside)


def read_subject(
    scene: Scene, place: tuple[int, int], tiles: TileGrid, predictor: Predictor
) -> Subject:
    """Read the tile that has most weight at a place, as `geoseg segment` does.

    Args:
        scene: The scene.
        place: Row and column, pixels of the scene's grid.
        tiles: The tiles that the scene is segmented in.
        predictor: Normalises the tile.

    Raises:
        ExplainError: The place holds no data.
        SceneError: The scene cannot be read there.
    """
    size = tiles.tile_size
    row = _nearest(tiles.rows, size, place[0])
    col = _nearest(tiles.cols, size, place[1])
    window = Window(row, col, size, size).intersection(scene.grid.whole)
    assert window is not None, "tiles lie in the scene"
    with SceneReader(scene) as reader:
        pixels = reader.read(window)
    own = (place[0] - row, place[1] - col)
    if not pixels.valid[own]:
        raise ExplainError(_no_data(scene, place, window, pixels.valid))
    images = predictor.images([TileInput(pixels.values, pixels.valid)], scene.scale)
    return Subject(scene, window, size, own, pixels, images)


def find_place(grid: Grid, at: tuple[float, float], name: str) -> tuple[int, int]:
    """Return the row and column of a place.

    Args:
        grid: Grid of the scene.
        at: x and y in the scene's CRS; pixels, if it has none.
        name: What to call the scene.

    Raises:
        ExplainError: It lies outside.
    """
    col, row = (int(np.floor(value)) for value in ~grid.transform @ at)
    if 0 <= row < grid.height and 0 <= col < grid.width:
        return row, col
    left, bottom, right, top = grid.bounds
    x, y = at
    raise ExplainError(
        f"the place {x:.10g},{y:.10g} lies outside {name}, which reaches from "
        f"{left:.10g} to {right:.10g} in x and from {bottom:.10g} to {top:.10g} in y"
        + ("" if grid.crs is None else ", in its own CRS")
    )


def find_window(grid: Grid, box: Box, name: str) -> Window:
    """Return the pixels inside a box of the scene's CRS.

    Args:
        grid: Grid of the scene.
        box: Left, bottom, right, top.
        name: What to call the scene.

    Raises:
        ExplainError: The box is empty or lies outside.
    """
    left, bottom, right, top = box
    corners = [~grid.transform @ (x, y) for x in (left, right) for y in (bottom, top)]
    cols, rows = zip(*corners, strict=True)
    row, col = round(min(rows)), round(min(cols))
    height, width = round(max(rows)) - row, round(max(cols)) - col
    found = Window(row, col, height, width).intersection(grid.whole)
    if left >= right or bottom >= top or found is None:
        x0, y0, x1, y1 = grid.bounds
        raise ExplainError(
            f"the window {left:.10g},{bottom:.10g},{right:.10g},{top:.10g} holds no "
            f"pixel of {name}, which reaches from {x0:.10g} to {x1:.10g} in x and from "
            f"{y0:.10g} to {y1:.10g} in y; give left,bottom,right,top in its CRS"
        )
    return found


def _nearest(origins: tuple[int, ...], size: int, pixel: int) -> int:
    """Return the tile of those along an axis whose centre is nearest to a pixel."""
    holding = [o for o in origins if o <= pixel < o + size]
    return min(holding, key=lambda origin: abs(origin + size / 2 - pixel - 0.5))


def _no_data(
    scene: Scene,
    place: tuple[int, int],
    window: Window,
    valid: npt.NDArray[np.bool_],
) -> str:
    """Say that a place holds no data, and where the nearest one is that does."""
    x, y = scene.grid.transform @ (place[1] + 0.5, place[0] + 0.5)
    rows, cols = np.nonzero(valid)
    hint = "its tile has none at all; choose another place"
    if len(rows):
        rows, cols = rows + window.row, cols + window.col
        near = np.argmin((rows - place[0]) ** 2 + (cols - place[1]) ** 2)
        to_x, to_y = scene.grid.transform @ (cols[near] + 0.5, rows[near] + 0.5)
        hint = f"the nearest place with data is {to_x:.10g},{to_y:.10g}"
    return f"the place {x:.10g},{y:.10g} holds no data; {hint}"
