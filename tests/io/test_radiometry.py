from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasters import NORTH_UP, rgb_spec, write_raster

from geoseg.errors import RadiometryError, SceneError, UsageError
from geoseg.io.radiometry import band_names
from geoseg.io.raster import SceneReader, open_scene


def pixels(bands: int, dtype: str = "uint8") -> npt.NDArray[Any]:
    """Return bands whose every pixel is the band's number, 10 apart."""
    values = np.arange(1, bands + 1)[:, None, None] * 10
    return np.broadcast_to(values, (bands, 4, 6)).astype(dtype)


def test_three_bands_fit_a_model_of_three_bands(tmp_path: Path) -> None:
    scene = open_scene(write_raster(tmp_path / "a.tif", pixels(3)), rgb_spec())
    assert (scene.bands, scene.dtype, scene.scale) == ((1, 2, 3), "uint8", 255.0)
    assert scene.alpha is None


def test_an_alpha_band_is_found_and_not_read_as_data(tmp_path: Path) -> None:
    opaque = np.ones((4, 6), bool)
    path = write_raster(tmp_path / "a.tif", pixels(3), alpha=opaque)
    scene = open_scene(path, rgb_spec())
    assert scene.bands == (1, 2, 3)
    assert scene.alpha == 4


def test_an_alpha_band_that_is_read_as_data_hides_nothing(tmp_path: Path) -> None:
    alpha = np.zeros((4, 6), bool)
    path = write_raster(tmp_path / "a.tif", pixels(3), alpha=alpha)
    scene = open_scene(path, rgb_spec(), bands=[1, 2, 4])
    assert scene.alpha is None
    with SceneReader(scene) as reader:
        assert reader.read(scene.grid.whole).valid.all()


@pytest.mark.parametrize(
    ("count", "example"), [(1, "1,1,1"), (2, "1,2,2"), (4, "1,2,3")]
)
def test_other_numbers_of_bands_are_refused_with_the_option_to_use(
    tmp_path: Path, count: int, example: str
) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(count))
    with pytest.raises(RadiometryError, match=rf"takes 3 .*--bands {example}"):
        open_scene(path, rgb_spec())


def test_two_bands_with_alpha_do_not_fit_a_model_of_three(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(2), alpha=np.ones((4, 6), bool))
    with pytest.raises(RadiometryError, match="1 of them alpha"):
        open_scene(path, rgb_spec())


@pytest.mark.parametrize("bands", [(3, 2, 1), (1, 1, 1), (4, 1, 4), (2, 3, 4)])
def test_bands_are_read_in_the_order_given(
    tmp_path: Path, bands: tuple[int, ...]
) -> None:
    scene = open_scene(
        write_raster(tmp_path / "a.tif", pixels(4)), rgb_spec(), bands=bands
    )
    with SceneReader(scene) as reader:
        values = reader.read(scene.grid.whole).values
    assert values[:, 0, 0].tolist() == [10 * band for band in bands]


@pytest.mark.parametrize("bands", [(1, 2), (1, 2, 3, 4), (0, 1, 2), ()])
def test_bands_that_fit_no_scene_are_wrong_usage(
    tmp_path: Path, bands: tuple[int, ...]
) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(4))
    with pytest.raises(UsageError, match="--bands"):
        open_scene(path, rgb_spec(), bands=bands)


def test_colours_in_another_order_are_put_into_the_models(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(3), alpha=np.ones((4, 6), bool))
    red, green, blue = ColorInterp.red, ColorInterp.green, ColorInterp.blue
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [blue, green, red, ColorInterp.alpha]
    assert open_scene(path, rgb_spec()).bands == (3, 2, 1)
    assert open_scene(path, rgb_spec(), bands=(1, 2, 3)).bands == (1, 2, 3)
    other = rgb_spec(bands=("nir", "red", "green"))
    assert open_scene(path, other).bands == (1, 2, 3)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [blue, red, red, ColorInterp.alpha]
    assert open_scene(path, rgb_spec()).bands == (1, 2, 3)


