from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasters import CLASSES, GRIDS, NORTH_UP, UTM

from geoseg.grid import Grid, Window
from geoseg.io import cog
from geoseg.io.cog import ScratchRaster, write_cog

IDS = np.array([info.id for info in CLASSES], np.uint8)


def class_mask(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return patches of the classes with nodata in a corner."""
    rng = np.random.default_rng(0)
    patches = IDS[rng.integers(0, len(IDS), (-(-height // 5), -(-width // 5)))]
    mask = np.kron(patches, np.ones((5, 5), np.uint8))[:height, :width].copy()
    mask[: height // 3, : width // 3] = 255
    return mask


def grid_of(
    shape: tuple[int, int], crs: str | None = UTM, transform: Affine = NORTH_UP
) -> Grid:
    return Grid(*shape, transform, None if crs is None else pyproj.CRS(crs).to_wkt())


def make(
    folder: Path,
    pixels: npt.NDArray[np.uint8],
    grid: Grid,
    **options: Any,  # noqa: ANN401
) -> Path:
    """Write a class mask through scratch to COG."""
    with ScratchRaster(folder / "scratch.tif", pixels.shape) as scratch:
        scratch.write(Window(0, 0, *pixels.shape), pixels)
    path = folder / "classes.tif"
    options = {"classes": CLASSES, "tags": {"GEOSEG_VERSION": "1 <&> é"}, **options}
    write_cog(scratch.path, path, grid=grid, **options)
    return path


@pytest.mark.parametrize("name", GRIDS)
def test_a_class_mask_is_a_cog_on_its_grid(tmp_path: Path, name: str) -> None:
    crs, transform = GRIDS[name]
    mask = class_mask(40, 55)
    with rasterio.open(
        make(tmp_path, mask, grid_of(mask.shape, crs, transform))
    ) as got:
        assert got.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert got.profile["blockxsize"] == 512
        assert got.transform.almost_equals(transform, 1e-9)
        assert got.crs == rasterio.CRS.from_string(crs)
        assert (got.dtypes, got.nodata) == (("uint8",), 255)
        assert got.tags()["GEOSEG_VERSION"] == "1 <&> é"
        assert (got.read(1) == mask).all()


def test_classes_have_their_colours_and_names(tmp_path: Path) -> None:
    mask = class_mask(20, 20)
    path = make(tmp_path, mask, grid_of(mask.shape))
    with rasterio.open(path) as got:
        assert got.colorinterp == (ColorInterp.palette,)
        colors = got.colormap(1)
    for info in CLASSES:
        assert colors[info.id] == (*info.color, 255)
    assert colors[255][3] == 0, "nodata is transparent"
    assert category_names(path) == {info.id: info.name for info in CLASSES}


def category_names(path: Path) -> dict[int, str]:
    """Return the names that GDAL reads, through a VRT made of the file by GDAL."""
    import xml.etree.ElementTree as ET

    import rasterio.shutil

    vrt = path.with_suffix(".vrt")
    rasterio.shutil.copy(path, vrt, driver="VRT")
    names = ET.parse(vrt).findall(".//CategoryNames/Category")
    return {value: name.text for value, name in enumerate(names) if name.text}


def test_overviews_hold_the_most_frequent_class(tmp_path: Path) -> None:
    mask = class_mask(600, 1030)
    path = make(tmp_path, mask, grid_of(mask.shape))
    with rasterio.open(path) as got:
        assert got.overviews(1) == [2, 4]
    with rasterio.open(path, overview_level=0) as got:
        overview = got.read(1)
    blocks = mask.reshape(300, 2, 515, 2).transpose(0, 2, 1, 3).reshape(300, 515, 4)
    counts = (blocks[..., None] == IDS).sum(axis=2)
    chosen = (overview[..., None] == IDS) * counts
    # Any of several equally frequent classes; nodata only where nothing else is.
    assert (chosen.max(axis=-1) == counts.max(axis=-1)).all()
    assert ((overview == 255) == (counts.sum(axis=-1) == 0)).all()


def test_confidence_has_mean_overviews_without_nodata(tmp_path: Path) -> None:
    percent = np.full((600, 1000), 40, np.uint8)
    percent[:, ::2] = 80
    percent[1::2] = 255
    percent[:100] = 255
    path = make(tmp_path, percent, grid_of(percent.shape), classes=None)
    assert not path.with_name("classes.tif.aux.xml").exists()
    with rasterio.open(path) as got:
        assert (got.read(1) == percent).all()
        assert got.colorinterp == (ColorInterp.gray,)
    with rasterio.open(path, overview_level=0) as got:
        overview = got.read(1)
    assert (overview[:50] == 255).all()
    assert (overview[50:] == 60).all()


def test_parts_may_come_in_any_order_and_leave_holes(tmp_path: Path) -> None:
    mask = class_mask(700, 1200)
    parts = [Window(0, 0, 300, 700), Window(0, 700, 650, 500), Window(300, 0, 350, 700)]
    for order in (parts, parts[::-1]):
        with ScratchRaster(tmp_path / "scratch.tif", mask.shape) as scratch:
            for window in order:
                scratch.write(window, mask[window.slices])
        path = tmp_path / "classes.tif"
        grid = grid_of(mask.shape)
        write_cog(scratch.path, path, grid=grid, classes=CLASSES, tags={})
        with rasterio.open(path) as got:
            pixels = got.read(1)
        assert (pixels[:650] == mask[:650]).all()
        assert (pixels[650:] == 255).all(), "nothing was written here"


@pytest.mark.parametrize("crs", [UTM, None])
@pytest.mark.parametrize("transform", [NORTH_UP, Affine.identity()])
def test_a_raster_of_one_pixel_works_with_and_without_a_crs(
    tmp_path: Path, crs: str | None, transform: Affine
) -> None:
    mask = np.full((1, 1), 7, np.uint8)
    path = make(tmp_path, mask, grid_of((1, 1), crs, transform))
    vrt_free = [item for item in path.parent.iterdir() if item.name.startswith(".")]
    assert vrt_free == []
    if not transform.is_identity:  # Otherwise rasterio warns, and rightly.
        with rasterio.open(path) as got:
            assert got.read(1).tolist() == [[7]]
            assert (got.crs is None) == (crs is None)
            assert got.transform.almost_equals(transform, 1e-9)


def test_the_sidecar_is_in_place_before_the_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = class_mask(20, 20)
    order: list[str] = []
    rename = Path.replace

    def spy(self: Path, target: os.PathLike[str]) -> Path:
        order.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    make(tmp_path, mask, grid_of(mask.shape))
    assert order == ["classes.tif.aux.xml", "classes.tif"]


def test_a_failed_copy_keeps_the_old_mask_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = class_mask(20, 20)
    path = make(tmp_path, mask, grid_of(mask.shape))
    before = {item: item.read_bytes() for item in tmp_path.iterdir()}

    def fail(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(cog, "publish", fail)
    with pytest.raises(OSError, match="no space"):
        write_cog(
            tmp_path / "scratch.tif",
            path,
            grid=grid_of(mask.shape),
            classes=CLASSES[:2],
            tags={},
        )
    assert {item: item.read_bytes() for item in tmp_path.iterdir()} == before


def test_a_sidecar_of_an_older_raster_is_removed(tmp_path: Path) -> None:
    mask = class_mask(20, 20)
    grid = grid_of(mask.shape)
    path = make(tmp_path, mask, grid)
    assert path.with_name("classes.tif.aux.xml").exists()
    make(tmp_path, mask, grid, classes=None)
    assert not path.with_name("classes.tif.aux.xml").exists()
