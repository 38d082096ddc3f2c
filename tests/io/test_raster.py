from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasters import GRIDS, NORTH_UP, rgb_spec, write_raster
from strategies import windows

from geoseg.errors import GeosegWarning, SceneError, UsageError
from geoseg.grid import Window
from geoseg.io import raster
from geoseg.io.raster import Pixels, Scene, SceneReader, open_scene
from geoseg.io.resolution import Resolution

HEIGHT, WIDTH = 23, 31


def noise(dtype: str = "uint8", bands: int = 3) -> npt.NDArray[Any]:
    """Return pixels of 1 to 254."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 255, (bands, HEIGHT, WIDTH)).astype(dtype)


def hole() -> npt.NDArray[np.bool_]:
    """Return true where there is data: a collar and a hole are missing."""
    valid = np.zeros((HEIGHT, WIDTH), bool)
    valid[2:-3, 4:-1] = True
    valid[10:14, 12:20] = False
    return valid


def read(scene: Scene, window: Window | None = None) -> Pixels:
    with SceneReader(scene) as reader:
        return reader.read(window or scene.grid.whole)


@pytest.mark.parametrize("name", GRIDS)
def test_a_scene_keeps_its_grid_and_its_pixels(tmp_path: Path, name: str) -> None:
    crs, transform = GRIDS[name]
    pixels = noise()
    path = write_raster(tmp_path / "a.tif", pixels, crs=crs, transform=transform)
    scene = open_scene(path, rgb_spec())
    assert scene.grid == scene.source
    assert scene.grid.shape == (HEIGHT, WIDTH)
    assert scene.grid.transform.almost_equals(transform, 1e-9)
    got = read(scene)
    assert got.values.dtype == np.uint8
    assert (got.values == pixels).all()
    assert got.valid.all()
    assert got.keep.all()


@given(data=st.data())
def test_a_window_has_the_pixels_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("scene") / "a.tif"
    write_raster(path, noise(), mask=hole(), tiled=True, blockxsize=16, blockysize=16)
    choices: list[Resolution] = ["native", 0.2, 0.52, 0.8, 1.9]
    resolution = data.draw(st.sampled_from(choices))
    scene = open_scene(path, rgb_spec(), resolution=resolution)
    whole = read(scene)
    window = data.draw(windows(scene.grid.height, scene.grid.width))
    part = read(scene, window)
    rows, cols = window.slices
    assert part.values.tobytes() == whole.values[:, rows, cols].tobytes()
    assert (part.valid == whole.valid[rows, cols]).all()


def test_strips_change_memory_and_not_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster(tmp_path / "a.tif", noise(), mask=hole(), blockysize=4)
    scene = open_scene(path, rgb_spec(), resolution=0.8)
    whole = read(scene)
    for pixels in (1, 4 * WIDTH, 7 * WIDTH):
        monkeypatch.setattr(raster, "_STRIP_PIXELS", pixels)
        assert read(scene).values.tobytes() == whole.values.tobytes()


HIDERS = ["nodata 0", "nodata 255", "nodata nan", "alpha", "mask", "nan", "inf"]


def hide(path: Path, kind: str, fill: float) -> Path:
    """Write noise with the hole hidden by `kind`; `fill` is what lies below."""
    valid = hole()
    pixels = noise("float32" if kind[-3:] in {"nan", "inf"} else "uint8")
    if kind.startswith("nodata") and kind != "nodata nan":
        nodata = float(kind.split()[1])
        return write_raster(path, np.where(valid, pixels, nodata), nodata=nodata)
    if kind == "nodata nan":
        return write_raster(path, np.where(valid, pixels, np.nan), nodata=np.nan)
    if kind in {"nan", "inf"}:
        pixels[1][~valid] = float(kind)  # One band is enough.
        pixels[0][~valid] = fill
        return write_raster(path, pixels)
    pixels[:, ~valid] = fill
    if kind == "alpha":
        return write_raster(path, pixels, alpha=valid)
    return write_raster(path, pixels, mask=valid)


@pytest.mark.parametrize("kind", HIDERS)
@pytest.mark.parametrize("resolution", ["native", 0.9, 0.3])
def test_hidden_pixels_are_invalid_and_what_they_hid_is_gone(
    tmp_path: Path, kind: str, resolution: Resolution
) -> None:
    results = []
    for fill in (0, 99, 255):
        path = hide(tmp_path / f"{fill}.tif", kind, fill)
        scene = open_scene(path, rgb_spec(), resolution=resolution, scale=255)
        results.append(read(scene))
    if resolution == "native":
        assert (results[0].valid == hole()).all()
        assert (results[0].values[:, hole()] == noise()[:, hole()]).all()
    for result in results:
        assert 0 < result.valid.sum() < result.valid.size
        assert (result.values[:, ~result.valid] == 0).all()
        assert result.values.tobytes() == results[0].values.tobytes()
        assert (result.valid == results[0].valid).all()


def test_one_band_at_nodata_does_not_hide_a_pixel(tmp_path: Path) -> None:
    pixels = noise()
    pixels[0] = 0
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0)
    assert read(open_scene(path, rgb_spec())).valid.all()
    alone = open_scene(path, rgb_spec(), bands=(1, 1, 1))
    assert not read(alone).valid.any(), "every band in use is nodata"


def test_a_list_of_nodata_values_hides_until_another_one_is_given(
    tmp_path: Path,
) -> None:
    pixels = noise()
    pixels[:, ~hole()] = np.array([1, 2, 3], np.uint8)[:, None]
    pixels[:, 5, 6] = (1, 2, 4)
    path = write_raster(tmp_path / "a.tif", pixels, tags={"NODATA_VALUES": "1 2 3"})
    assert (read(open_scene(path, rgb_spec())).valid == hole()).all()
    given = open_scene(path, rgb_spec(), nodata=0)
    assert read(given).valid.all()


def test_alpha_beside_a_mask_and_a_nodata_value_counts(tmp_path: Path) -> None:
    pixels, alpha, mask = noise(), hole(), np.ones((HEIGHT, WIDTH), np.bool_)
    mask[5, 6:9] = False
    pixels[:, 7, 8] = 0
    path = write_raster(tmp_path / "a.tif", pixels, alpha=alpha, mask=mask)
    valid = alpha & mask
    assert (read(open_scene(path, rgb_spec())).valid == valid).all()
    valid[7, 8] = False
    assert (read(open_scene(path, rgb_spec(), nodata=0)).valid == valid).all()


def test_nodata_given_replaces_the_nodata_of_the_file(tmp_path: Path) -> None:
    pixels = noise()
    pixels[:, 0] = 7
    pixels[:, 1] = 0
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0)
    valid = read(open_scene(path, rgb_spec(), nodata=7)).valid
    assert not valid[0].any()
    assert valid[1:].all()


@pytest.mark.parametrize("nodata", [-9999.0, 256.0, 0.5, np.nan])
def test_nodata_that_no_pixel_can_hold_hides_nothing(
    tmp_path: Path, nodata: float
) -> None:
    path = write_raster(tmp_path / "a.tif", noise())
    assert read(open_scene(path, rgb_spec(), nodata=nodata)).valid.all()


def test_nodata_is_compared_as_the_pixels_are_stored(tmp_path: Path) -> None:
    pixels = noise("float32")
    pixels[:, 0] = -3.4028235e38  # float32's lowest; its decimal text is not exact
    path = write_raster(tmp_path / "a.tif", pixels, nodata=-3.4028234663852886e38)
    valid = read(open_scene(path, rgb_spec(), scale=255)).valid
    assert not valid[0].any()
    assert valid[1:].all()


def test_different_nodata_of_bands_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise())
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        f"<NoDataValue>{band}</NoDataValue><SimpleSource>"
        f"<SourceFilename>{path}</SourceFilename><SourceBand>{band}</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    vrt = tmp_path / "a.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">'
        f"<SRS>EPSG:32631</SRS><GeoTransform>0, 1, 0, 0, 0, -1</GeoTransform>{bands}"
        "</VRTDataset>"
    )
    with pytest.raises(SceneError, match="--nodata"):
        open_scene(vrt, rgb_spec())
    scene = open_scene(vrt, rgb_spec(), nodata=0)
    assert (read(scene).values == noise()).all()


@pytest.mark.parametrize("name", GRIDS)
def test_a_much_finer_scene_is_resampled_from_its_corner(
    tmp_path: Path, name: str
) -> None:
    crs, transform = GRIDS[name]
    path = write_raster(tmp_path / "a.tif", noise(), crs=crs, transform=transform)
    scene = open_scene(path, rgb_spec(resolution=1.2))
    ground = scene.grid.ground_resolution()
    assert ground == pytest.approx(1.2, rel=1e-3)
    assert scene.grid.transform @ (0, 0) == pytest.approx(transform @ (0, 0))
    assert scene.grid.height < HEIGHT
    got = read(scene)
    assert got.values.dtype == np.float32
    assert got.values.shape == (3, *scene.grid.shape)


def test_neighbouring_scenes_are_resampled_to_pixels_of_one_size(
    tmp_path: Path,
) -> None:
    for resolution, factor in ((1.5, 3), (2.0, 4), (1.26, 2.519)):
        for north in range(3):
            place = Affine.translation(0, 40_000 * north) @ NORTH_UP
            path = write_raster(tmp_path / "a.tif", noise(), transform=place)
            grid = open_scene(path, rgb_spec(resolution=resolution)).grid
            assert grid.pixel_size == (0.5 * factor, 0.5 * factor)


def test_a_scene_within_the_tolerance_runs_as_it_is(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise())
    for resolution in (0.35, 0.5, 0.74):
        scene = open_scene(path, rgb_spec(resolution=resolution))
        assert scene.grid == scene.source


def test_a_coarser_scene_runs_as_it_is_with_a_warning(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise())
    with pytest.warns(GeosegWarning, match="results may be poor"):
        scene = open_scene(path, rgb_spec(resolution=0.1))
    assert scene.grid == scene.source


def test_native_and_metres_override_the_model(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise())
    spec = rgb_spec(resolution=5)
    assert open_scene(path, spec, resolution="native").grid.shape == (HEIGHT, WIDTH)
    finer = open_scene(path, spec, resolution=0.25)
    assert finer.grid.shape == (2 * HEIGHT, 2 * WIDTH)
    same = open_scene(path, spec, resolution=0.5)
    assert same.grid == same.source, "0.5 m in the map is 0.5002 m on the ground"


@pytest.mark.parametrize("resolution", [0.0, -1.0, np.nan])
def test_a_resolution_must_be_a_length(tmp_path: Path, resolution: float) -> None:
    path = write_raster(tmp_path / "a.tif", noise())
    with pytest.raises(UsageError, match="metres above 0"):
        open_scene(path, rgb_spec(), resolution=resolution)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [(None, NORTH_UP), ("EPSG:32631", Affine.identity()), (None, Affine.identity())],
)
def test_without_a_crs_a_scene_runs_as_it_is_with_a_warning(
    tmp_path: Path, crs: str | None, transform: Affine
) -> None:
    path = tmp_path / "a.tif"
    write_raster(path, noise(), crs=crs, transform=transform)
    with pytest.warns(GeosegWarning, match="areas are in pixels") as caught:
        scene = open_scene(path, rgb_spec(resolution=5))
    assert len(caught) == 1, "rasterio's own warning says the same"
    assert scene.grid == scene.source
    assert scene.grid.crs is None
    assert (read(scene).values == noise()).all()


def test_metres_without_a_crs_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise(), crs=None)
    with pytest.warns(GeosegWarning), pytest.raises(SceneError, match="not tied"):
        open_scene(path, rgb_spec(), resolution=1.0)


def test_pixels_of_no_size_are_refused(tmp_path: Path) -> None:
    flat = Affine(0.5, 0, 5e5, 0, 0, 5e6)
    path = write_raster(tmp_path / "a.tif", noise(), transform=flat)
    with pytest.raises(SceneError, match="no size"):
        open_scene(path, rgb_spec())


def test_a_missing_file_and_a_file_of_text_are_scene_errors(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="does not exist"):
        open_scene(tmp_path / "missing.tif", rgb_spec())
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    with pytest.raises(SceneError, match=r"text.tif cannot be read.*gdalinfo"):
        open_scene(text, rgb_spec())


def test_a_file_cut_short_is_a_scene_error_when_it_is_read(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise(), compress="deflate", blockysize=2)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(SceneError, match=r"a.tif cannot be read"):
        read(open_scene(path, rgb_spec()))


def test_a_picture_cut_short_is_no_scene_of_whatever_lay_in_memory(
    tmp_path: Path,
) -> None:
    # Read at one go, GDAL's driver would not notice.
    path = tmp_path / "a.png"
    Image.fromarray(noise().transpose(1, 2, 0)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with (
        pytest.warns(GeosegWarning, match="no CRS"),
        pytest.raises(SceneError, match=r"a.png cannot be read"),
    ):
        read(open_scene(path, rgb_spec()))


def test_paths_are_absolute_for_workers_in_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raster(tmp_path / "a.tif", noise())
    monkeypatch.chdir(tmp_path)
    scene = open_scene("a.tif", rgb_spec())
    monkeypatch.chdir("/")
    assert scene.path == str(tmp_path / "a.tif")
    assert read(scene).valid.all()


def test_sidecars_are_seen(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif", noise(), crs=None, transform=Affine.identity()
    )
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32631</SRS>"
        "<GeoTransform>500000, 0.5, 0, 5800000, 0, -0.5</GeoTransform></PAMDataset>"
    )
    scene = open_scene(path, rgb_spec())
    assert scene.grid.crs is not None
    assert scene.grid.transform.c == 500000


@pytest.mark.parametrize(
    ("tag", "acquired"),
    [
        ("2018:07:16 06:06:23", "2018-07-16T06:06:23Z"),
        ("yesterday", None),
        ("", None),
    ],
)
def test_the_time_of_the_image_is_read_where_it_can_be(
    tmp_path: Path, tag: str, acquired: str | None
) -> None:
    path = write_raster(tmp_path / "a.tif", noise(), tags={"TIFFTAG_DATETIME": tag})
    assert open_scene(path, rgb_spec()).acquired == acquired


@pytest.mark.parametrize("times", [8, 100])
def test_a_resolution_finer_than_sense_is_refused(tmp_path: Path, times: int) -> None:
    path = write_raster(tmp_path / "a.tif", noise())
    with pytest.raises(SceneError, match=r"times finer; pass a --resolution above"):
        open_scene(path, rgb_spec(), resolution=0.5 / times)
    assert open_scene(path, rgb_spec(), resolution=0.5 / 7).grid.height == 7 * HEIGHT


def test_the_finest_resolution_that_is_told_is_taken(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise())
    with pytest.raises(SceneError) as refused:
        open_scene(path, rgb_spec(), resolution=0.5 / 7.98)
    told = re.search(r"above (\S+) metres", str(refused.value))
    assert told is not None
    finest = float(told[1])
    assert finest > 0.5 / 7.98
    assert open_scene(path, rgb_spec(), resolution=finest * 1.001).grid.height > 0
