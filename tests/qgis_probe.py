"""Opens a scene's outputs in QGIS and reports what a user would see, as JSON.

Run by the system's Python, which has the qgis module: probe.py GPKG TIF PNG
"""

from __future__ import annotations

import json
import sys
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsMapLayer,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize


def describe_polygons(layer: QgsVectorLayer) -> dict[str, Any]:
    """Report the style that QGIS chose by itself for the first layer."""
    renderer = layer.renderer()
    report = {
        "valid": layer.isValid(),
        "features": layer.featureCount(),
        "crs": layer.crs().authid(),
        "renderer": renderer.type(),
    }
    if renderer.type() == "categorizedSymbol":
        report["attribute"] = renderer.classAttribute()
        report["categories"] = [
            [item.value(), item.label(), item.symbol().color().getRgb()[:3]]
            for item in renderer.categories()
        ]
    return report


def describe_raster(layer: QgsRasterLayer) -> dict[str, Any]:
    """Report the classes that QGIS shows for the mask."""
    renderer = layer.renderer()
    report = {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "renderer": renderer.type(),
        "nodata": layer.dataProvider().sourceNoDataValue(1),
    }
    if renderer.type() == "paletted":
        report["classes"] = [
            [int(item.value), item.label, item.color.getRgb()]
            for item in renderer.classes()
        ]
    return report


def draw(layers: list[QgsMapLayer], path: str) -> None:
    """Draw layers, the first on top, as a QGIS window would."""
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[0].crs())
    settings.setExtent(layers[0].extent())
    settings.setOutputSize(QSize(600, 600))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(path)


def main(geopackage: str, raster: str, stem: str) -> None:
    """Write the report to standard output and one picture for each file."""
    QgsApplication.setPrefixPath("/usr", True)
    application = QgsApplication([], False)
    application.initQgis()
    polygons = QgsVectorLayer(geopackage, "segments", "ogr")
    mask = QgsRasterLayer(raster, "classes")
    draw([polygons], f"{stem}-segments.png")
    draw([mask], f"{stem}-classes.png")
    report = {"segments": describe_polygons(polygons), "classes": describe_raster(mask)}
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:4])
