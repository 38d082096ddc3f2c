"""The files behind a scene, and what counts as a change of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
from rasters import write_raster

from geoseg.errors import SceneError
from geoseg.identity import check_unchanged, input_state


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


def test_sources_of_a_vrt_count_however_deep(tmp_path: Path, scene: Path) -> None:
    inner, outer = tmp_path / "inner.vrt", tmp_path / "outer.vrt"
    rasterio.shutil.copy(scene, inner, driver="VRT")
    rasterio.shutil.copy(inner, outer, driver="VRT")
    text = outer.read_text().replace("scene.tif", "inner.vrt")
    outer.write_text(text)
    assert "inner.vrt" in text
    before = input_state(outer)
    check_unchanged(str(outer), before)
    os.utime(scene, ns=(1, 1))
    with pytest.raises(SceneError, match=r"outer\.vrt changed while it was read"):
        check_unchanged(str(outer), before)


def test_overviews_are_no_change(tmp_path: Path, scene: Path) -> None:
    before = input_state(scene)
    shutil.copy(scene, tmp_path / "scene.tif.ovr")
    assert input_state(scene) == before
