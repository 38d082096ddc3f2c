"""Classes of `vectorize`: by a table, by the raster's own legend, or by its values."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
from class_rasters import (
    assert_exact,
    class_mask,
    read_polygons,
    rows_of,
    write_classes,
    write_own,
)
from commands import geoseg

from geoseg.types import NODATA

CSV = """\
id,name,color,into
0,water,#010203,
1,land,40 50 60,
2,,,1
3,,,drop
"""


def vectorized(raster: Path, *options: object) -> Path:
    """Run the command, which must succeed, and return the file."""
    result = geoseg("vectorize", raster, *options)
    assert result.exit_code == 0, result.stderr
    return raster.with_suffix(".gpkg")


def colors_of(path: Path) -> dict[str, str]:
    """Return the style's colour of each class id."""
    import xml.etree.ElementTree as ET

    with closing(sqlite3.connect(path)) as connection:
        [(qml,)] = connection.execute("SELECT styleQML FROM layer_styles")
    root = ET.fromstring(qml)
    fills = [
        prop.get("v", "") for prop in root.iter("prop") if prop.get("k") == "color"
    ]
    ids = [category.get("value", "") for category in root.iter("category")]
    return dict(zip(ids, fills, strict=True))


def as_yaml(classes: list[dict[str, object]]) -> str:
    return "classes:\n" + "".join(f"  - {json.dumps(row)}\n" for row in classes)


