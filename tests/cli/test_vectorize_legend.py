"""What a raster's own names do to `vectorize`: they help, and never cost the run."""

from __future__ import annotations

import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from class_rasters import assert_exact, class_mask, read_polygons, write_classes
from commands import geoseg

from geoseg.types import NODATA


def vectorized(raster: Path, *options: object) -> Path:
    """Run the command, which must succeed, and return the file."""
    result = geoseg("vectorize", raster, *options, "--overwrite")
    assert result.exit_code == 0, result.stderr
    return raster.with_suffix(".gpkg")


def name_categories(raster: Path, names: Mapping[int, bytes]) -> Path:
    """Give values category names, which GDAL reads from beside the raster."""
    listed = [names.get(value, b"") for value in range(max(names) + 1)]
    write_pam(
        raster,
        b"<CategoryNames>%s</CategoryNames>"
        % b"".join(b"<Category>%s</Category>" % name for name in listed),
    )
    return raster


def name_attributes(raster: Path, names: Mapping[int, str]) -> Path:
    """Give values names in an attribute table."""
    rows = [(str(value), name) for value, name in names.items()]
    return write_attributes(raster, [("Value", 0, 5), ("Class", 2, 2)], rows)


def write_attributes(
    raster: Path,
    columns: Sequence[tuple[str, int, int]],
    cells: Sequence[Sequence[str]],
) -> Path:
    """Write an attribute table; columns are title, type and usage, numbers of GDAL."""
    rows = "".join(
        f'<Row index="{i}">{"".join(f"<F>{escape(cell)}</F>" for cell in row)}</Row>'
        for i, row in enumerate(cells)
    )
    fields = "".join(
        f'<FieldDefn index="{i}"><Name>{title}</Name><Type>{kind}</Type>'
        f"<Usage>{usage}</Usage></FieldDefn>"
        for i, (title, kind, usage) in enumerate(columns)
    )
    table = f"<GDALRasterAttributeTable>{fields}{rows}</GDALRasterAttributeTable>"
    write_pam(raster, table.encode())
    return raster


def write_pam(raster: Path, band: bytes) -> None:
    raster.with_name(f"{raster.name}.aux.xml").write_bytes(
        b'<PAMDataset><PAMRasterBand band="1">%s</PAMRasterBand></PAMDataset>' % band
    )


def styles_of(path: Path) -> tuple[dict[int, str], list[str]]:
    """Return the names by id of the QGIS style, and those of the SLD."""
    with closing(sqlite3.connect(path)) as connection:
        [(qml, sld)] = connection.execute("SELECT styleQML, styleSLD FROM layer_styles")
    categories = ET.fromstring(qml).iter("category")
    rules = ET.fromstring(sld).iter("{http://www.opengis.net/se}Rule")
    return (
        {int(entry.get("value", "")): entry.get("label", "") for entry in categories},
        [rule.findtext("{http://www.opengis.net/se}Name", "") for rule in rules],
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Wälder".encode("latin-1"), "W\ufffdlder"),
        ("a\uffffb".encode(), "a\ufffdb"),
        (b"a&#55357;b", "a\ufffd\ufffd\ufffdb"),  # three bytes, none of them UTF-8
        (b"a\x01b&#2;c", "abc"),  # GDAL leaves these out by itself
        ("\U0001f333".encode(), "\U0001f333"),
    ],
)
def test_names_that_no_style_can_hold_are_made_writable(
    tmp_path: Path, name: bytes, shown: str
) -> None:
    mask = class_mask(40)
    raster = name_categories(write_classes(tmp_path / "c.tif", mask), {2: name})
    out = vectorized(raster)
    assert_exact(out, mask)
    categories, rules = styles_of(out)
    assert categories[2] == shown
    assert shown in rules
    table = read_polygons(out)
    assert set(table.class_name[table.class_id == 2]) == {shown}


@pytest.mark.parametrize("usage", [0, 1])
def test_a_column_declared_for_names_goes_before_one_of_that_title(
    tmp_path: Path, usage: int
) -> None:
    raster = write_classes(tmp_path / "c.tif", class_mask(40))
    columns = [("Count", 0, 1), ("Class", 0, usage), ("Code", 0, 5), ("Nm", 2, 2)]
    cells = [("9", str(11 * v), str(v), name) for v, name in NAMES.items()]
    write_attributes(raster, columns, cells)
    table = read_polygons(vectorized(raster))
    assert dict(zip(table.class_id, table.class_name, strict=True)) == NAMES
    # Without one, the title is as good as it gets.
    columns[3] = ("Nm", 2, 0)
    write_attributes(raster, columns, cells)
    table = read_polygons(vectorized(raster))
    assert set(table.class_name) == {"0", "11", "22", "33"}


