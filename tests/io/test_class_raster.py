"""Class rasters are counted and cut as they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
from rasters import write_raster

from geoseg.errors import UsageError
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
        ("int64", [-(2**63), 5 - 2**63]),
        ("int64", [-(2**63), 2**63 - 1]),
        ("uint64", [0, 7]),
        ("uint64", [2**63 + 5, 2**63 + 9]),
        ("uint64", [1, 2**64 - 1]),
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


VALUES = np.array([[0, 1, 2, 3], [0, 1, 2, 3]], np.uint8)
FIRST_ROW = np.array([[1] * 4, [0] * 4], np.bool_)
LAST_COLUMNS = np.array([[0, 1, 1, 1]] * 2, np.bool_)


def write_hidden(
    path: Path, *, given: dict[str, Any], nodata_values: str | None = None
) -> Path:
    """Write `VALUES` with some ways of hiding pixels."""
    tags = {} if nodata_values is None else {"NODATA_VALUES": nodata_values}
    return write_raster(path, VALUES, tags=tags, **given)


@pytest.mark.parametrize(
    ("given", "nodata_values", "nodata", "expected"),
    [
        ({"nodata": 1}, None, None, {0: 2, 2: 2, 3: 2}),
        ({"alpha": FIRST_ROW}, None, None, {0: 1, 1: 1, 2: 1, 3: 1}),
        ({"alpha": FIRST_ROW, "nodata": 1}, None, None, {0: 1, 2: 1, 3: 1}),
        ({"mask": FIRST_ROW, "nodata": 1}, None, None, {0: 1, 2: 1, 3: 1}),
        ({"alpha": FIRST_ROW, "mask": LAST_COLUMNS}, None, None, {1: 1, 2: 1, 3: 1}),
        (
            {"alpha": FIRST_ROW, "mask": LAST_COLUMNS, "nodata": 2},
            None,
            None,
            {1: 1, 3: 1},
        ),
        ({}, "2", None, {0: 2, 1: 2, 3: 2}),
        ({"nodata": 1}, "2", None, {0: 2, 3: 2}),
        ({}, "2", 3, {0: 2, 1: 2, 2: 2}),
        # The second band is 255 in the first row: there both bands match.
        ({"alpha": FIRST_ROW}, "2 255", None, {0: 1, 1: 1, 3: 1}),
    ],
)
def test_all_that_hides_pixels_counts(
    tmp_path: Path,
    given: dict[str, Any],
    nodata_values: str | None,
    nodata: int | None,
    expected: dict[int, int],
) -> None:
    path = write_hidden(tmp_path / "c.tif", given=given, nodata_values=nodata_values)
    raster = open_class_raster(path, nodata=nodata)
    assert count_values(raster, lambda _: None) == expected


def test_a_list_of_nodata_values_hides_where_all_bands_match(tmp_path: Path) -> None:
    other = np.array([[9, 9, 9, 9], [8, 8, 8, 8]], np.uint8)
    path = write_raster(
        tmp_path / "c.tif", np.stack([VALUES, other]), tags={"NODATA_VALUES": "2 9"}
    )
    raster = open_class_raster(path, band=1)
    assert count_values(raster, lambda _: None) == {0: 2, 1: 2, 2: 1, 3: 2}


def test_alpha_of_another_dtype_is_read(tmp_path: Path) -> None:
    """As in a VRT that takes bands from several files."""
    classes = write_raster(tmp_path / "c.tif", VALUES.astype(np.uint16))
    alpha = write_raster(tmp_path / "a.tif", FIRST_ROW.astype(np.uint8))
    view = tmp_path / "c.vrt"
    view.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="2">'
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{classes}</SourceFilename></SimpleSource></VRTRasterBand>"
        '<VRTRasterBand dataType="Byte" band="2"><ColorInterp>Alpha</ColorInterp>'
        f"<SimpleSource><SourceFilename>{alpha}</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    raster = open_class_raster(view)
    assert count_values(raster, lambda _: None) == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_the_largest_64_bit_number_may_be_nodata(tmp_path: Path, dtype: str) -> None:
    largest = int(np.iinfo(dtype).max)
    pixels = np.array([[1, 2, largest], [largest, 2, largest - 1]], dtype)
    path = write_raster(tmp_path / "c.tif", pixels)
    # rasterio can write such a nodata value no more than read it.
    vrt = tmp_path / "c.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    nodata = f"<NoDataValue>{largest}</NoDataValue></VRTRasterBand>"
    vrt.write_text(vrt.read_text().replace("</VRTRasterBand>", nodata))
    counts = count_values(open_class_raster(vrt), lambda _: None)
    assert counts == {1: 1, 2: 2, largest - 1: 1}
    # One that is given takes its place.
    counts = count_values(open_class_raster(vrt, nodata=1), lambda _: None)
    assert counts == {2: 2, largest - 1: 1, largest: 2}


def test_nodata_that_float64_cannot_hold_is_asked_for(tmp_path: Path) -> None:
    pixels = np.array([[2**55, 2**55 + 1]], np.int64)
    path = write_raster(tmp_path / "c.tif", pixels, nodata=2**55)
    with pytest.raises(UsageError, match=r"too large to be read exactly.*--nodata"):
        open_class_raster(path)
    raster = open_class_raster(path, nodata=2**55)
    assert count_values(raster, lambda _: None) == {2**55 + 1: 1}


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


def test_a_message_lists_some_of_very_many_bands(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "c.tif", np.zeros((50, 2, 2), np.uint8))
    with pytest.raises(UsageError, match=r"20 \(undefined, uint8\), and 30 more$"):
        open_class_raster(path)
