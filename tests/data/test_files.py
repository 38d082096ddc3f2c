"""Images with masks or polygons: read window by window, nothing hidden, one grid."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import labelled_files
import numpy as np
import pytest
import rasterio
import rasters
import shapely
from affine import Affine
from PIL import Image
from rasterio.features import rasterize

from geoseg.data.classes import IGNORE
from geoseg.data.files import FileScene, open_file_scene
from geoseg.errors import ConfigError, GeosegWarning, RadiometryError, SceneError
from geoseg.grid import Window

INNER = Window(5, 7, 20, 30)


def scene(image: Path, labels: Path, **changes: Any) -> FileScene:  # noqa: ANN401
    config = labelled_files.data(image.parent, **changes)
    return open_file_scene("one", image, labels, config)


def test_pictures_with_masks_of_values(tmp_path: Path) -> None:
    mask = labelled_files.write_pair(tmp_path, "a")
    found = scene(tmp_path / "images/a.png", tmp_path / "masks/a.png")
    assert found.grid.shape == mask.shape
    assert found.grid.crs is None
    assert (found.path, found.scale) == (tmp_path / "images/a.png", 255.0)
    image, labels, _ = found.read(found.grid.whole)
    np.testing.assert_array_equal(image, labelled_files.image_of(mask))
    np.testing.assert_array_equal(labels, labelled_files.indices(mask))
    # A window is the same as that part of the whole, also elsewhere.
    elsewhere = pickle.loads(pickle.dumps(found))
    part, part_labels, _ = elsewhere.read(INNER)
    np.testing.assert_array_equal(part, image[:, *INNER.slices])
    np.testing.assert_array_equal(part_labels, labels[INNER.slices])
    np.testing.assert_array_equal(elsewhere.read_labels(INNER), labels[INNER.slices])


@pytest.mark.parametrize("stored", ["bands", "alpha", "palette"])
def test_masks_of_colours(tmp_path: Path, stored: str) -> None:
    mask = labelled_files.write_pair(tmp_path, "a")
    palette = np.zeros((256, 3), np.uint8)
    for entry in labelled_files.CLASSES:
        palette[entry["id"]] = entry["color"]
    colors = Image.fromarray(palette[mask])
    expected = labelled_files.indices(mask)
    if stored == "palette":
        colors = Image.fromarray(mask)
        colors.putpalette(palette.tobytes())
    if stored == "alpha":
        shown = np.full(mask.shape, 255, np.uint8)
        shown[10:12] = 0
        expected[10:12] = IGNORE
        colors.putalpha(Image.fromarray(shown))
    colors.save(tmp_path / "masks/a.png")
    found = scene(
        tmp_path / "images/a.png", tmp_path / "masks/a.png", ignore=["#000000"]
    )
    np.testing.assert_array_equal(found.read_labels(found.grid.whole), expected)


def test_values_without_a_meaning_are_named_or_no_labels(tmp_path: Path) -> None:
    mask = labelled_files.values()
    mask[20:22] = 9
    mask[30, :10] = 33
    image = labelled_files.save(tmp_path / "a.png", labelled_files.image_of(mask))
    labels = labelled_files.save(tmp_path / "m.png", mask)
    with pytest.raises(
        SceneError, match=r"one: 110 pixels \(5.50%\) .*: 9 \(5.00%\), 33 \(0.50%\); "
    ):
        scene(image, labels).read(Window(0, 0, 40, 50))
    ignoring = scene(image, labels, unknown="ignore").read_labels(Window(19, 0, 2, 50))
    assert (ignoring[1] == IGNORE).all()
    assert not (ignoring[0] == IGNORE).any()
    counts: Counter[str] = Counter()
    scene(image, labels).read_labels(Window(20, 0, 1, 50), counts)
    assert counts == {"9": 50}


@pytest.mark.parametrize("hidden", ["nodata", "mask", "nan"])
def test_what_image_or_mask_hide_has_no_label(tmp_path: Path, hidden: str) -> None:
    mask = labelled_files.values().astype(np.int16)
    mask[mask == 0] = 1
    mask[8:10] = -1
    image = np.full((3, 40, 50), 100, np.uint16)
    shown = np.ones((40, 50), bool)
    shown[20:25] = False
    changes: dict[str, Any] = {"scale": 1000.0, "mean": [0.485, 0.4558, 0.4064]}
    if hidden == "nan":
        image = np.where(shown, image, np.float32(np.nan)).astype(np.float32)
    if hidden == "nodata":
        image[:, ~shown] = 3
    options: dict[str, Any] = {"nodata": 3} if hidden == "nodata" else {}
    if hidden == "mask":
        options["mask"] = shown
    found = scene(
        rasters.write_raster(tmp_path / "a.tif", image, **options),
        rasters.write_raster(tmp_path / "m.tif", mask, nodata=-1),
        **changes,
    )
    pixels, labels, _ = found.read(found.grid.whole)
    expected = np.where(shown & (mask > 0), labelled_files.indices(np.abs(mask)), 255)
    np.testing.assert_array_equal(labels, expected)
    assert (found.scale, pixels.dtype) == (1000.0, image.dtype)
    assert found.grid.crs is not None
    # What `geoseg segment` gives the model there, in digital numbers.
    mean = np.array([485, 455.8, 406.4], np.float32)
    filled = mean if hidden == "nan" else mean.round()
    there = np.asarray(pixels[:, ~shown].T, np.float32)
    np.testing.assert_allclose(there, np.tile(filled, (250, 1)))
    np.testing.assert_array_equal(pixels[:, shown], image[:, shown])


def test_the_mean_of_no_data_stays_within_the_dtype(tmp_path: Path) -> None:
    image = np.full((3, 2, 2), 5, np.uint8)
    image[:, 0, 0] = 0
    found = scene(
        rasters.write_raster(tmp_path / "a.tif", image, nodata=0),
        rasters.write_raster(tmp_path / "m.tif", np.ones((2, 2), np.uint8)),
        scale=400.0,
        mean=[0.9, 0.5, -0.1],
    )
    pixels, labels, _ = found.read(found.grid.whole)
    assert pixels[:, 0, 0].tolist() == [255, 200, 0]
    assert labels.tolist() == [[IGNORE, 0], [0, 0]]


def test_a_class_counts_although_the_file_calls_it_nodata(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [2, 0]], np.uint8)
    labels = rasters.write_raster(tmp_path / "m.tif", mask, nodata=0)
    image = rasters.write_raster(tmp_path / "a.tif", np.ones((3, 2, 2), np.uint8))
    classes = [
        {"id": 0, "name": "other", "color": [9, 9, 9]},
        {"id": 1, "name": "water", "color": [0, 0, 9]},
    ]
    found = scene(image, labels, classes=classes, ignore=[2])
    assert found.read_labels(Window(0, 0, 2, 2)).tolist() == [[0, 1], [IGNORE, 0]]


@pytest.mark.parametrize(
    ("nodata", "ignore", "expected"),
    [
        (0, [], [0, 1, 1]),
        (0, ["#0a141e"], [IGNORE, 1, 1]),
        (1, [], [0, 1, 1]),
        # Black like all entries that are not used, but not the black of the table.
        (200, [], [0, 1, IGNORE]),
    ],
)
def test_a_colour_counts_although_its_place_in_the_palette_is_nodata(
    tmp_path: Path, nodata: int, ignore: list[str], expected: list[int]
) -> None:
    labels = rasters.write_raster(
        tmp_path / "m.tif", np.array([[0, 1, 200]], np.uint8), nodata=nodata
    )
    with rasterio.open(labels, "r+") as mask:
        mask.write_colormap(1, {0: (10, 20, 30, 255), 1: (0, 0, 0, 255)})
    image = rasters.write_raster(tmp_path / "a.tif", np.ones((3, 1, 3), np.uint8))
    code = "#ffffff" if ignore else "#0a141e"
    classes = [
        {"id": 1, "name": "other", "color": [10, 20, 30], "mask": [code]},
        {"id": 2, "name": "black", "color": [0, 0, 0], "mask": ["#000000"]},
    ]
    found = scene(image, labels, classes=classes, ignore=ignore)
    assert found.read_labels(Window(0, 0, 1, 3)).tolist() == [expected]


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (40, 49), "grid than .*: 40 x 49 pixels, not 40 x 50; .*warp it"),
        ({"crs": "EPSG:32632"}, (40, 50), r": CRS EPSG:32632, not EPSG:32631; warp"),
        (
            {"transform": rasters.NORTH_UP @ Affine.translation(3, 4)},
            (40, 50),
            ": corners up to 5 pixels off; warp",
        ),
        (
            {"transform": rasters.NORTH_UP @ Affine.scale(2)},
            (20, 25),
            ": 20 x 25 pixels, not 40 x 50; warp",
        ),
    ],
)
def test_masks_on_another_grid_are_refused(
    tmp_path: Path, changes: dict[str, Any], shape: tuple[int, int], message: str
) -> None:
    image = rasters.write_raster(tmp_path / "a.tif", np.ones((3, 40, 50), np.uint8))
    mask = np.ones(shape, np.uint8)
    with pytest.raises(SceneError, match=message):
        scene(image, rasters.write_raster(tmp_path / "m.tif", mask, **changes))
    # Many tools lose the place, and formats its last digits.
    for number, place in enumerate(
        [
            {"crs": None, "transform": Affine.identity()},
            {"transform": rasters.NORTH_UP @ Affine.translation(1e-4, 0)},
        ]
    ):
        path = tmp_path / f"same{number}.tif"
        rasters.write_raster(path, np.ones((40, 50), np.uint8), **place)  # type: ignore[arg-type]
        scene(image, path)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    labelled_files.write_pair(tmp_path, "a")
    image, mask = tmp_path / "images/a.png", tmp_path / "masks/a.png"
    broken = tmp_path / "broken.png"
    whole = image.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SceneError, match=r"broken\.png cannot be read"):
        scene(broken, mask).read(Window(0, 0, 40, 50))
    with pytest.raises(SceneError, match=r"broken\.png cannot be read"):
        scene(image, broken, unknown="ignore", ignore=[]).read(Window(0, 0, 40, 50))
    with pytest.raises(RadiometryError, match=r"has 1 band, .*data\.bands"):
        scene(mask, mask)
    with pytest.raises(SceneError, match=r"a\.png has 3 bands, .* names values"):
        scene(image, image).read(Window(0, 0, 40, 50))
    floats = rasters.write_raster(tmp_path / "f.tif", np.full((40, 50), 1.5))
    with pytest.raises(SceneError, match="holds fractions"):
        scene(image, floats).read(Window(0, 0, 40, 50))


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """Write an image of 60 x 80 pixels in UTM."""
    image = np.full((3, 60, 80), 50, np.uint8)
    return rasters.write_raster(tmp_path / "a.tif", image)


def squares(*places: tuple[float, float, float]) -> list[shapely.Polygon]:
    """Return squares (column, row, side), pixels of the image, in its CRS."""
    return [
        shapely.Polygon(
            [
                rasters.NORTH_UP @ corner
                for corner in [(c, r), (c + s, r), (c + s, r + s), (c, r + s)]
            ]
        )
        for c, r, s in places
    ]


def draw(path: Path, crs: str, **columns: Any) -> Path:  # noqa: ANN401
    """Write three squares, the third on the second, and a point, in some CRS."""
    shapes: list[shapely.Geometry] = []
    shapes += squares((5, 5, 20), (30, 10, 20), (40, 20, 20.4), (1000, 1000, 5))
    shapes.append(shapely.centroid(shapes[0]))
    frame = gpd.GeoDataFrame(columns, geometry=shapes, crs=rasters.UTM)
    if path.suffix == ".shp":  # Holds one kind of geometry.
        frame = frame[:-1]
    frame.to_crs(crs).to_file(path)
    return path


@pytest.mark.parametrize(
    ("name", "crs"),
    [
        ("l.gpkg", rasters.UTM),
        ("l.gpkg", "EPSG:3857"),
        ("l.geojson", "EPSG:4326"),
        ("l.shp", "EPSG:2154"),
        ("l.fgb", "EPSG:4326"),
    ],
)
def test_polygons_become_labels_where_they_lie(
    tmp_path: Path, ground: Path, name: str, crs: str
) -> None:
    kinds = ["water", "road", "land", "land", "road"]
    path = draw(tmp_path / name, crs, kind=kinds)
    found = scene(ground, path, vector={"class_column": "kind"})
    expected = rasterize(
        zip(squares((5, 5, 20), (30, 10, 20), (40, 20, 20.4)), [0, 2, 1], strict=True),
        out_shape=(60, 80),
        transform=rasters.NORTH_UP,
        fill=IGNORE,
        dtype="uint8",
    )
    labels = found.read_labels(found.grid.whole)
    np.testing.assert_array_equal(labels, expected)
    assert labels[25, 45] == 1  # the later one is on top
    np.testing.assert_array_equal(found.read(INNER)[1], expected[INNER.slices])
    far = found.read_labels(Window(0, 0, 3, 3))
    assert (far == IGNORE).all()
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(found)).read_labels(INNER), expected[INNER.slices]
    )


def test_background_and_one_class_for_all(tmp_path: Path, ground: Path) -> None:
    path = draw(tmp_path / "l.gpkg", "EPSG:4326")
    vector = {"class_name": "road", "background": "land"}
    found = scene(ground, path, vector=vector)
    labels = found.read_labels(found.grid.whole)
    assert np.unique(labels).tolist() == [1, 2]
    assert labels[10, 10] == 2


def test_values_of_the_column_without_a_meaning(tmp_path: Path, ground: Path) -> None:
    # Only polygons that touch the scene are looked at: the fourth does not.
    path = draw(tmp_path / "l.gpkg", "EPSG:4326", kind=[1, 3, 7, 3, 3])
    vector = {"class_column": "kind"}
    with pytest.raises(
        SceneError, match=r"l\.gpkg: 1 polygons .*table: 3 \(33.33%\); name them"
    ):
        scene(ground, path, vector=vector)
    with pytest.warns(
        GeosegWarning,
        match=r"l\.gpkg: 1 polygons .*table: 3 \(33.33%\); they count as no labels",
    ):
        found = scene(ground, path, vector=vector, unknown="ignore")
    assert np.unique(found.read_labels(found.grid.whole)).tolist() == [0, 2, IGNORE]


def test_vectors_that_cannot_be_used_are_named(tmp_path: Path, ground: Path) -> None:
    path = draw(tmp_path / "l.gpkg", "EPSG:4326", kind=["water"] * 5)
    with pytest.raises(SceneError, match=r"no column sort in its layer l, only kind"):
        scene(ground, path, vector={"class_column": "sort"})
    with pytest.raises(ConfigError, match=r"set data\.vector\.class_column to"):
        scene(ground, path)
    with pytest.raises(ConfigError, match=r"class_name is 'lava', which is no class; "):
        scene(ground, path, vector={"class_name": "lava"})
    with pytest.raises(ConfigError, match=r"vector\.background is 'sea', which is no"):
        scene(ground, path, vector={"class_column": "kind", "background": "sea"})
    both = {"class_column": "kind", "class_name": "road"}
    with pytest.raises(ConfigError, match=r"column kind .* all are road; set .* null"):
        scene(ground, path, vector=both)
    with pytest.raises(SceneError, match=r"l\.gpkg cannot be read: .*nine"):
        scene(ground, path, vector={"class_name": "road", "layer": "nine"})
    moon = gpd.GeoDataFrame(
        geometry=[shapely.box(0, 0, 9, 9)], crs="+proj=eqc +R=1737400 +units=m"
    )
    moon.to_file(tmp_path / "moon.gpkg")
    with pytest.raises(SceneError, match=r"no way leads from the CRS of .*moon\.gpkg"):
        scene(ground, tmp_path / "moon.gpkg", vector={"class_name": "road"})
    (tmp_path / "broken.geojson").write_text("{")
    with pytest.raises(SceneError, match=r"broken\.geojson cannot be read"):
        scene(ground, tmp_path / "broken.geojson", vector={"class_name": "road"})
    labelled_files.write_pair(tmp_path, "p")
    with pytest.raises(SceneError, match="has a CRS and the scene has none"):
        scene(tmp_path / "images/p.png", path, vector={"class_name": "road"})


def test_reads_no_more_than_the_window_asks_for(tmp_path: Path) -> None:
    # A terabyte, if it were held: sparse blocks take no room in the file.
    profile = {"driver": "GTiff", "height": 600_000, "width": 600_000}
    profile |= {"tiled": True, "sparse_ok": True, "bigtiff": True, "dtype": "uint8"}
    profile |= {"blockxsize": 4096, "blockysize": 4096, "crs": rasters.UTM}
    for name, count in (("a.tif", 3), ("m.tif", 1)):
        with rasterio.open(
            tmp_path / name, "w", count=count, transform=rasters.NORTH_UP, **profile
        ):
            pass
    found = scene(tmp_path / "a.tif", tmp_path / "m.tif")
    image, labels, _ = found.read(Window(400_000, 400_000, 64, 64))
    assert (image.shape, labels.shape) == ((3, 64, 64), (64, 64))