def describe(raster: Path, by: str, names: Mapping[int, str]) -> Path:
    if by == "categories":
        return name_categories(raster, {v: n.encode() for v, n in names.items()})
    return name_attributes(raster, names)


BY = pytest.mark.parametrize("by", ["categories", "attributes"])
NAMES = {0: "water", 1: "land", 2: "road", 3: "building"}


@BY
def test_a_name_of_nodata_makes_no_class(tmp_path: Path, by: str) -> None:
    mask = class_mask(40)
    raster = write_classes(tmp_path / "c.tif", mask)
    describe(raster, by, {**NAMES, NODATA: "no data"})
    out = vectorized(raster)
    assert_exact(out, mask)
    assert styles_of(out) == (NAMES, list(NAMES.values()))
    # Nor does the name of one that the user tells.
    shown = {value: name for value, name in NAMES.items() if value != 2}
    out = vectorized(describe(raster, by, NAMES), "--nodata", 2)
    assert {*styles_of(out)[0]} == {*shown, NODATA}
    assert 2 not in set(read_polygons(out).class_id)


@BY
def test_names_for_all_numbers_of_a_byte(tmp_path: Path, by: str) -> None:
    mask = class_mask(40)
    raster = write_classes(tmp_path / "c.tif", mask)
    describe(raster, by, {value: f"name {value}" for value in range(256)})
    out = vectorized(raster)
    assert_exact(out, mask)
    assert styles_of(out)[0] == {value: f"name {value}" for value in range(4)}


def test_names_of_values_that_no_class_may_have(tmp_path: Path) -> None:
    mask = class_mask(40)
    values = mask.astype(np.int16)
    raster = write_classes(tmp_path / "c.tif", values)
    name_attributes(raster, {**NAMES, -9999: "no data", 311: "forest", 70_000: "?"})
    out = vectorized(raster)
    assert_exact(out, mask)
    assert styles_of(out)[0] == NAMES


@BY
def test_names_fill_up_with_values_that_have_none(tmp_path: Path, by: str) -> None:
    mask = class_mask(40)
    mask[mask == 3] = 254
    raster = write_classes(tmp_path / "c.tif", mask)
    describe(raster, by, {value: f"name {value}" for value in range(254)})
    out = vectorized(raster)  # 255 classes, were the names of those absent kept
    assert_exact(out, mask)
    names = {0: "name 0", 1: "name 1", 2: "name 2", 254: "class 254"}
    assert styles_of(out)[0] == names


@BY
@pytest.mark.parametrize("word", ["3", "class 3", str(NODATA), "glacier", "LAND"])
def test_any_value_may_be_excluded(tmp_path: Path, by: str, word: str) -> None:
    mask = class_mask(40)
    raster = write_classes(tmp_path / "c.tif", mask)
    describe(raster, by, {0: "water", 1: "land", 9: "glacier"})
    out = vectorized(raster, "--exclude", word)
    excluded = {"3": 3, "class 3": 3, "LAND": 1}.get(word, NODATA)
    mask[mask == excluded] = NODATA
    assert_exact(out, mask)
    assert excluded not in styles_of(out)[0]


def test_a_value_that_no_class_may_have_can_be_excluded(tmp_path: Path) -> None:
    mask = class_mask(40)
    values = mask.astype(np.int32)
    values[mask == 3] = -70_000
    raster = write_classes(tmp_path / "c.tif", values)
    mask[mask == 3] = NODATA
    assert_exact(vectorized(raster, "--exclude", "-70000"), mask)


@BY
@pytest.mark.parametrize(("word", "excluded"), [("2", 2), ("3", 3), ("4", 1)])
def test_an_id_goes_before_a_name(
    tmp_path: Path, by: str, word: str, excluded: int
) -> None:
    mask = class_mask(40)
    raster = write_classes(tmp_path / "c.tif", mask)
    describe(raster, by, {0: "2", 1: "4", 2: "3"})  # 3 has no name
    out = vectorized(raster, "--exclude", word)
    mask[mask == excluded] = NODATA
    assert_exact(out, mask)


def test_a_class_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    raster = write_classes(tmp_path / "c.tif", class_mask(40))
    describe(raster, "categories", {0: "water", 9: "glacier"})
    for word in ("4", "forest"):
        result = geoseg("vectorize", raster, "--exclude", word)
        assert result.exit_code == 2
        assert (
            f"no class {word!r} to exclude; classes are: 0 (water), 1 (class 1), 2 "
            "(class 2), 3 (class 3), 9 (glacier), 255 (no data)" in result.stderr
        )