@pytest.mark.parametrize("bands", [(1, 2, 5), (7, 1, 1)])
def test_bands_that_cannot_be_are_refused(
    tmp_path: Path, bands: tuple[int, ...]
) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(4))
    with pytest.raises(RadiometryError, match="--bands"):
        open_scene(path, rgb_spec(), bands=bands)


def test_a_palette_is_refused_with_the_way_to_expand_it(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(1))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.palette]
        dataset.write_colormap(1, {1: (1, 2, 3)})
    with pytest.raises(RadiometryError, match="-expand rgb"):
        open_scene(path, rgb_spec())


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_a_dtype_the_model_does_not_declare_needs_a_scale(
    tmp_path: Path, dtype: str
) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(3, dtype))
    with pytest.raises(RadiometryError, match=f"{dtype} pixels.*--scale 10000"):
        open_scene(path, rgb_spec())
    scene = open_scene(path, rgb_spec(), scale=10000)
    assert (scene.dtype, scene.scale) == (dtype, 10000.0)


def test_complex_pixels_are_refused_even_with_a_scale(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(3, "complex64"))
    with pytest.raises(RadiometryError, match="complex64"):
        open_scene(path, rgb_spec(), scale=1)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_must_be_a_positive_number(tmp_path: Path, scale: float) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(3))
    with pytest.raises(UsageError, match="positive"):
        open_scene(path, rgb_spec(), scale=scale)


def test_a_container_of_rasters_is_refused_with_the_name_of_one(tmp_path: Path) -> None:
    path = tmp_path / "two.gpkg"
    for name in ("first", "second"):
        with rasterio.open(
            path,
            "w",
            driver="GPKG",
            height=4,
            width=6,
            count=3,
            dtype="uint8",
            crs="EPSG:3857",
            transform=NORTH_UP,
            raster_table=name,
            append_subdataset="YES" if path.exists() else "NO",
        ) as dataset:
            dataset.write(pixels(3))
    with pytest.raises(SceneError, match=r"gdal_translate \S*first\S* out.tif"):
        open_scene(path, rgb_spec())


def test_a_model_of_chosen_bands_gets_the_same(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(4))
    chosen = rgb_spec(bands=band_names([4, 3, 2], 3))
    assert chosen.bands == ("band 4", "band 3", "band 2")
    assert open_scene(path, chosen).bands == (4, 3, 2)
    assert open_scene(path, chosen, bands=[1, 2, 3]).bands == (1, 2, 3)
    three = write_raster(tmp_path / "b.tif", pixels(3))
    assert open_scene(three, rgb_spec(bands=band_names([3, 2, 1], 3))).bands == (
        3,
        2,
        1,
    )
    told = r"has 3 bands, and model toy was trained on bands 4, 3, 2 .* --bands"
    with pytest.raises(RadiometryError, match=told):
        open_scene(three, chosen)


@pytest.mark.parametrize("bands", [None, (1, 2, 3, 4)])
def test_bands_that_are_only_counted_choose_none_of_more(
    tmp_path: Path, bands: tuple[int, ...] | None
) -> None:
    names = band_names(bands, 4)
    assert names == ("band 1", "band 2", "band 3", "band 4")
    four = write_raster(tmp_path / "a.tif", pixels(4))
    assert open_scene(four, rgb_spec(bands=names)).bands == (1, 2, 3, 4)
    five = write_raster(tmp_path / "b.tif", pixels(5))
    with pytest.raises(RadiometryError, match="takes 4"):
        open_scene(five, rgb_spec(bands=names))
    assert band_names((1, 2, 3), 3) == band_names(None, 3) == ("red", "green", "blue")
    # Names of other tools that are no numbers of bands.
    odd = rgb_spec(bands=("band 8A", "band 0", "band 2"))
    three = write_raster(tmp_path / "c.tif", pixels(3))
    assert open_scene(three, odd).bands == (1, 2, 3)
