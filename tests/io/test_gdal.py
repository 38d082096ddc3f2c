from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.windows
from rasters import write_raster

from geoseg.errors import SceneError
from geoseg.io.gdal import gdal_env, open_dataset


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def url(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}/a"


def write_vrt(path: Path, source: str, relative: int = 0) -> Path:
    path.write_text(
        '<VRTDataset rasterXSize="6" rasterYSize="4">'
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


DESCRIPTIONS = {
    "wms": "<GDAL_WMS><Service name='TMS'><ServerUrl>{}</ServerUrl></Service>",
    "wmts": "<GDAL_WMTS><GetCapabilitiesUrl>{}</GetCapabilitiesUrl>",
    "wcs": "<WCS_GDAL><ServiceURL>{}</ServiceURL><CoverageName>a</CoverageName>",
    "gti": "<GDALTileIndexDataset><IndexDataset>{}</IndexDataset>",
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
@pytest.mark.parametrize("within", ["alone", "vrt", "vrt in vrt"])
def test_a_description_of_a_remote_service_is_refused_and_asks_nobody(
    tmp_path: Path, server: socket.socket, kind: str, within: str
) -> None:
    path = tmp_path / "a.tif"
    path.write_text(DESCRIPTIONS[kind].format(url(server)))
    for number in range(within.count("vrt")):
        path = write_vrt(tmp_path / f"{number}.tif", path.name, relative=1)
    with pytest.raises(SceneError, match=rf"{path.name} only describes"):
        open_dataset(str(path))
    with pytest.raises(BlockingIOError):
        server.accept()


@pytest.mark.parametrize(
    "source",
    ["/vsicurl/{}", "{}", "/vsizip//vsis3/b/a.zip", "/vsicached?file=%2Fvsicurl%2F{}"],
)
def test_a_vrt_with_a_source_elsewhere_is_refused_and_asks_nobody(
    tmp_path: Path, server: socket.socket, source: str
) -> None:
    path = write_vrt(tmp_path / "a.vrt", source.format(url(server)))
    with pytest.raises(SceneError, match=r"a.vrt reads .* no file"):
        open_dataset(str(path))
    with pytest.raises(BlockingIOError):
        server.accept()


def test_a_vrt_of_local_files_is_read(tmp_path: Path) -> None:
    pixels = np.full((1, 4, 6), 7, np.uint8)
    write_raster(tmp_path / "a.tif", pixels)
    inner = write_vrt(tmp_path / "inner.vrt", "a.tif", relative=1)
    with open_dataset(str(write_vrt(tmp_path / "a.vrt", str(inner)))) as dataset:
        assert (dataset.read() == pixels).all()


def test_a_block_is_decoded_once_though_it_is_read_in_pieces(tmp_path: Path) -> None:
    """Overwritten behind GDAL's back, it still has its old pixels."""
    pixels = np.full((1, 512, 2048), 7, np.uint8)
    options: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    path = write_raster(tmp_path / "a.tif", pixels, **options)
    other = write_raster(tmp_path / "b.tif", pixels + 1, **options)
    with gdal_env(), open_dataset(str(path)) as dataset:
        upper = dataset.read(1, window=rasterio.windows.Window(0, 0, 2048, 200))
        with path.open("r+b") as stream:
            stream.write(other.read_bytes())
        lower = dataset.read(1, window=rasterio.windows.Window(0, 200, 2048, 312))
    assert (upper == 7).all()
    assert (lower == 7).all()
