"""The files behind a scene, and what counts as a change of them."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
from rasters import write_raster

from geoseg.errors import SceneError
from geoseg.identity import check_unchanged, input_content, input_state


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", np.full((3, 8, 8), 7, np.uint8))


def test_any_change_of_a_file_is_seen(tmp_path: Path, scene: Path) -> None:
    states = [input_state(scene)]
    assert input_state(scene) == states[0]
    os.utime(scene, ns=(1, 1))
    states.append(input_state(scene))
    with scene.open("ab") as stream:
        stream.write(b"longer")
    os.utime(scene, ns=(1, 1))
    states.append(input_state(scene))
    for name in ("scene.tfw", "scene.tifw", "scene.j2w"):
        (tmp_path / name).write_text("1\n0\n0\n-1\n0\n0\n")
        states.append(input_state(scene))
    assert len(set(states)) == len(states)


@pytest.mark.parametrize("name", ["inner.vrt", "inner.VRT", "inner.tif"])
def test_sources_of_a_vrt_count_however_deep(
    tmp_path: Path, scene: Path, name: str
) -> None:
    inner, outer = tmp_path / name, tmp_path / "outer.vrt"
    rasterio.shutil.copy(scene, inner, driver="VRT")
    rasterio.shutil.copy(inner, outer, driver="VRT")
    text = outer.read_text().replace("scene.tif", name)
    outer.write_text(text)
    assert name in text
    before = input_state(outer)
    check_unchanged(str(outer), before)
    os.utime(scene, ns=(1, 1))
    with pytest.raises(SceneError, match=r"outer\.vrt changed while it was read"):
        check_unchanged(str(outer), before)


def test_a_scene_in_an_archive_changes_with_it(tmp_path: Path, scene: Path) -> None:
    archive = tmp_path / "a.zip"
    states = []
    for second in (5, 9):
        with zipfile.ZipFile(archive, "w") as stream:
            stream.write(scene, "x/scene.tif")
        os.utime(archive, (second, second))
        states.append(input_state(f"/vsizip/{archive}/x/scene.tif"))
    assert states[0] != states[1]


def test_content_is_all_that_counts_where_it_is_asked_for(
    tmp_path: Path, scene: Path
) -> None:
    vrt = tmp_path / "scene.vrt"
    rasterio.shutil.copy(scene, vrt, driver="VRT")
    before = input_content(vrt)
    os.utime(scene, ns=(1, 1))
    assert input_content(vrt) == before
    # Another pixel, the same size, and the time that it had.
    write_raster(scene, np.full((3, 8, 8), 8, np.uint8))
    os.utime(scene, ns=(1, 1))
    assert input_content(vrt) != before


def test_overviews_are_no_change(tmp_path: Path, scene: Path) -> None:
    before = input_state(scene)
    shutil.copy(scene, tmp_path / "scene.tif.ovr")
    assert input_state(scene) == before
