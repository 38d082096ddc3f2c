"""QGIS styles (QML) of layers without classes: ramps, pictures, points, outlines."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from geoseg.io.style import qml_document

Rgb = tuple[int, int, int]

RAMP: tuple[Rgb, ...] = (
    (0, 0, 4),
    (81, 18, 124),
    (183, 55, 121),
    (252, 137, 97),
    (252, 253, 191),
)
"""Five evenly spaced colours of matplotlib's magma, which figures use as well."""


def ramp_qml(low: float, high: float, *, band: int = 1, opacity: float = 0.8) -> str:
    """Return the style of a raster of amounts: one band in a ramp of colours.

    Args:
        low: Value that has the first colour.
        high: Value that has the last one, above `low`.
        band: Band shown, 1-based.
        opacity: 0..1; a little of what lies below shows through.
    """
    root, pipe = _raster_root()
    renderer = ET.SubElement(
        pipe,
        "rasterrenderer",
        type="singlebandpseudocolor",
        band=str(band),
        opacity=str(opacity),
        alphaBand="-1",
        classificationMin=repr(low),
        classificationMax=repr(high),
    )
    shader = ET.SubElement(ET.SubElement(renderer, "rastershader"), "colorrampshader")
    shader.attrib |= {
        "colorRampType": "INTERPOLATED",
        "classificationMode": "1",
        "clip": "0",
        "minimumValue": repr(low),
        "maximumValue": repr(high),
    }
    for number, color in enumerate(RAMP):
        value = low + (high - low) * number / (len(RAMP) - 1)
        ET.SubElement(
            shader,
            "item",
            value=repr(value),
            label=f"{value:.3g}",
            color="#{:02x}{:02x}{:02x}".format(*color),
            alpha="255",
        )
    return qml_document(root)


def percent_qml() -> str:
    """Return the style of a raster of percents, and of the first band of several."""
    return ramp_qml(0.0, 100.0, opacity=1.0)


def picture_qml() -> str:
    """Return the style of a raster of red, green and blue, 0-255, shown as it is."""
    root, pipe = _raster_root()
    ET.SubElement(
        pipe,
        "rasterrenderer",
        type="multibandcolor",
        redBand="1",
        greenBand="2",
        blueBand="3",
        opacity="1",
        alphaBand="-1",
    )
    return qml_document(root)


def points_qml(column: str, colors: Mapping[str, Rgb], size: str) -> str:
    """Return the style of points: a colour for each value, a size by expression.

    Args:
        column: Column of text that chooses the colour.
        colors: Colour by value.
        size: Expression of QGIS for the diameter, millimetres.
    """
    root, symbols = _categorized(column, list(colors), geometry="0")
    for number, color in enumerate(colors.values()):
        symbol = _symbol(symbols, number, "marker")
        layer = _symbol_layer(
            symbol,
            "SimpleMarker",
            {
                "name": "circle",
                "color": _with_alpha(color),
                "outline_color": "255,255,255,255",
                "outline_width": "0.2",
                "outline_width_unit": "MM",
                "size": "2",
                "size_unit": "MM",
            },
        )
        _by_expression(layer, "size", size)
    return qml_document(root)


def outlines_qml(column: str, values: Sequence[str], colors: Sequence[Rgb]) -> str:
    """Return the style of polygons that are drawn as outlines, by a column of text."""
    root, symbols = _categorized(column, values, geometry="2")
    for number, color in enumerate(colors):
        symbol = _symbol(symbols, number, "fill")
        _symbol_layer(
            symbol,
            "SimpleFill",
            {
                "style": "no",
                "outline_color": _with_alpha(color),
                "outline_style": "solid",
                "outline_width": "0.3",
                "outline_width_unit": "MM",
            },
        )
    return qml_document(root)


def _raster_root() -> tuple[ET.Element, ET.Element]:
    root = ET.Element("qgis", version="3.16.0", styleCategories="Symbology")
    return root, ET.SubElement(root, "pipe")


def _categorized(
    column: str, values: Sequence[str], *, geometry: str
) -> tuple[ET.Element, ET.Element]:
    root = ET.Element("qgis", version="3.16.0", styleCategories="Symbology")
    renderer = ET.SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr=column,
        symbollevels="0",
        enableorderby="0",
        forceraster="0",
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for number, value in enumerate(values):
        ET.SubElement(
            categories,
            "category",
            value=value,
            label=value,
            symbol=str(number),
            render="true",
            type="string",
        )
    ET.SubElement(root, "layerGeometryType").text = geometry
    return root, symbols


def _symbol(symbols: ET.Element, number: int, kind: str) -> ET.Element:
    return ET.SubElement(
        symbols, "symbol", type=kind, name=str(number), alpha="1", clip_to_extent="1"
    )


def _symbol_layer(
    symbol: ET.Element, kind: str, properties: Mapping[str, str]
) -> ET.Element:
    layer = ET.SubElement(symbol, "layer", {"class": kind}, enabled="1", locked="0")
    layer.set("pass", "0")
    for key, value in properties.items():
        ET.SubElement(layer, "prop", k=key, v=value)
    return layer


def _by_expression(layer: ET.Element, key: str, expression: str) -> None:
    """Let a property be worked out for each feature."""
    whole = ET.SubElement(ET.SubElement(layer, "data_defined_properties"), "Option")
    whole.set("type", "Map")
    ET.SubElement(whole, "Option", name="name", value="", type="QString")
    properties = ET.SubElement(whole, "Option", name="properties", type="Map")
    own = ET.SubElement(properties, "Option", name=key, type="Map")
    ET.SubElement(own, "Option", name="active", value="true", type="bool")
    ET.SubElement(own, "Option", name="expression", value=expression, type="QString")
    ET.SubElement(own, "Option", name="type", value="3", type="int")
    ET.SubElement(whole, "Option", name="type", value="collection", type="QString")


def _with_alpha(color: Rgb) -> str:
    return ",".join(map(str, (*color, 255)))
