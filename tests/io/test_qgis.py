from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
from affine import Affine
from class_masks import trace_whole
from PIL import Image
from rasters import CLASSES, NORTH_UP, UTM, write_mask

from geoseg.grid import Grid
from geoseg.io.map_layers import FeatureLayer, raster_layer, write_features
from geoseg.io.map_style import RAMP, points_qml, ramp_qml
from geoseg.io.merged import Segments, write_merged
from geoseg.io.style import shared_qml
from geoseg.io.style_file import write_style
from geoseg.io.vector import write_segments
from geoseg.io.virtual import Placed, write_virtual

PYTHON = Path("/usr/bin/python3")
"""The system's Python: QGIS installs its module there and nowhere else."""

PROBE = Path(__file__).parents[1] / "qgis_probe.py"

pytestmark = pytest.mark.slow


@pytest.fixture
def qgis(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a QGIS without a window, or skip."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "QT_QPA_PLATFORM": "offscreen",
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }
    command = [str(PYTHON), "-c", "import qgis.core"]
    missing = (
        not PYTHON.exists()
        or subprocess.run(
            command, env=environment, capture_output=True, check=False
        ).returncode
    )
    if missing:
        pytest.skip("QGIS is absent; apt-get install python3-qgis qgis-providers")
    return environment


def quarters() -> npt.NDArray[np.uint8]:
    """Return one class a quarter, the last one nodata."""
    mask = np.full((40, 40), 255, np.uint8)
    mask[:20, :20], mask[:20, 20:], mask[20:, :20] = (info.id for info in CLASSES)
    return mask


def center_colors(path: Path) -> list[tuple[int, ...]]:
    """Return the colours in the middle of the quarters of a picture."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    near, far = len(pixels) // 4, 3 * len(pixels) // 4
    centers = [(near, near), (near, far), (far, near), (far, far)]
    return [tuple(pixels[row, col].tolist()) for row, col in centers]


@pytest.mark.parametrize(
    ("crs", "suffix"), [(UTM, "gpkg"), (None, "gpkg"), (UTM, "fgb")]
)
def test_outputs_open_styled_in_qgis(
    tmp_path: Path, qgis: dict[str, str], crs: str | None, suffix: str
) -> None:
    """GeoParquet is not among them: Debian's QGIS cannot read it."""
    mask = quarters()
    grid = Grid(40, 40, NORTH_UP, None if crs is None else pyproj.CRS(crs).to_wkt())
    confidence = np.where(mask == 255, 255, 90).astype(np.uint8)
    batch = trace_whole(mask, confidence, grid.transform)
    segments, classes = tmp_path / f"segments.{suffix}", tmp_path / "classes.tif"
    write_segments(
        segments, [batch], grid=grid, classes=CLASSES, scene_id="it's", provenance={}
    )
    write_mask(classes, mask, grid)

    report = probe(qgis, segments, classes, tmp_path / "picture")
    assert_styled(report, crs or "", features=3)
    assert report["classes"]["classes"] != legend(), "a colour table has 256 entries"
    write_style(classes, shared_qml(CLASSES))
    report = probe(qgis, segments, classes, tmp_path / "picture")
    assert_styled(report, crs or "", features=3)
    assert report["classes"]["classes"] == legend()
    want = [*(info.color for info in CLASSES), (255, 255, 255)]
    assert center_colors(tmp_path / "picture-segments.png") == want
    assert center_colors(tmp_path / "picture-classes.png") == want
    assert not list(tmp_path.glob("segments.gpkg-*")), "reading leaves no journal"


def test_merged_scenes_open_styled_in_qgis(
    tmp_path: Path, qgis: dict[str, str]
) -> None:
    mask = quarters()
    wkt = pyproj.CRS(UTM).to_wkt()
    segments, rasters = [], []
    for number, name in enumerate(["a", "b"]):
        right = NORTH_UP @ Affine.translation(20 * number, 0)
        half = mask[:, 20 * number :][:, :20]
        grid = Grid(40, 20, right, wkt)
        folder = tmp_path / name
        folder.mkdir()
        write_mask(folder / "classes.tif", half, grid)
        write_segments(
            folder / "segments.gpkg",
            [trace_whole(half, half, right)],
            grid=grid,
            classes=CLASSES,
            scene_id=name,
            provenance={},
        )
        segments.append(Segments(name, folder / "segments.gpkg", grid))
        rasters.append(Placed(folder / "classes.tif", grid))
    merged, mosaic = tmp_path / "merged.gpkg", tmp_path / "classes.vrt"
    write_merged(merged, segments, crs=wkt, classes=CLASSES, provenance={})
    write_virtual(mosaic, rasters, classes=CLASSES, tags={})
    report = probe(qgis, merged, mosaic, tmp_path / "picture")
    assert_styled(report, UTM, features=3)
    want = [*(info.color for info in CLASSES), (255, 255, 255)]
    assert center_colors(tmp_path / "picture-segments.png") == want
    assert center_colors(tmp_path / "picture-classes.png") == want


