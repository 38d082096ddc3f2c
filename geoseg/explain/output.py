"""What one explanation needs to be written: model, tile, and where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from geoseg.explain.sheet import Picture, facts_of
from geoseg.explain.subject import Subject
from geoseg.io.map_layers import FeatureLayer, raster_layer, write_features
from geoseg.io.map_style import ramp_qml


@dataclass
class Output:
    """Writes what is shown of one tile, and remembers what was written."""

    folder: Path
    """Where files go."""
    subject: Subject
    """The tile."""
    picture: Picture
    """What it shows."""
    model: nn.Module
    """The model, in eval mode."""
    name: str
    """The model's name."""
    tags: dict[str, str]
    """Provenance of layers."""
    written: list[Path] = field(default_factory=list)
    """Files so far."""

    @property
    def facts(self) -> str:
        """Second line of figures."""
        return facts_of(self.subject, self.name)

    def path(self, name: str) -> Path:
        """Return where a file goes, and note it as written."""
        path = self.folder / name
        self.written.append(path)
        return path

    def maps(
        self,
        name: str,
        maps: Sequence[tuple[str, Tensor]],
        limits: tuple[float, float] | None = None,
        band: int = 1,
    ) -> None:
        """Write maps of the whole tile as the bands of one raster.

        Args:
            name: Name of the file, .tif.
            maps: Description and values, shape (rows, columns), of each.
            limits: Values of the first and the last colour; None: of the band shown.
            band: Band that is shown first, 1-based.
        """
        values = np.stack([m.cpu().numpy() for _, m in maps]).astype(np.float32)
        shape = (values.shape[1], values.shape[2])
        grid = self.subject.cells(shape)
        values[:, ~self.subject.inside(shape)] = np.nan
        low, high = limits or _limits(values[band - 1])
        with raster_layer(
            self.path(name),
            grid,
            bands=[description for description, _ in maps],
            dtype="float32",
            nodata=float("nan"),
            qml=ramp_qml(low, high, band=band),
            tags=self.tags,
        ) as layer:
            layer.write(values, grid.whole)

    def features(self, name: str, layers: Sequence[FeatureLayer]) -> None:
        """Write layers as a GeoPackage."""
        write_features(self.path(name), layers, self.subject.scene.grid)


def _limits(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return limits that show a map's range, never of no width."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, high if high > low else low + 1
