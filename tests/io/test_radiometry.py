from __future__ import annotations

import dataclasses
import itertools
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
from geoseg.types import ChosenBands, ModelSpec


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


RGBN = ("red", "green", "blue", "undefined")


def chosen_spec(
    numbers: tuple[int, ...], *of: tuple[str, ...], count: int = 3
) -> ModelSpec:
    """Return what a model declares that was trained on bands of such images."""
    spec = rgb_spec(bands=band_names(numbers, count, of))
    return dataclasses.replace(spec, chosen=ChosenBands(numbers, of))


def colored(path: Path, *colors: str) -> Path:
    """Write an image whose bands declare some colours."""
    write_raster(path, pixels(len(colors)), photometric="MINISBLACK")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp[name] for name in colors]
    return path


def test_a_model_of_chosen_bands_gets_the_same_of_images_of_the_same_kind(
    tmp_path: Path,
) -> None:
    rgbn = colored(tmp_path / "rgbn.tif", *RGBN)
    assert open_scene(rgbn, chosen_spec((4, 1, 2), RGBN)).bands == (4, 1, 2)
    assert open_scene(rgbn, chosen_spec((1, 2, 3), RGBN)).bands == (1, 2, 3)
    given = open_scene(rgbn, chosen_spec((4, 1, 2), RGBN), bands=[1, 1, 2])
    assert given.bands == (1, 1, 2)
    # A band that says it is alpha, and was data in the training.
    rgba = (*RGBN[:3], "alpha")
    scene = open_scene(
        colored(tmp_path / "rgba.tif", *rgba),
        chosen_spec((1, 2, 3, 4), RGBN, rgba, count=4),
    )
    assert (scene.bands, scene.alpha) == ((1, 2, 3, 4), None)


@pytest.mark.parametrize(
    ("colors", "numbers"),
    [
        (("red", "green", "blue", "alpha"), (4, 1, 2)),  # of four bands, too
        (("red", "green", "blue"), (4, 1, 2)),
        (("gray", *["undefined"] * 4), (4, 1, 2)),
        (("gray", "undefined", "undefined"), (3, 2, 1)),
        # Three bands that nobody named, of a model that got red, green and infrared.
        (("red", "green", "blue"), (1, 2, 4)),
    ],
)
def test_bands_of_other_images_are_not_guessed(
    tmp_path: Path, colors: tuple[str, ...], numbers: tuple[int, ...]
) -> None:
    path = colored(tmp_path / "a.tif", *colors)
    told = rf"bands {', '.join(colors)}, and model toy was .* red, green, blue, undef"
    with pytest.raises(RadiometryError, match=told):
        open_scene(path, chosen_spec(numbers, RGBN))


@pytest.mark.parametrize("colors", list(itertools.permutations(RGBN[:3])))
def test_declared_colours_go_before_numbers(
    tmp_path: Path, colors: tuple[str, ...]
) -> None:
    """Trained on blue, green, red of some images, it gets these colours of any."""
    bgrn = ("blue", "green", "red", "undefined")
    spec = chosen_spec((3, 2, 1), bgrn)
    image = colored(tmp_path / "a.tif", *colors)
    assert open_scene(image, spec).bands == tuple(
        colors.index(name) + 1 for name in ("red", "green", "blue")
    )
    like = colored(tmp_path / "b.tif", *bgrn)
    assert open_scene(like, spec).bands == (3, 2, 1)


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ((1, 2, 3), ("gray", "undefined", "undefined")),
        ((3, 2, 1), ("gray", "undefined", "undefined")),
        # Declared by default, and turned around by who knew better.
        ((3, 2, 1), ("red", "green", "blue")),
        ((1, 2, 3), ("blue", "green", "red")),
    ],
)
def test_bands_that_nobody_named_are_not_those_of_other_images(
    tmp_path: Path, numbers: tuple[int, ...], kind: tuple[str, ...]
) -> None:
    """Green, red and infrared may be what the training had."""
    like = colored(tmp_path / "a.tif", *kind)
    spec = chosen_spec(numbers, kind)
    assert open_scene(like, spec).bands == numbers
    other = ("green", "blue", "red")
    with pytest.raises(RadiometryError, match="pass the bands"):
        open_scene(colored(tmp_path / "b.tif", *other), spec)


def test_names_that_look_like_numbers_choose_nothing(tmp_path: Path) -> None:
    """Other tools name bands of Sentinel-2 so."""
    names = ("band 4", "band 3", "band 2")
    image = write_raster(tmp_path / "a.tif", pixels(3))
    assert open_scene(image, rgb_spec(bands=names)).bands == (1, 2, 3)
    with pytest.raises(RadiometryError, match="takes 3"):
        open_scene(write_raster(tmp_path / "b.tif", pixels(5)), rgb_spec(bands=names))
