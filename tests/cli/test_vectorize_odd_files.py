"""Rasters, names and places for results that are legal, and rare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from class_rasters import read_polygons
from commands import geoseg
from rasters import write_raster

from geoseg.pipelines.vectorize import VectorizeConfig, run


def test_unknown_areas_are_told_and_never_counted_as_nothing(tmp_path: Path) -> None:
    # Centres of the first row lie on the pole, its upper half beyond.
    mask = np.zeros((19, 36), np.uint8)
    mask[9:] = 1
    mask[3:5, 4:6] = 1
    transform = Affine(10, 0, -180, 0, -10, 95)
    raster = write_raster(
        tmp_path / "c.tif", mask[:12], crs="EPSG:4326", transform=transform, nodata=255
    )
    result = geoseg("vectorize", raster)
    assert result.exit_code == 0
    notes = [line for line in result.stderr.splitlines() if "Note: " in line]
    assert len(notes) == 1
    assert "c.gpkg has 1 of 3 polygons whose area is unknown (NULL)" in notes[0]
    assert "0.00" not in result.stdout
    table = read_polygons(raster.with_suffix(".gpkg"))
    assert list(table.area_m2.isna()) == list(table.class_id == 0)
    config = VectorizeConfig(str(raster), overwrite=True)
    unknown, known = run(config).classes
    assert unknown.area_m2 is None
    assert known.area_m2 == pytest.approx(table.area_m2.sum())
