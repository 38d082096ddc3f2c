"""Reading a scene tile by tile: ours against windows of rasterio, for each codec.

    python benchmarks/bench_read.py [--side 8000] [--rounds 3] [--json FILE]

The scene is noise that compresses as photographs do, 8-bit RGB. Rasterio reads the
windows of all tiles through one open file, with as much block cache as ours. That both
give the same pixels is checked first; then they take turns, and medians of CPU seconds
count. "blocks" is what it takes to decode each block once, by rows of blocks: no reader
that works as GDAL does can cost less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.windows import Window as RasterioWindow
from record import write_results
from scipy import ndimage

from geoseg.io.ahead import PixelsAhead, kept_reader
from geoseg.io.gdal import gdal_env
from geoseg.io.raster import open_scene
from geoseg.tiling import TileGrid
from geoseg.types import ClassInfo, ModelSpec

TILE, STRIDE = 720, 624
TILED: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512}
LAYOUTS: dict[str, dict[str, Any]] = {
    "none": {**TILED, "compress": "NONE"},
    "deflate": {**TILED, "compress": "DEFLATE", "predictor": 2},
    "zstd": {**TILED, "compress": "ZSTD", "predictor": 2},
    "lzw": {**TILED, "compress": "LZW", "predictor": 2},
    "jpeg": {**TILED, "compress": "JPEG", "photometric": "YCBCR"},
    "striped deflate": {"compress": "DEFLATE", "predictor": 2, "blockysize": 16},
}
RESOLUTIONS = {"resampled 1.7": 0.85, "resampled 2.5": 1.25, "resampled 4": 2.0}
SPEC = ModelSpec(
    name="toy",
    tile_size=TILE,
    patch_size=16,
    classes=(ClassInfo(1, "all", (0, 0, 0)),),
    bands=("red", "green", "blue"),
    scale=(("uint8", 255.0),),
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
    resolution=None,
    weights_sha256="0" * 64,
)
Tiles = Iterator[npt.NDArray[np.generic]]


def photograph(side: int) -> npt.NDArray[np.uint8]:
    """Return smooth shapes of several sizes with the noise of a sensor."""
    rng = np.random.default_rng(0)
    shades = np.full((side, side), 110, np.float32)
    for size, strength in ((256, 40), (64, 25), (16, 14), (4, 8)):
        coarse = strength * rng.standard_normal((side // size + 1,) * 2)
        fine = np.kron(coarse.astype(np.float32), np.ones((size, size), np.float32))
        shades += fine[:side, :side]
    shades = ndimage.uniform_filter(shades, 3)
    bands = [shades + tint + rng.integers(-3, 4, shades.shape) for tint in (0, 8, -12)]
    return np.stack([np.clip(band, 1, 254).astype(np.uint8) for band in bands])


def write(path: Path, pixels: npt.NDArray[np.uint8], options: dict[str, Any]) -> Path:
    """Write a scene of half a metre a pixel."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape[1],
        width=pixels.shape[2],
        count=3,
        dtype="uint8",
        interleave="pixel",
        crs="EPSG:32631",
        transform=Affine(0.5, 0, 500_000, 0, -0.5, 5_800_000),
        **options,
    ) as file:
        file.write(pixels)
    return path


def ours(path: Path, resolution: Any = "native") -> Tiles:  # noqa: ANN401
    """Yield tiles as `segment` reads them."""
    scene = open_scene(path, SPEC, resolution=resolution)
    grid = TileGrid(*scene.grid.shape, TILE, STRIDE)
    # A state of its own: nothing is left of the round before.
    state = str(time.perf_counter_ns())
    for band in grid.bands(whole_rows=scene.by_rows):
        with (
            kept_reader(scene, state) as reader,
            PixelsAhead(reader, band.footprint, TILE) as pixels,
        ):
            for place in band.tiles:
                inside = grid.tile(*place).intersection(band.footprint)
                assert inside is not None, "a tile lies in its band's footprint"
                yield pixels.get(inside).values


def windows(path: Path) -> Tiles:
    """Yield tiles as rasterio reads windows."""
    with gdal_env(), rasterio.open(path) as file:
        grid = TileGrid(file.height, file.width, TILE, STRIDE)
        for band in grid.bands():
            for place in band.tiles:
                tile = grid.tile(*place)
                place_there = RasterioWindow(tile.col, tile.row, TILE, TILE)
                yield file.read(window=place_there)


def blocks(path: Path) -> Tiles:
    """Yield rows of blocks."""
    with gdal_env(), rasterio.open(path) as file:
        for row in range(0, file.height, 512):
            height = min(512, file.height - row)
            yield file.read(window=RasterioWindow(0, row, file.width, height))


def cost(read: Callable[[], Tiles]) -> float:
    """Return CPU seconds."""
    started = time.process_time()
    for _ in read():
        pass
    return time.process_time() - started


def checksum(tiles: Tiles) -> list[int]:
    """Return what tells other pixels apart."""
    return [zlib.crc32(np.ascontiguousarray(tile)) for tile in tiles]


def measure(path: Path, rounds: int, pixels: float) -> dict[str, float]:
    """Compare readers on one file."""
    if checksum(ours(path)) != checksum(windows(path)):
        raise SystemExit(f"{path.stem}: other pixels than rasterio's")
    ways: dict[str, Callable[[], Tiles]] = {
        "ours": lambda: ours(path),
        "windows": lambda: windows(path),
        "blocks": lambda: blocks(path),
    }
    runs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, read in ways.items():
            runs[name].append(cost(read))
    costs = {
        name: round(statistics.median(times) * 1e3 / pixels, 2)
        for name, times in runs.items()
    }
    costs["windows / ours"] = round(costs["windows"] / costs["ours"], 2)
    print(
        f"  {path.stem:<16}", *(f"{name} {value:7.2f}" for name, value in costs.items())
    )
    return costs


def main() -> None:
    """Measure all layouts, then resampling."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    image, count = photograph(arguments.side), arguments.side**2 / 1e6
    figures = {}
    print("core-ms per Mpx of the file")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in LAYOUTS.items():
            path = write(Path(folder) / f"{name}.tif", image, options)
            figures[name] = measure(path, arguments.rounds, count)
        path = Path(folder) / "zstd.tif"
        for name, resolution in RESOLUTIONS.items():
            times = [
                cost(lambda metres=resolution: ours(path, metres))
                for _ in range(arguments.rounds)
            ]
            figures[name] = {"ours": round(statistics.median(times) * 1e3 / count, 2)}
            print(f"  {name:<16} ours {figures[name]['ours']:7.2f}")
    if arguments.json:
        figures_of = {"side": arguments.side, "gdal": rasterio.__gdal_version__}
        write_results(arguments.json, {**figures_of, "layouts": figures})


if __name__ == "__main__":
    main()
