from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasters import rgb_spec, write_raster

from geoseg.errors import SceneError
from geoseg.grid import Window
from geoseg.io.ahead import PixelsAhead, kept_reader
from geoseg.io.raster import Pixels, SceneReader, open_scene
from geoseg.io.resolution import Resolution

TILED: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256}


def noise(height: int, width: int, seed: int = 0) -> Any:  # noqa: ANN401 (an array)
    rng = np.random.default_rng(seed)
    return rng.integers(1, 255, (3, height, width), dtype=np.uint8)


@pytest.mark.parametrize("options", [TILED, {"blockysize": 16}])
@pytest.mark.parametrize("resolution", ["native", 0.9])
def test_pieces_make_up_the_window(
    tmp_path: Path, options: dict[str, Any], resolution: Resolution
) -> None:
    pixels = noise(300, 700)
    pixels[:, :50, :80] = 0
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0, **options)
    scene = open_scene(path, rgb_spec(), resolution=resolution)
    whole = scene.grid.whole
    window = Window(7, 11, whole.height - 20, whole.width - 30)
    with SceneReader(scene) as reader:
        expected = reader.read(window)
        with PixelsAhead(reader, window, 32) as ahead:
            got = ahead.get(window)
            part = ahead.get(Window(40, 60, 32, 32))
    assert got.values.dtype == expected.values.dtype
    assert (got.values == expected.values).all()
    assert (got.valid == expected.valid).all()
    assert (got.keep == expected.keep).all()
    assert np.shares_memory(part.values, got.values), "tiles are views"
    assert (part.values == expected.values[:, 33:65, 49:81]).all()


def test_the_first_tile_is_there_before_the_last_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = open_scene(write_raster(tmp_path / "a.tif", noise(96, 40)), rgb_spec())
    used, read = threading.Event(), SceneReader.read

    def slow(self: SceneReader, window: Window) -> Pixels:
        if window.row > 0:
            assert used.wait(60), "nobody uses the first tile before the last is read"
        return read(self, window)

    monkeypatch.setattr(SceneReader, "read", slow)
    with (
        SceneReader(scene) as reader,
        PixelsAhead(reader, scene.grid.whole, 32) as ahead,
    ):
        first = ahead.get(Window(0, 0, 32, 32))
        used.set()
        assert ahead.get(scene.grid.whole).keep.all()
    assert first.keep.all()


def test_a_broken_block_is_told_to_who_needs_it(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif", noise(96, 300), compress="deflate", blockysize=16
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(content)
    scene = open_scene(path, rgb_spec())
    with (
        SceneReader(scene) as reader,
        PixelsAhead(reader, scene.grid.whole, 16) as ahead,
    ):
        assert ahead.get(Window(0, 0, 16, 300)).keep.all()
        with pytest.raises(SceneError, match=r"a\.tif cannot be read"):
            ahead.get(scene.grid.whole)


def test_bands_share_the_blocks_that_both_touch(tmp_path: Path) -> None:
    """Overwritten behind the reader's back, they are the old ones."""
    old, new = noise(512, 512), noise(512, 512, seed=1)
    path = write_raster(tmp_path / "a.tif", old, **TILED)
    other = write_raster(tmp_path / "b.tif", new, **TILED)
    scene = open_scene(path, rgb_spec())

    def rows(state: str, row: int, height: int) -> Any:  # noqa: ANN401 (an array)
        with kept_reader(scene, state) as reader:
            return reader.read(Window(row, 0, height, 512)).values

    assert (rows("1", 0, 200) == old[:, :200]).all()
    with path.open("r+b") as stream:
        stream.write(other.read_bytes())
    assert (rows("1", 200, 56) == old[:, 200:256]).all()
    assert (rows("2", 0, 256) == new[:, :256]).all()


def test_a_reader_that_failed_is_not_kept(tmp_path: Path) -> None:
    scene = open_scene(write_raster(tmp_path / "a.tif", noise(64, 64)), rgb_spec())
    with pytest.raises(ValueError, match="asked"), kept_reader(scene, "1") as failed:
        raise ValueError("asked for")
    with kept_reader(scene, "1") as reader:
        assert reader is not failed
        assert reader.read(scene.grid.whole).keep.all()
    with kept_reader(scene, "1") as again:
        assert again is reader
