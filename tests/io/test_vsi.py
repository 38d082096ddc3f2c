"""Files on other machines: their state, bytes, and what GDAL must not remember."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasters import rgb_spec, write_raster
from web import Web, serve, stall

from geoseg.errors import SceneError
from geoseg.identity import check_unchanged, input_content, input_state
from geoseg.io import gdal
from geoseg.io.ahead import kept_reader
from geoseg.io.raster import open_scene
from geoseg.io.vsi import read_bytes, remote_state


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with serve(tmp_path, tmp_path / "sent.txt") as web:
        yield web


def write(path: Path, value: int, second: int) -> None:
    """Write a raster; its size does not depend on the value."""
    write_raster(path, np.full((3, 40, 40), value, np.uint8))
    os.utime(path, (second, second))


def test_a_replaced_file_is_another_one_and_is_read_anew(
    tmp_path: Path, web: Web
) -> None:
    name = f"/vsicurl/{web.url}/a.tif"
    pixels, states, contents = [], [], []
    for value in (7, 9):
        write(tmp_path / "a.tif", value, value)
        states.append(input_state(name))
        contents.append(input_content(name))
        scene = open_scene(name, rgb_spec())
        with kept_reader(scene, states[-1]) as reader:
            pixels.append(int(reader.read(scene.grid.whole).values.max()))
    assert pixels == [7, 9]
    assert len(set(states)) == len(set(contents)) == 2
    with pytest.raises(SceneError, match=rf"^{web.url}/a.tif changed while it was"):
        check_unchanged(name, states[0])
    check_unchanged(name, states[1])
    os.utime(tmp_path / "a.tif", (5, 5))
    assert input_state(name) not in states
    assert input_content(name) == contents[1]


def test_a_worker_that_read_the_old_file_reads_the_new_one(
    tmp_path: Path, web: Web
) -> None:
    name = f"/vsicurl/{web.url}/a.tif"
    pixels = []
    for value in (7, 9):
        write(tmp_path / "a.tif", value, value)
        scene = open_scene(tmp_path / "a.tif", rgb_spec())
        # Planned elsewhere: nothing here has asked for the new state.
        with kept_reader(replace(scene, path=name), str(value)) as reader:
            pixels.append(int(reader.read(scene.grid.whole).values.max()))
    assert pixels == [7, 9]


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_bytes_are_read_whole(tmp_path: Path, web: Web, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "a b.bin").write_bytes(content)
    assert read_bytes(f"/vsicurl/{web.url}/a%20b.bin") == content
    assert read_bytes(str(tmp_path / "a b.bin")) == content


def test_what_cannot_be_read_is_told_in_words(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SceneError, match=rf"^{web.url}/no.tif cannot .*: 404"):
        remote_state(f"/vsicurl/{web.url}/no.tif")
    with pytest.raises(SceneError, match=r"Could not connect.*check the address"):
        remote_state("/vsicurl/http://127.0.0.1:1/a.tif")
    monkeypatch.setitem(gdal._OPTIONS, "GDAL_HTTP_LOW_SPEED_TIME", 1)
    with stall() as url, pytest.raises(SceneError, match=r"Operation too slow"):
        remote_state(f"/vsicurl/{url}/a.tif")


def test_the_environment_says_how_long_a_server_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    with stall() as url, pytest.raises(SceneError, match=r"the last 1 seconds"):
        remote_state(f"/vsicurl/{url}/a.tif")
