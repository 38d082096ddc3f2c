"""Chosen bands: named by what images declare, refused where these contradict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import labelled_files
import numpy as np
import pytest
import rasterio
import rasters
from rasterio.enums import ColorInterp

from geoseg.data.bands import check_alike, contradicts, kinds_of
from geoseg.data.coarser import as_processed
from geoseg.data.files import FileScene, open_file_scene
from geoseg.data.labelled import LabelledScene
from geoseg.errors import ConfigError
from geoseg.io.radiometry import band_names
from geoseg.models.registry import find_model, read_spec

RGBN = ("red", "green", "blue", "undefined")
BGRN = ("blue", "green", "red", "undefined")
NOTHING = ("gray", "undefined", "undefined", "undefined")


def scene(path: Path, *colors: str) -> FileScene:
    """Write an image whose bands declare some colours, and a mask."""
    shape = 40, 50
    rasters.write_raster(path, np.ones((len(colors), *shape), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp[name] for name in colors]
    mask = rasters.write_raster(path.with_suffix(".mask.tif"), np.ones(shape, np.uint8))
    data = labelled_files.data(path.parent, bands=[3, 2, 1])
    return open_file_scene(path.stem, path, mask, data)


@pytest.mark.parametrize(
    ("bands", "kinds", "names"),
    [
        (None, (), ("red", "green", "blue")),
        ((1, 2, 3), (RGBN,), ("red", "green", "blue")),
        # Turned around: who knows whether the images or the recipe are right.
        ((1, 2, 3), (BGRN,), ("band 1", "band 2", "band 3")),
        ((3, 2, 1), (RGBN, NOTHING), ("band 3", "band 2", "band 1")),
        ((1, 1, 1), (RGBN,), ("band 1", "band 1", "band 1")),
        ((3, 2, 1), (BGRN, NOTHING), ("red", "green", "blue")),
        ((4, 1, 2), (RGBN,), ("band 4", "red", "green")),
        # Where nothing is declared: red first, or infrared first?
        ((3, 2, 1), (NOTHING,), ("band 3", "band 2", "band 1")),
        ((1, 2, 3), (NOTHING,), ("band 1", "band 2", "band 3")),
        ((2, 5, 1), (("red", "alpha"),), ("band 2", "band 5", "red")),
    ],
)
def test_bands_are_named_by_what_images_declare(
    bands: tuple[int, ...] | None,
    kinds: tuple[tuple[str, ...], ...],
    names: tuple[str, ...],
) -> None:
    assert band_names(bands, 3, kinds) == names


def test_kinds_are_those_of_the_files(tmp_path: Path) -> None:
    one, other = scene(tmp_path / "a.tif", *RGBN), scene(tmp_path / "b.tif", *BGRN)
    spec = replace(read_spec(find_model("builtin")), resolution=2.0)
    coarser = as_processed(other, spec)
    assert coarser is not other
    memory = LabelledScene("c", np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8), "u1"))
    found = kinds_of([one, replace(one, name="a2"), coarser, memory])
    assert found == {RGBN: "a", BGRN: "b"}


def test_images_that_contradict_each_other_are_refused() -> None:
    check_alike((2,), {RGBN: "a", BGRN: "b"})  # green in both
    check_alike((1, 2, 3), {RGBN: "a", NOTHING: "b"})
    told = r"band 3 of all images, which a says is blue and b says is red; bring"
    with pytest.raises(ConfigError, match=told):
        check_alike((3, 2, 1), {NOTHING: "c", RGBN: "a", BGRN: "b"})


def test_colours_contradict_each_other_where_both_are_known() -> None:
    assert contradicts(("red", "", "blue"), ("red", "green", "green"))
    assert not contradicts(("red", "", "blue"), ("red", "green", ""))
