"""What discovery finds before scenes have ids."""

from __future__ import annotations

from dataclasses import dataclass

from geoseg.types import StacSource


@dataclass(frozen=True, slots=True)
class Found:
    """A raster that somebody named."""

    name: str
    """What GDAL opens: an absolute path, or a /vsi name, of URLs too."""
    given_id: str | None = None
    """Id that its catalogue gives it, made safe; None: by its place."""
    item: StacSource | None = None
    """The STAC item that names it."""
