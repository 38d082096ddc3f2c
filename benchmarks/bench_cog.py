"""Class mask and confidence to COG: codecs and levels, and ours against GDAL's own way.

    python benchmarks/bench_cog.py --prototypes ../shared/prototypes
        [--maker PYTHON] [--side 8000] [--rounds 3] [--json FILE]

`--prototypes` holds `labels.py`, which makes the class mask and takes opencv; `--maker`
is a Python that has it. The confidence raster is made of the mask: blurred at a quarter
of the resolution, as a model's logits are, with noise. Ways take turns; medians of CPU
seconds count, in core-ms per Mpx. What was written is read back and compared first.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from record import write_results
from scipy import ndimage

from geoseg.grid import Grid, Window
from geoseg.io.cog import write_cog
from geoseg.io.gdal import gdal_env
from geoseg.io.mosaic import Part
from geoseg.io.scratch import write_scratch
from geoseg.types import NODATA, ClassInfo

MAKE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import labels
np.save(sys.argv[3], labels.gen(int(sys.argv[2]), **labels.KINDS["mid"]))
"""
CLASSES = tuple(ClassInfo(i, f"class {i}", (30 * i, 0, 0)) for i in range(1, 8))
STRIDE = 624
"""Rows of a part: those that a row of tiles finishes."""
CODECS = (
    ("DEFLATE", 1),
    ("DEFLATE", 3),
    ("DEFLATE", 5),
    ("DEFLATE", 6),
    ("DEFLATE", 9),
    ("ZSTD", 1),
    ("ZSTD", 9),
    ("LZW", None),
)
PARTS: tuple[dict[str, Any], ...] = (
    {"compress": "NONE"},
    {"compress": "PACKBITS"},
    {"compress": "ZSTD", "zstd_level": 1},
    {"compress": "DEFLATE", "zlevel": 1},
    {"compress": "LZW"},
)
Raster = npt.NDArray[np.uint8]
Way = Callable[[], Path]
"""Writes a raster and tells where."""


