from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasters import CLASSES, GRIDS, NORTH_UP, UTM, write_mask

from geoseg.grid import Grid, Window
from geoseg.io import cog
from geoseg.io.cog import write_cog
from geoseg.io.mosaic import Part
from geoseg.io.scratch import write_scratch
from geoseg.types import ClassInfo

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
    classes: Sequence[ClassInfo] | None = CLASSES,
) -> Path:
    """Write a class mask."""
    tags = {"GEOSEG_VERSION": "1 <&> é"}
    return write_mask(folder / "classes.tif", pixels, grid, classes, tags)


def write_parts(
    folder: Path, mask: npt.NDArray[np.uint8], windows: Sequence[Window]
) -> list[Part]:
    """Write a file for each window."""
    parts = [Part(folder / f"{i}.tif", window) for i, window in enumerate(windows)]
    for part in parts:
        write_scratch(part.path, mask[part.window.slices], packed=True)
    return parts


def join(
    folder: Path,
    mask: npt.NDArray[np.uint8],
    parts: Sequence[Part],
    classes: Sequence[ClassInfo] | None = CLASSES,
) -> Path:
    """Join parts of a mask, or of a confidence raster without classes."""
    path, tags = folder / "joined.tif", {"GEOSEG_VERSION": "1 <&> é"}
    grid = grid_of(mask.shape)
    write_cog(parts, path, grid=grid, classes=classes, tags=tags, work=folder)
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
    mask[650:] = 255
    windows = [
        Window(0, 0, 300, 700),
        Window(0, 700, 650, 500),
        Window(300, 0, 350, 700),
    ]
    parts = write_parts(tmp_path, mask, windows)
    files = set()
    for order in (parts, parts[::-1]):
        path = join(tmp_path, mask, order)
        with rasterio.open(path) as got:
            assert (got.read(1) == mask).all()
        files.add(path.read_bytes())
    files.add(make(tmp_path, mask, grid_of(mask.shape)).read_bytes())
    assert len(files) == 1, "the same bytes however the mask was cut"


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
    part = Part(tmp_path / "work" / "part.tif", Window(0, 0, *mask.shape))
    part.path.parent.mkdir()
    write_scratch(part.path, mask, packed=True)
    with pytest.raises(OSError, match="no space"):
        write_cog(
            [part],
            path,
            grid=grid_of(mask.shape),
            classes=CLASSES[:2],
            tags={},
            work=part.path.parent,
        )
    assert [*part.path.parent.iterdir()] == [part.path]
    shutil.rmtree(part.path.parent)
    assert {item: item.read_bytes() for item in tmp_path.iterdir()} == before


def test_a_sidecar_of_an_older_raster_is_removed(tmp_path: Path) -> None:
    mask = class_mask(20, 20)
    grid = grid_of(mask.shape)
    path = make(tmp_path, mask, grid)
    assert path.with_name("classes.tif.aux.xml").exists()
    make(tmp_path, mask, grid, classes=None)
    assert not path.with_name("classes.tif.aux.xml").exists()


def test_a_part_that_is_gone_is_named(tmp_path: Path) -> None:
    mask = class_mask(20, 20)
    [part] = write_parts(tmp_path, mask, [Window(0, 0, 20, 20)])
    part.path.unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.tif"):
        join(tmp_path, mask, [part])


def test_a_part_that_is_damaged_leaves_nothing(tmp_path: Path) -> None:
    mask = class_mask(900, 900)
    [part] = write_parts(tmp_path, mask, [Window(0, 0, 900, 900)])
    content = part.path.read_bytes()
    part.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(OSError, match="GDAL"):
        join(tmp_path, mask, [part])
    assert [*tmp_path.iterdir()] == [part.path]


@pytest.mark.parametrize("classes", [CLASSES, None])
@pytest.mark.parametrize("shape", [(1, 1), (513, 1), (700, 1300), (1025, 1024)])
def test_gdal_finds_nothing_to_say_of_a_cog(
    tmp_path: Path, classes: Sequence[ClassInfo] | None, shape: tuple[int, int]
) -> None:
    validator = Path("/usr/bin/python3"), "osgeo_utils.samples"
    module = f"{validator[1]}.validate_cloud_optimized_geotiff"
    found = [str(validator[0]), "-c", f"import {module}"]
    if (
        not validator[0].exists()
        or subprocess.run(found, capture_output=True, check=False).returncode
    ):
        pytest.skip("GDAL's validator is absent; apt-get install python3-gdal")
    mask = class_mask(*shape)
    path = make(tmp_path, mask, grid_of(mask.shape), classes)
    command = [str(validator[0]), "-m", module, "--full-check=yes", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "is a valid cloud optimized GeoTIFF" in done.stdout
    assert "warning" not in done.stdout


def test_a_disk_that_fills_at_any_point_leaves_no_raster(tmp_path: Path) -> None:
    """GDAL says nothing of what it still holds when it closes the file."""
    mask = np.random.default_rng(0).integers(0, 100, (700, 900), dtype=np.uint8)
    parts = write_parts(tmp_path, mask, [Window(0, 0, *mask.shape)])
    size = join(tmp_path, mask, parts, None).stat().st_size
    disk = tmp_path / "disk"
    disk.mkdir()
    failed = 0
    rooms = np.linspace(0.05 * size, 1.2 * size, 24)
    for room in rooms:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={int(room)}", "tmpfs", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no tmpfs can be mounted here")
        try:
            write_cog(
                parts,
                disk / "a.tif",
                grid=grid_of(mask.shape),
                classes=None,
                tags={},
                work=tmp_path,
            )
        except OSError:
            failed += 1
            assert list(disk.iterdir()) == []
        else:
            with rasterio.open(disk / "a.tif") as got:
                assert (got.read(1) == mask).all()
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    assert 0 < failed < len(rooms), "too small at first, large enough at last"