ROWS: list[dict[str, object]] = [
    {"id": 0, "name": "water", "color": "#010203"},
    {"id": 1, "name": "land", "color": [40, 50, 60]},
    {"id": 2, "into": 1},
    {"id": 3, "into": "drop"},
]
TABLES = {
    "t.csv": CSV,
    "semicolons.CSV": "\ufeff" + CSV.replace(",", ";"),
    "t.tsv": CSV.replace(",", "\t"),
    "t.yaml": as_yaml(ROWS),
    "t.json": json.dumps(ROWS),
    "model.json": json.dumps({"geoseg": {"bands": ["red"], "classes": ROWS}}),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_names_colours_merges_and_drops(tmp_path: Path, name: str) -> None:
    mask = class_mask(60)
    raster = write_own(tmp_path / "classes.tif", mask)
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    out = vectorized(raster, "--classes", tmp_path / name)
    mask[mask == 2] = 1
    mask[mask == 3] = NODATA
    assert_exact(out, mask)
    table = read_polygons(out)
    assert {*zip(table.class_id, table.class_name, strict=True)} == {
        (0, "water"),
        (1, "land"),
    }
    assert colors_of(out) == {"0": "1,2,3,255", "1": "40,50,60,255"}


def test_merging_is_as_if_the_raster_had_been_merged(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_own(tmp_path / "classes.tif", mask)
    (tmp_path / "t.csv").write_text("id,into,name\n0,9,a\n1,9,\n2,,b\n3,2,\n")
    given = ["--min-area", 3, "--simplify", 0.5]
    out = vectorized(raster, "--classes", tmp_path / "t.csv", *given)
    merged = np.where(mask <= 1, 9, np.where(mask <= 3, 2, mask)).astype(np.uint8)
    other = write_own(tmp_path / "merged.tif", merged)
    (tmp_path / "u.csv").write_text("id,name\n9,a\n2,b\n")
    expected = vectorized(other, "--classes", tmp_path / "u.csv", *given)
    assert rows_of(out) == rows_of(expected)


def test_a_table_brings_large_ids_down(tmp_path: Path) -> None:
    mask = class_mask(60)
    values = mask.astype(np.int32) * 1000 - 500
    values[mask == NODATA] = -99_999
    raster = write_classes(tmp_path / "c.tif", values, nodata=-99_999)
    result = geoseg("vectorize", raster)
    assert result.exit_code == 2
    assert "there are others: -500, 500, 1500, 2500; give each" in result.stderr
    (tmp_path / "t.csv").write_text("id,into\n-500,0\n500,1\n1500,2\n2500,3\n")
    assert_exact(vectorized(raster, "--classes", tmp_path / "t.csv"), mask)


def test_a_table_may_leave_names_to_the_raster_and_name_what_is_not_there(
    tmp_path: Path,
) -> None:
    raster = write_own(tmp_path / "classes.tif", class_mask(60))
    (tmp_path / "t.csv").write_text("id,name\n0,\n1,\n2,street\n3,\n77,glacier\n")
    out = vectorized(raster, "--classes", tmp_path / "t.csv")
    table = read_polygons(out)
    assert set(table.class_name) == {"water", "land & <sand>", "street", "building"}
    assert colors_of(out)["2"] == "96,96,104,255"
    assert "77" in colors_of(out)


def test_classes_of_a_table_that_the_raster_lacks_may_be_any(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_own(tmp_path / "classes.tif", mask)
    ids = [*range(254), *range(1000, 1400)]
    rows = "".join(f"{i},class of {i}\n" for i in ids)
    (tmp_path / "t.csv").write_text(f"id,name\n{rows}{NODATA},none\n")
    out = vectorized(raster, "--classes", tmp_path / "t.csv")
    assert_exact(out, mask)
    table = read_polygons(out)
    assert set(table.class_name) == {f"class of {i}" for i in range(4)}
    assert set(colors_of(out)) == {"0", "1", "2", "3"}


def test_a_row_for_nodata_makes_no_class(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_own(tmp_path / "classes.tif", mask)
    (tmp_path / "t.csv").write_text(f"id,name\n0,\n1,\n2,\n3,\n{NODATA},no data\n")
    out = vectorized(raster, "--classes", tmp_path / "t.csv")
    assert_exact(out, mask)
    assert set(colors_of(out)) == {"0", "1", "2", "3"}


def test_a_value_that_a_table_lacks_may_be_excluded(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_own(tmp_path / "classes.tif", mask)
    (tmp_path / "t.csv").write_text("id,name,into\n0,2,\n1,land,\n3,,1\n")
    given = ["--classes", tmp_path / "t.csv", "--exclude", "2"]
    mask[mask == 2] = NODATA
    mask[mask == 3] = 1
    assert_exact(vectorized(raster, *given), mask)


def test_excluding_comes_after_merging(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_own(tmp_path / "classes.tif", mask)
    (tmp_path / "t.csv").write_text(CSV)
    given = ["--classes", tmp_path / "t.csv", "--exclude", "land"]
    mask[mask != 0] = NODATA
    assert_exact(vectorized(raster, *given), mask)


def test_values_beyond_the_rasters_own_names_are_classes_too(tmp_path: Path) -> None:
    mask = class_mask(60)
    mask[30:33, 30:40] = 77
    raster = write_own(tmp_path / "classes.tif", mask)
    out = vectorized(raster)
    assert_exact(out, mask)
    table = read_polygons(out)
    assert set(table.class_name[table.class_id == 77]) == {"class 77"}
    assert set(table.class_name[table.class_id == 2]) == {"road"}


def test_a_colour_table_without_names(tmp_path: Path) -> None:
    mask = class_mask(60)
    raster = write_classes(tmp_path / "c.tif", mask)
    with rasterio.open(raster, "r+") as dataset:
        dataset.write_colormap(1, {0: (1, 2, 3, 255), 1: (4, 5, 6, 255)})
    out = vectorized(raster)
    assert_exact(out, mask)
    assert colors_of(out)["1"] == "4,5,6,255"
    assert set(read_polygons(out).class_name) == {f"class {i}" for i in range(4)}


def test_an_attribute_table_has_names_and_colours(tmp_path: Path) -> None:
    raster = write_classes(tmp_path / "c.tif", class_mask(60))
    columns = [("VALUE", 0, 5), ("Class_Name", 2, 2), ("Red", 0, 6), ("Green", 0, 7)]
    fields = "".join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type>'
        f"<Usage>{usage}</Usage></FieldDefn>"
        for i, (name, kind, usage) in enumerate([*columns, ("Blue", 0, 8)])
    )
    cells = "".join(f"<F>{cell}</F>" for cell in (2, "oak &amp; ash", 9, 8, 7))
    raster.with_name("c.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable>'
        f'{fields}<Row index="0">{cells}</Row>'
        "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
    )
    out = vectorized(raster)
    table = read_polygons(out)
    assert set(table.class_name[table.class_id == 2]) == {"oak & ash"}
    assert colors_of(out)["2"] == "9,8,7,255"
    assert len(set(colors_of(out).values())) == 4


def test_a_raster_without_legend_gets_distinct_colours(tmp_path: Path) -> None:
    mask = np.arange(254, dtype=np.uint8).reshape(2, 127).repeat(3, 0)
    raster = write_classes(tmp_path / "c.tif", mask)
    out = vectorized(raster)
    assert_exact(out, mask)
    colors = colors_of(out)
    assert len(colors) == 254
    assert len(set(colors.values())) > 250


AS_WRITTEN = {
    "t.csv": "\ufeff\r\rid,name,color,\r0,2020-13-45,,\r,,,\r1.0,no,,,,\r"
    '2,"1_0, or ten",,\r3,\U0001f333,,\r',
    "t.yaml": "- {id: 0, name: 2020-13-45, color: null}\n- {id: 1.0, name: no}\n"
    "- {id: 2, name: '1_0, or ten'}\n- {id: 3, name: \U0001f333, into: ~}\n",
    "t.json": r"""[{"id": 0, "name": "2020-13-45", "color": null},
    {"id": 1.0, "name": "no"}, {"id": 2, "name": "1_0, or ten"},
    {"id": 3, "name": "\ud83c\udf33", "into": null}]""",
}


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_names_are_as_they_are_written(tmp_path: Path, name: str) -> None:
    mask = class_mask(60)
    raster = write_own(tmp_path / "classes.tif", mask)
    (tmp_path / name).write_bytes(AS_WRITTEN[name].encode())
    out = vectorized(raster, "--classes", tmp_path / name)
    assert_exact(out, mask)
    table = read_polygons(out)
    assert dict(zip(table.class_id, table.class_name, strict=True)) == {
        0: "2020-13-45",
        1: "no",
        2: "1_0, or ten",
        3: "\U0001f333",
    }


def test_names_in_yaml_may_begin_like_null(tmp_path: Path) -> None:
    raster = write_own(tmp_path / "classes.tif", class_mask(60))
    names = {0: "Nullarbor plain", 1: "~5 m trees", 2: "null data", 3: "nullah"}
    rows = "".join(f"- {{id: {i}, name: {name}}}\n" for i, name in names.items())
    (tmp_path / "t.yaml").write_text(rows)
    table = read_polygons(vectorized(raster, "--classes", tmp_path / "t.yaml"))
    assert dict(zip(table.class_id, table.class_name, strict=True)) == names


BAD = {
    "id,name\n1,a\n1,b\n": "has class 1 twice; keep one row",
    "name\na\n": "the id is missing",
    "id,colour\n1,#000000\n": "no column 'colour' (it has id, name, color, into); did "
    "you mean color?",
    "id,width\n1,3\n": "no column 'width'",
    "id\nwater\n": "line 2: id is 'water'; use a whole number",
    "id,into\n1,300\n": "into is 300; polygons have classes 0 to 255",
    "id,into\n1,water\n": "into is 'water'; use the id of a class, or drop",
    "id,into\n1,2\n2,3\n3,\n": "merges class 1 into 2, which goes into 3 itself; write "
    "3 for both",
    "id,into\n1,2\n2,drop\n": "which goes into drop itself",
    "id,color\n1,#12345\n": "color is '#12345'; write it as '#4a90d2'",
    "id,color\n1,1 2 300\n": "write it as",
    'id,name\n1,"a\n': "is not well-formed",
    "id\n": "is empty; give it a row a class",
    'id,"name\n1,a\n': "is not well-formed",
    "id,name,Name\n1,a,b\n": "has the column 'name' twice; remove one",
    "id,name\n1,oak, ash\n": "line 2: there are 3 cells under 2 titles; put quotes",
    "id\n1_0\n": "id is '1_0'; use a whole number",
    "id\n\u0661\n": "id is '\u0661'; use a whole number",
    "id\nnan\n": "id is 'nan'; use a whole number",
    "id,color\n1,1_0 2 3\n": "color is '1_0 2 3'; write it as",
    "id,name\n1,a\n2,b\x01\n": "line 3: name holds the character U+0001, which no "
    "style may hold; remove it",
    "id,name\n1,\uffff\n": "line 2: name holds the character U+FFFF",
    "id\n" + "1\n" * 1_100_000: "is larger than 2 MB; give a table with one row",
    "id,into\n400,1\n": "t.csv does not name: 0 (",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_wrong_table_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    raster = write_own(tmp_path / "classes.tif", class_mask(20))
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    result = geoseg("vectorize", raster, "--classes", tmp_path / "t.csv")
    assert result.exit_code == 2
    assert BAD[text] in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "classes.gpkg").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.yaml", b"classes: 3", "holds no list of classes"),
        ("t.yaml", b"classes: [3]", "class number 1: '3' is no class"),
        ("t.yaml", b"classes: [{id: 1.5}]", "id is '1.5'; use a whole number"),
        ("t.yaml", b"classes: [{id: true}]", "id is 'true'; use a whole number"),
        ("t.yaml", b"classes: [{id: !!int abc}]", "id is 'abc'; use a whole number"),
        ("t.yaml", b"- id: 1\n  color: #4a90d2", "color is ''; write it as '#4a90d2'"),
        ("t.yaml", b"- {id: 1, id: 2}", "a key is there twice"),
        ("t.yaml", b"a: [", "is not well-formed"),
        ("t.yaml", b'- "\\UFFFFFFFF"', "is not well-formed"),
        ("t.yaml", b"[" * 5000, "is nested too deeply; write a list of classes"),
        ("t.json", b"[" * 100_000, "is nested too deeply; write a list of classes"),
        ("t.json", b"[{'id': 1}]", "is not well-formed"),
        ("t.json", b'[{"id": true}]', "id is True; use a whole number"),
        ("t.json", b'[{"id": 1, "id": 2}]', "'id' is twice in one object"),
        ("t.json", b'[{"id": NaN}]', "id is 'NaN'; use a whole number"),
        ("t.json", b'[{"id": 1e999}]', "id is '1e999'; use a whole number"),
        ("t.json", b'[{"id": 1, "name": [1]}]', "name is ['1']; write text"),
        ("t.json", b'[{"id": 1, "name": "\\ud83c"}]', "the character U+D83C, which"),
        ("t.xml", b"<a/>", "is no .csv, .yaml or .json file"),
        ("t.csv", b"id\n\xff\n", "it is no UTF-8 text; save it as UTF-8"),
        ("t.csv", "id\n1\n".encode("utf-16"), "it is no UTF-8 text"),
        (None, b"", "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_table(
    tmp_path: Path, name: str | None, content: bytes, message: str
) -> None:
    raster = write_own(tmp_path / "classes.tif", class_mask(20))
    if name is not None:
        (tmp_path / name).write_bytes(content)
    table = tmp_path / (name or "missing.csv")
    result = geoseg("vectorize", raster, "--classes", table)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_values_that_the_table_lacks_are_named_with_their_pixels(
    tmp_path: Path,
) -> None:
    mask = class_mask(60)
    mask[30:33, 30:40] = 77
    raster = write_own(tmp_path / "classes.tif", mask)
    (tmp_path / "t.csv").write_text("id\n0\n1\n2\n")
    result = geoseg("vectorize", raster, "--classes", tmp_path / "t.csv")
    assert result.exit_code == 2
    count = int((mask == 3).sum())
    assert f"t.csv does not name: 3 ({count:,} pixels), 77 (30 pixels); add a row" in (
        result.stderr
    )
    assert "--nodata" in result.stderr
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [
        ".csv",
        ".tif",
        ".xml",
    ]
