"""Class rasters are counted and cut as they are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasters import write_raster

from geoseg.io.class_raster import count_values, open_class_raster, strips


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("uint8", [0, 3, 255]),
        ("int8", [-128, 0, 127]),
        ("uint16", [7, 65535]),
        ("int16", [-32768, 5, 32767]),
        ("int32", [-(2**31), 0, 2**31 - 1]),
        ("int32", [100_000, 100_003]),
        ("uint32", [0, 2**32 - 1]),
        ("int64", [-(2**40), 2**40]),
    ],
)
def test_values_are_counted(tmp_path: Path, dtype: str, values: list[int]) -> None:
    pixels = np.random.default_rng(0).choice(np.array(values, dtype), (30, 40))
    raster = open_class_raster(write_raster(tmp_path / "c.tif", pixels))
    rows: list[int] = []
    counts = count_values(raster, rows.append)
    assert counts == {v: int((pixels == v).sum()) for v in values}
    assert list(counts) == values
    assert sum(rows) == 30


def test_hidden_pixels_are_not_counted(tmp_path: Path) -> None:
    pixels = np.array([[1, 2, 3], [2, 2, 9]], np.uint8)
    shown = np.array([[1, 0, 1], [1, 1, 1]], np.bool_)
    path = write_raster(tmp_path / "c.tif", pixels, mask=shown)
    raster = open_class_raster(path, nodata=9)
    assert count_values(raster, lambda _: None) == {1: 1, 2: 2, 3: 1}


def test_strips_end_with_the_files_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((100, 64), np.uint8)
    path = write_raster(
        tmp_path / "c.tif", pixels, tiled=True, blockxsize=16, blockysize=16
    )
    for most, rows in ((64 * 16, 16), (64 * 40, 32), (64, 16), (64 * 1000, 992)):
        monkeypatch.setattr("geoseg.io.class_raster._STRIP_PIXELS", most)
        raster = open_class_raster(path)
        assert raster.rows == rows
        windows = list(strips(raster))
        assert sum(window.height for window in windows) == 100
        assert windows[-1].row_stop == 100
    # A row of blocks that is too large is read in pieces.
    monkeypatch.setattr("geoseg.io.class_raster._STRIP_PIXELS", 64 * 3)
    monkeypatch.setattr("geoseg.io.class_raster._MOST_PIXELS", 64 * 15)
    assert open_class_raster(path).rows == 3
