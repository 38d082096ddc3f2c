"""geoseg: semantic segmentation of GeoTIFF archives."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["__version__", "segment"]

if TYPE_CHECKING:
    from geoseg.pipelines.api import segment
else:

    def __getattr__(name: str) -> object:
        """Load `segment` on first use: `import geoseg` loads neither torch nor GDAL."""
        if name == "segment":
            from geoseg.pipelines.api import segment

            return segment
        raise AttributeError(f"module 'geoseg' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted([*globals(), "segment"])
