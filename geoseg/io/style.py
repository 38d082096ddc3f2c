"""Styles that colour polygons by class, for QGIS (QML) and for other GIS (SLD)."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from geoseg.types import ClassInfo

_SLD = "http://www.opengis.net/sld"
_SE = "http://www.opengis.net/se"
_OGC = "http://www.opengis.net/ogc"

_OUTLINE_MM = 0.1
"""Outline width, millimetres: a hairline, or small polygons would be all outline."""

_MARK = "\n<!-- Made by geoseg, which replaces it for as long as it is unchanged: "
"""Begins the last line of a style's file; the digest of what is above follows."""


def qml_file(classes: Sequence[ClassInfo]) -> str:
    """Return the style of `qml` as a file of its own, marked as geoseg's.

    QGIS drops the mark, a comment, when a user saves the style again; other editors
    leave it, but not the digest right.
    """
    text = qml(classes)
    return f"{text}{_MARK}{_digest(text)} -->\n"


def is_own_qml(content: str) -> bool:
    """Tell whether a file is just what `qml_file` once gave, for any classes."""
    text, _, rest = content.rpartition(_MARK)
    return rest == f"{_digest(text)} -->\n"


def qml(classes: Sequence[ClassInfo]) -> str:
    """Return a QGIS layer style: one category for each class, on `class_id`.

    Colours are `prop` elements, which every QGIS 3 reads; newer ones write `Option`.
    """
    root = ET.Element("qgis", version="3.16.0", styleCategories="Symbology")
    renderer = ET.SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr="class_id",
        symbollevels="0",
        enableorderby="0",
        forceraster="0",
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for index, info in enumerate(classes):
        ET.SubElement(
            categories,
            "category",
            value=str(info.id),
            label=info.name,
            symbol=str(index),
            render="true",
            type="integer",
        )
        _add_symbol(symbols, str(index), info.color)
    ET.SubElement(root, "blendMode").text = "0"
    ET.SubElement(root, "layerOpacity").text = "1"
    ET.SubElement(root, "layerGeometryType").text = "2"  # Polygons.
    text = ET.tostring(root, encoding="unicode")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}"


def sld(classes: Sequence[ClassInfo], layer: str) -> str:
    """Return the same style as an OGC Styled Layer Descriptor 1.1.

    Args:
        classes: Classes, in legend order.
        layer: Name of the layer it applies to.
    """
    for prefix, uri in (("sld", _SLD), ("se", _SE), ("ogc", _OGC)):
        ET.register_namespace(prefix, uri)
    root = ET.Element(f"{{{_SLD}}}StyledLayerDescriptor", version="1.1.0")
    named = ET.SubElement(root, f"{{{_SLD}}}NamedLayer")
    ET.SubElement(named, f"{{{_SE}}}Name").text = layer
    style = ET.SubElement(named, f"{{{_SLD}}}UserStyle")
    ET.SubElement(style, f"{{{_SE}}}Name").text = layer
    rules = ET.SubElement(style, f"{{{_SE}}}FeatureTypeStyle")
    for info in classes:
        _add_rule(rules, info)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def hex_color(color: tuple[int, int, int]) -> str:
    """Return a colour as RRGGBB."""
    return "{:02x}{:02x}{:02x}".format(*color)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _darker(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the outline's colour: visible between neighbours, yet the class's own."""
    red, green, blue = (value * 3 // 4 for value in color)
    return red, green, blue


def _add_symbol(symbols: ET.Element, name: str, color: tuple[int, int, int]) -> None:
    """Add a filled polygon symbol."""
    symbol = ET.SubElement(
        symbols,
        "symbol",
        type="fill",
        name=name,
        alpha="1",
        clip_to_extent="1",
        force_rhr="0",
    )
    layer = ET.SubElement(
        symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0"
    )
    layer.set("pass", "0")
    properties = {
        "color": ",".join(map(str, (*color, 255))),
        "style": "solid",
        "outline_color": ",".join(map(str, (*_darker(color), 255))),
        "outline_style": "solid",
        "outline_width": str(_OUTLINE_MM),
        "outline_width_unit": "MM",
        "joinstyle": "bevel",
    }
    for key, value in properties.items():
        ET.SubElement(layer, "prop", k=key, v=value)


def _add_rule(rules: ET.Element, info: ClassInfo) -> None:
    """Add the rule of one class."""
    rule = ET.SubElement(rules, f"{{{_SE}}}Rule")
    ET.SubElement(rule, f"{{{_SE}}}Name").text = info.name
    condition = ET.SubElement(rule, f"{{{_OGC}}}Filter")
    equal = ET.SubElement(condition, f"{{{_OGC}}}PropertyIsEqualTo")
    ET.SubElement(equal, f"{{{_OGC}}}PropertyName").text = "class_id"
    ET.SubElement(equal, f"{{{_OGC}}}Literal").text = str(info.id)
    symbolizer = ET.SubElement(rule, f"{{{_SE}}}PolygonSymbolizer")
    fill = ET.SubElement(symbolizer, f"{{{_SE}}}Fill")
    _add_parameter(fill, "fill", f"#{hex_color(info.color)}")
    stroke = ET.SubElement(symbolizer, f"{{{_SE}}}Stroke")
    _add_parameter(stroke, "stroke", f"#{hex_color(_darker(info.color))}")
    _add_parameter(stroke, "stroke-width", "0.4")  # Pixels of 0.28 mm: a hairline.


def _add_parameter(parent: ET.Element, name: str, value: str) -> None:
    """Add one drawing parameter."""
    ET.SubElement(parent, f"{{{_SE}}}SvgParameter", name=name).text = value
