"""A class mask and the confidence raster beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.io import DatasetReader
from rasters import GRIDS, write_raster

from geoseg.data.labelled import LabelledScene
from geoseg.errors import SceneError
from geoseg.evaluation.matching import pair_classes
from geoseg.evaluation.scene import PairReader, SceneMasks
from geoseg.grid import Grid
from geoseg.io.gdal import open_dataset
from geoseg.io.overview import read_mask_grid
from geoseg.types import ClassInfo

SHAPE = (60, 80)


@dataclass(frozen=True)
class Placed(LabelledScene):
    """A labelled scene that has a place on the Earth."""

    place: Grid

    @property
    def grid(self) -> Grid:
        return self.place


def reader(
    folder: Path, name: str, moved: Affine, crs: str | None = None
) -> PairReader:
    """Return what reads a mask of a grid and a confidence raster that was moved."""
    own, transform = GRIDS[name]
    mask, confidence = folder / "classes.tif", folder / "confidence.tif"
    pixels = np.ones(SHAPE, np.uint8)
    write_raster(mask, pixels, crs=own, transform=transform)
    write_raster(confidence, pixels, crs=crs or own, transform=transform @ moved)
    scene = Placed(name, np.stack([pixels] * 3), pixels, read_mask_grid(mask)[0])
    infos = [ClassInfo(1, "water", (0, 0, 255))]
    masks = SceneMasks(name, scene, "image.tif", mask, confidence)
    return PairReader(masks, pair_classes(infos, infos))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(
    "moved",
    [
        Affine.translation(3, 3),
        Affine.translation(0.05, 0),
        # Only the far corner tells.
        Affine.scale(1 + 1e-3),
    ],
)
def test_a_confidence_lies_beside_the_mask_to_parts_of_a_pixel(
    tmp_path: Path, name: str, moved: Affine
) -> None:
    with pytest.raises(SceneError, match="is not in percent on the grid of classes"):
        reader(tmp_path, name, moved).__enter__()
    rounded = Affine.translation(1e-4, -1e-4) @ Affine.scale(1 + 1e-6)
    with reader(tmp_path, name, rounded):
        pass


def test_a_confidence_is_of_the_masks_crs(tmp_path: Path) -> None:
    other = reader(tmp_path, "north-up", Affine.identity(), crs="EPSG:32632")
    with pytest.raises(SceneError, match="is not in percent on the grid of classes"):
        other.__enter__()


def test_rasters_are_closed_whatever_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[DatasetReader] = []

    def remembered(path: str) -> DatasetReader:
        opened.append(open_dataset(path))
        return opened[-1]

    wrong = reader(tmp_path, "north-up", Affine.translation(3, 3))
    monkeypatch.setattr("geoseg.evaluation.scene.open_dataset", remembered)
    with pytest.raises(SceneError):
        wrong.__enter__()
    assert [dataset.closed for dataset in opened] == [True, True]
    opened.clear()
    with reader(tmp_path, "north-up", Affine.identity()):
        assert [dataset.closed for dataset in opened] == [False, False]
    assert [dataset.closed for dataset in opened] == [True, True]
