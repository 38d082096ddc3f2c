"""Rasters, names and places for results that are legal, and rare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from class_rasters import assert_exact, class_mask, read_polygons, write_classes
from commands import geoseg
from rasters import NORTH_UP, UTM, write_raster

from geoseg.pipelines.vectorize import VectorizeConfig, run


def refusal(*arguments: object, code: int) -> str:
    """Run the command, which must be refused in one line, and return it."""
    result = geoseg("vectorize", *arguments)
    assert result.exit_code == code, result.stderr
    assert result.stderr.count("\n") == 1
    assert "unexpected" not in result.stderr
    return result.stderr


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


def test_complex_integers_are_no_classes(tmp_path: Path) -> None:
    raster = tmp_path / "c.tif"
    profile = {"width": 3, "height": 3, "count": 1, "crs": UTM, "transform": NORTH_UP}
    with rasterio.open(raster, "w", "GTiff", dtype="complex_int16", **profile):
        pass
    message = refusal(raster, code=1)
    assert "is complex_int16 in band 1, and class ids are whole numbers" in message


def test_bands_described_in_latin_1_can_be_chosen(tmp_path: Path) -> None:
    mask = class_mask(40)
    raster = write_classes(tmp_path / "c.tif", np.stack([mask, mask]))
    with rasterio.open(raster, "r+") as dataset:
        dataset.set_band_description(1, "W?lder")
    raster.write_bytes(raster.read_bytes().replace(b"W?lder", b"W\xe4lder"))
    assert "choose it with --band, one of: 1 (gray, uint8), 2 (" in refusal(
        raster, code=2
    )
    assert geoseg("vectorize", raster, "--band", 1).exit_code == 0
    assert_exact(raster.with_suffix(".gpkg"), mask)


@pytest.mark.parametrize("what", ["raster", "confidence", "class table"])
def test_names_of_inputs_that_are_not_utf_8(tmp_path: Path, what: str) -> None:
    raster = write_classes(tmp_path / "c.tif", class_mask(40))
    odd = tmp_path / os.fsdecode(b"caf\xe9.tif")
    odd.write_bytes(raster.read_bytes())
    given: dict[str, list[object]] = {
        "raster": [odd],
        "confidence": [raster, "--confidence", odd],
        "class table": [raster, "--classes", odd],
    }
    message = refusal(*given[what], code=2)
    assert f"the path of the {what} " in message
    assert "caf\ufffd.tif' holds bytes that are not UTF-8" in message


def test_a_full_stdout_does_not_fail_a_run(tmp_path: Path) -> None:
    mask = class_mask(40)
    raster = write_raster(tmp_path / "c.tif", mask, nodata=255)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "geoseg", "vectorize", raster],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == (
        "Note: all files are written, but stdout takes no lines: No space left on "
        "device\n"
    )
    assert done.returncode == 0
    assert_exact(raster.with_suffix(".gpkg"), mask)
