from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from rasters import CLASSES

from geoseg.io.style import hex_color, qml, shared_qml, sld
from geoseg.io.style_file import is_own_style, marked, remove_style, write_style


def test_the_qgis_style_has_a_category_and_a_colour_for_each_class() -> None:
    root = ET.fromstring(qml(CLASSES))
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == (
        "categorizedSymbol",
        "class_id",
    )
    symbols = {
        symbol.get("name"): symbol.find("layer/prop[@k='color']")
        for symbol in renderer.findall("symbols/symbol")
    }
    found = []
    for category in renderer.findall("categories/category"):
        color = symbols[category.get("symbol")]
        assert color is not None
        found.append((category.get("value"), category.get("label"), color.get("v")))
    assert found == [
        (str(info.id), info.name, ",".join(map(str, (*info.color, 255))))
        for info in CLASSES
    ]


def test_the_sld_has_a_rule_for_each_class() -> None:
    names = {
        "se": "http://www.opengis.net/se",
        "ogc": "http://www.opengis.net/ogc",
    }
    root = ET.fromstring(sld(CLASSES, "segments"))
    found = [
        (
            rule.findtext("se:Name", namespaces=names),
            rule.findtext(".//ogc:Literal", namespaces=names),
            rule.findtext(".//se:Fill/se:SvgParameter", namespaces=names),
        )
        for rule in root.iter(f"{{{names['se']}}}Rule")
    ]
    assert found == [
        (info.name, str(info.id), f"#{hex_color(info.color)}") for info in CLASSES
    ]


def test_colours_are_six_hexadecimal_digits() -> None:
    assert hex_color((0, 10, 255)) == "000aff"


def test_a_style_is_known_as_own_until_somebody_changes_it() -> None:
    text = marked(shared_qml(CLASSES))
    assert ET.fromstring(text).find("renderer-v2") is not None
    assert is_own_style(text)
    for other in ("", "mine", qml(CLASSES), text.replace("water", "sea"), text + "\n"):
        assert not is_own_style(other)


def test_the_shared_style_has_an_entry_of_the_palette_for_each_class() -> None:
    root = ET.fromstring(shared_qml(CLASSES))
    assert root.find("renderer-v2") is not None
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "paletted"
    found = [
        (entry.get("value"), entry.get("label"), entry.get("color"))
        for entry in renderer.iter("paletteEntry")
    ]
    assert found == [
        (str(info.id), info.name, f"#{hex_color(info.color)}") for info in CLASSES
    ]


def test_a_style_that_is_a_users_is_neither_replaced_nor_removed(
    tmp_path: Path,
) -> None:
    raster, style = tmp_path / "classes.tif", tmp_path / "classes.qml"
    for text in ("old", "new"):
        write_style(raster, text)
        assert style.read_text() == marked(text)
    remove_style(raster)
    assert not style.exists()
    write_style(raster, "new")
    (tmp_path / "classes.vrt").touch()
    remove_style(raster)
    assert style.exists(), "another file opens with it"
    (tmp_path / "classes.vrt").unlink()
    style.write_text("mine")
    write_style(raster, "new")
    remove_style(raster)
    assert style.read_text() == "mine"