def test_map_layers_open_styled_in_qgis(tmp_path: Path, qgis: dict[str, str]) -> None:
    grid = Grid(40, 40, NORTH_UP, pyproj.CRS(UTM).to_wkt())
    raster, features = tmp_path / "amount.tif", tmp_path / "patches.gpkg"
    values = np.zeros((1, 40, 40), np.float32)
    values[0, :20, :20], values[0, :20, 20:], values[0, 20:, :20] = 0, 0.5, 1
    values[0, 20:, 20:] = np.nan
    with raster_layer(
        raster,
        grid,
        bands=("amount",),
        dtype="float32",
        nodata=float("nan"),
        qml=ramp_qml(0, 1, opacity=1),
        tags={},
    ) as layer:
        layer.write(values, grid.whole)
    places = [grid.transform @ place for place in ((10, 10), (30, 10), (10, 30))]
    names = ["a", "b", "c"]
    colors = dict(zip(names, [info.color for info in CLASSES], strict=True))
    points = FeatureLayer(
        "points",
        np.array([shapely.Point(place) for place in places]),
        {"kind": np.array(names), "size": np.full(3, 5.0)},
        points_qml("kind", colors, '"size"'),
    )
    write_features(features, [points], grid)

    report = probe(qgis, features, raster, tmp_path / "picture")
    shown, amounts = report["segments"], report["classes"]
    assert shown["crs"] == amounts["crs"] == UTM
    assert (shown["renderer"], shown["attribute"]) == ("categorizedSymbol", "kind")
    assert shown["categories"] == [[k, k, list(v)] for k, v in colors.items()]
    assert amounts["renderer"] == "singlebandpseudocolor"
    want = [RAMP[0], RAMP[2], RAMP[4], (255, 255, 255)]
    assert center_colors(tmp_path / "picture-classes.png") == want
    with Image.open(tmp_path / "picture-segments.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for color in colors.values():
        # A quarter of a disc of 5 mm, the layer's corner, at 96 dots an inch; of the
        # 2 mm that it has without the expression it would be 11.
        assert (pixels == color).all(axis=1).sum() > 40


def probe(
    qgis: dict[str, str], segments: Path, classes: Path, picture: Path
) -> dict[str, Any]:
    """Open files in QGIS; return what it says of them."""
    done = subprocess.run(
        [str(part) for part in (PYTHON, PROBE, segments, classes, picture)],
        env=qgis,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def legend() -> list[list[Any]]:
    """Return what a user shall see beside a class mask, and nothing else."""
    return [[info.id, info.name, [*info.color, 255]] for info in CLASSES]


def test_one_style_is_for_polygons_and_the_raster_of_the_same_name(
    tmp_path: Path, qgis: dict[str, str]
) -> None:
    mask, grid = quarters(), Grid(40, 40, NORTH_UP, pyproj.CRS(UTM).to_wkt())
    polygons, raster = tmp_path / "out.fgb", tmp_path / "out.tif"
    batch = trace_whole(mask, mask, grid.transform)
    write_mask(raster, mask, grid)
    write_style(raster, shared_qml(CLASSES))
    write_segments(
        polygons, [batch], grid=grid, classes=CLASSES, scene_id="a", provenance={}
    )
    report = probe(qgis, polygons, raster, tmp_path / "picture")
    assert_styled(report, UTM, features=3)
    assert report["classes"]["classes"] == legend()


def assert_styled(report: dict[str, Any], crs: str, *, features: int) -> None:
    """Check that both files have names and colours of the classes."""
    polygons, raster = report["segments"], report["classes"]
    assert polygons["valid"]
    assert raster["valid"]
    assert polygons["crs"] == raster["crs"] == crs
    assert polygons["features"] == features
    assert polygons["renderer"] == "categorizedSymbol"
    assert polygons["attribute"] == "class_id"
    assert polygons["categories"] == [
        [str(info.id), info.name, list(info.color)] for info in CLASSES
    ]
    assert raster["renderer"] == "paletted"
    assert raster["nodata"] == 255
    shown = {value: (label, color) for value, label, color in raster["classes"]}
    for info in CLASSES:
        assert shown[info.id] == (info.name, [*info.color, 255])
