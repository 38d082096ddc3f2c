"""What a raster's own names do to `vectorize`: they help, and never cost the run."""

from __future__ import annotations

import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from class_rasters import assert_exact, class_mask, read_polygons, write_classes
from commands import geoseg


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
    rows = "".join(
        f'<Row index="{i}"><F>{value}</F><F>{escape(name)}</F></Row>'
        for i, (value, name) in enumerate(names.items())
    )
    fields = "".join(
        f'<FieldDefn index="{i}"><Name>{title}</Name><Type>{kind}</Type>'
        f"<Usage>{usage}</Usage></FieldDefn>"
        for i, (title, kind, usage) in enumerate([("Value", 0, 5), ("Class", 2, 2)])
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
