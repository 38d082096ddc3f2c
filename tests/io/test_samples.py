from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
from rasters import rgb_spec

from geoseg.errors import GeosegError, GeosegWarning, RadiometryError
from geoseg.grid import Window
from geoseg.io.raster import SceneReader, open_scene

FLAGS = {
    "cloudmask_10980x10980_uint8_utm19s_lzw.tif": "--bands",
    "cog_dateline_uint16_utm60n.tif": "--bands",
    "cog_float32_utm10n.tif": "--bands",
    "cog_gcps_uint16_nocrs.tif": "--bands",
    "cog_uint16_3band_utm18n_nodata0.tif": "--scale",
    "cog_uint16_utm21n_nodata1.tif": "--bands",
    "float32_4band_4326_deflate.tif": "--bands",
    "landsat8_b4_uint16.tif": "--bands",
    "landsat_4band_4326_nodata0.tif": "--bands",
    "naip_rgbn_utm14n_nodata0_2014.tif": "--bands",
    "naip_rgbn_utm14n_nodata0_2017.tif": "--bands",
    "rgbn_4band_utm18n_lzw.tif": "--bands",
    "rotated_float32_3577.tif": "--bands",
}
"""Real files that a model of 8-bit RGB refuses, and the option its message names."""


@pytest.fixture
def samples(shared_data: Path) -> Path:
    return shared_data / "geotiff-samples"


def test_every_rgb_sample_opens_and_others_say_what_to_do(samples: Path) -> None:
    with (samples / "index.csv").open(newline="") as stream:
        names = [row["file"] for row in csv.DictReader(stream)]
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GeosegWarning)  # Coarse ones.
            if name in FLAGS:
                with pytest.raises(RadiometryError, match=FLAGS[name]):
                    open_scene(samples / name, rgb_spec(resolution=0.3))
                continue
            scene = open_scene(samples / name, rgb_spec(resolution=0.3))
        assert scene.grid.crs is not None, name
        height, width = (min(side, 300) for side in scene.grid.shape)
        with SceneReader(scene) as reader:
            pixels = reader.read(Window(0, 0, height, width))
        assert pixels.values.shape == (3, height, width), name
        assert np.isfinite(pixels.values).all(), name


@pytest.mark.parametrize(
    ("name", "valid_share"),
    [
        ("rgb_3857_internal_mask.tif", (0.01, 0.99)),
        ("rgba_3857_jpeg_alpha_mostly_empty.tif", (0.001, 0.5)),
        ("cog_rgba_26913_deflate_alpha.tif", (0.1, 0.99)),
        ("rgb_utm18n_nodata0_collar.tif", (0.3, 0.9)),
        ("dutch_ortho_rgb_28992_jpeg_tiled.tif", (1, 1)),
    ],
)
def test_nodata_of_real_files_is_found(
    samples: Path, name: str, valid_share: tuple[float, float]
) -> None:
    scene = open_scene(samples / name, rgb_spec())
    with SceneReader(scene) as reader:
        pixels = reader.read(scene.grid.whole)
    assert valid_share[0] <= pixels.valid.mean() <= valid_share[1]
    assert (pixels.values[:, ~pixels.valid] == 0).all()


def test_corrupt_files_end_in_an_error_of_ours_or_in_pixels(shared_data: Path) -> None:
    files = [
        path
        for path in sorted((shared_data / "hostile-tiff").rglob("*"))
        if path.is_file() and path.suffix.lower() not in {".csv", ".md", ".txt"}
    ]
    assert len(files) > 200
    messages = {path: refusal(path) for path in files}
    refused = {path: text for path, text in messages.items() if text is not None}
    assert 30 < len(refused) < len(files) - 30
    for path, text in refused.items():
        assert str(path) in text
        assert "\n" not in text


def refusal(path: Path) -> str | None:
    """Read a corner of a file; return what it was refused with, if it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeosegWarning)
        try:
            scene = open_scene(path, rgb_spec(), bands=(1, 1, 1), scale=255)
            with SceneReader(scene) as reader:
                height, width = (min(side, 512) for side in scene.grid.shape)
                reader.read(Window(0, 0, height, width))
        except GeosegError as error:
            return str(error)
    return None
