"""Styles that colour classes, for QGIS (QML) and for other GIS (SLD)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from geoseg.types import ClassInfo

_SLD = "http://www.opengis.net/sld"
_SE = "http://www.opengis.net/se"
_OGC = "http://www.opengis.net/ogc"

_OUTLINE_MM = 0.1
"""Outline width, millimetres: a hairline, or small polygons would be all outline."""


def shared_qml(classes: Sequence[ClassInfo]) -> str:
    """Return a QGIS style for polygons and for rasters of class ids.

    QGIS looks for the style of classes.tif and of classes.fgb in the same classes.qml,
    and takes from it what is of the layer's kind. Of a raster that has but a colour
    table its legend would list all 256 entries.
    """
    root = _polygon_root(classes)
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"),
        "rasterrenderer",
        type="paletted",
        band="1",
        opacity="1",
        alphaBand="-1",
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for info in classes:
        ET.SubElement(
            palette,
            "paletteEntry",
            value=str(info.id),
            label=info.name,
            color=f"#{hex_color(info.color)}",
            alpha="255",
        )
    return qml_document(root)


def qml(classes: Sequence[ClassInfo]) -> str:
    """Return a QGIS layer style: one category for each class, on `class_id`.

    Colours are `prop` elements, which every QGIS 3 reads; newer ones write `Option`.
    """
    return qml_document(_polygon_root(classes))


def _polygon_root(classes: Sequence[ClassInfo]) -> ET.Element:
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
    return root


def qml_document(root: ET.Element) -> str:
    """Return a style as QGIS reads it, with the type of the document."""
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