def confidence_of(mask: Raster) -> Raster:
    """Percents that are low at borders and in spots, smooth over four pixels."""
    rng = np.random.default_rng(0)
    shape = (len(CLASSES), *(side // 4 for side in mask.shape))
    logits = np.empty(shape, np.float32)
    for layer, info in zip(logits, CLASSES, strict=True):
        share = (mask == info.id).reshape(shape[1], 4, shape[2], 4).mean(axis=(1, 3))
        noise = ndimage.gaussian_filter(rng.standard_normal(shape[1:]), 3)
        layer[:] = 6 * ndimage.gaussian_filter(share, 1.5) + 1.5 * noise
    shares = np.exp(logits - logits.max(axis=0))
    best = ndimage.zoom(
        1 / shares.sum(axis=0), 4, order=1, grid_mode=True, mode="grid-constant"
    )
    return np.where(mask == NODATA, NODATA, np.rint(100 * best)).astype(np.uint8)


def write_gtiff(path: Path, pixels: Raster, **options: Any) -> Path:  # noqa: ANN401
    """Write a scratch raster in blocks of 512 by 64."""
    height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype="uint8",
        nodata=NODATA,
        transform=Affine.scale(2, -2),
        tiled=True,
        blockxsize=512,
        blockysize=64,
        **options,
    ) as file:
        file.write(pixels, 1)
    return path


def copy(source: Path, path: Path, **options: Any) -> Path:  # noqa: ANN401
    """Make a COG as GDAL does."""
    rasterio.shutil.copy(source, path, driver="COG", BLOCKSIZE=512, **options)
    return path


class Stage:
    """One raster, and all ways to write it."""

    def __init__(self, name: str, pixels: Raster, folder: Path) -> None:
        self.name, self.pixels, self.folder = name, pixels, folder
        self.is_mask = name == "classes"
        height, width = pixels.shape
        self.grid = Grid(height, width, Affine.scale(0.5, -0.5), None)
        windows = [
            Window(row, 0, min(STRIDE, height - row), width)
            for row in range(0, height, STRIDE)
        ]
        self.parts = [
            Part(folder / f"{name}-{window.row}.tif", window) for window in windows
        ]
        self.raw = write_gtiff(folder / f"{name}-raw.tif", pixels)

    def write_parts(self) -> Path:
        """Write the parts as blending does."""
        for part in self.parts:
            pixels = self.pixels[part.window.slices]
            write_scratch(part.path, pixels, packed=self.is_mask)
        return self.parts[0].path

    def ours(self) -> Path:
        """Join the parts as finishing does."""
        final = self.folder / f"{self.name}.tif"
        classes = CLASSES if self.is_mask else None
        write_cog(
            self.parts,
            final,
            grid=self.grid,
            classes=classes,
            tags={},
            work=self.folder,
        )
        return final

    def ways(self) -> dict[str, Way]:
        """Name all ways; of "encode" ones the size is that without overviews."""
        out = self.folder / "other.tif"
        predictor = "NO" if self.is_mask else "STANDARD"
        method = "MODE" if self.is_mask else "AVERAGE"
        ways: dict[str, Way] = {"ours: parts": self.write_parts, "ours: COG": self.ours}
        for options in PARTS:
            name = " ".join(str(value) for value in options.values())
            ways[f"part {name}"] = functools.partial(
                write_gtiff, out, self.pixels[:STRIDE], **options
            )
        for codec, level in CODECS:
            options = {"COMPRESS": codec, "PREDICTOR": predictor}
            options |= {} if level is None else {"LEVEL": level}
            make = functools.partial(copy, self.raw, out, **options)
            name = codec if level is None else f"{codec} {level}"
            ways[f"encode {name}"] = functools.partial(make, OVERVIEWS="NONE")
            if name in ("DEFLATE 1", "DEFLATE 5", "DEFLATE 6", "ZSTD 1"):
                ways[f"GDAL {name}"] = functools.partial(
                    make, OVERVIEW_RESAMPLING=method
                )
        return ways

    def check(self, way: str, path: Path) -> None:
        """Fail unless a way kept the pixels."""
        with rasterio.open(path) as file:
            kept = file.read(1)
        if not (kept == self.pixels[: len(kept)]).all():
            raise SystemExit(f"{self.name}, {way}: other pixels")


def measure(stage: Stage, rounds: int) -> dict[str, dict[str, float]]:
    """Time all ways in turns, and print what they cost."""
    ways = stage.ways()
    sizes = {}
    for name, way in ways.items():
        path = way()
        stage.check(name, path)
        sizes[name] = path.stat().st_size
    sizes["ours: parts"] = sum(part.path.stat().st_size for part in stage.parts)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            times[name].append(time.process_time() - started)
    print(f"{stage.name}, {stage.pixels.shape[1]} x {stage.pixels.shape[0]}")
    figures = {}
    for name, runs in times.items():
        rows = STRIDE if name.startswith("part ") else len(stage.pixels)
        pixels = rows * stage.pixels.shape[1]
        cost, size = statistics.median(runs) * 1e9 / pixels, sizes[name] / pixels
        figures[name] = {
            "core_ms_per_mpx": round(cost, 3),
            "bytes_per_pixel": round(size, 4),
        }
        print(f"  {name:<20} {cost:7.2f} core-ms/Mpx {size:7.3f} bytes a pixel")
    return figures


def main() -> None:
    """Measure both rasters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prototypes", type=Path, required=True)
    parser.add_argument("--maker", default=sys.executable)
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [arguments.maker, "-c", MAKE, str(arguments.prototypes)]
        labels = folder / "labels.npy"
        subprocess.run([*made, str(arguments.side), str(labels)], check=True)
        mask: Raster = np.load(labels)
        mask[: arguments.side // 10, : arguments.side // 8] = NODATA
        rasters = {"classes": mask, "confidence": confidence_of(mask)}
        with gdal_env():
            figures = {
                name: measure(Stage(name, pixels, folder), arguments.rounds)
                for name, pixels in rasters.items()
            }
    if arguments.json:
        write_results(arguments.json, {"side": arguments.side, **figures})


if __name__ == "__main__":
    main()
