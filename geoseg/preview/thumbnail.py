"""A class mask as a picture of a few kilobytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from geoseg.io.overview import read_mask, read_mask_grid
from geoseg.types import NODATA, ClassInfo


def thumbnail(path: Path, classes: Sequence[ClassInfo], side: int) -> str:
    """Return a small picture of a class mask, as a `data:` URL of a PNG.

    Args:
        path: The mask; its overviews are read.
        classes: Ids and colours.
        side: Longer side of the picture, pixels.

    Raises:
        SceneError: It cannot be read.
    """
    grid, _ = read_mask_grid(path)
    factor = min(1.0, side / max(grid.shape))
    shape = (max(1, round(grid.height * factor)), max(1, round(grid.width * factor)))
    picture = Image.fromarray(read_mask(path, grid.whole, shape)).convert("P")
    palette = bytearray(3 * 256)
    for info in classes:
        palette[3 * info.id : 3 * info.id + 3] = bytes(info.color)
    picture.putpalette(bytes(palette))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True, transparency=NODATA)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
