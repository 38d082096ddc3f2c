"""How much of a run the model works: its time over the wall time, on CPUs.

    python benchmarks/bench_utilization.py --data ../shared/data/dubai-mbrsc
        [--side 5200] [--scenes 4] [--json FILE]

The built-in model segments scenes tiled from real images, with one worker; its torch
has one thread, so that the other core has all the rest to do. The wall time runs from
the first batch to the last rename. On a GPU this cannot be measured in this way:
batches are launched there and not waited for.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from record import ROOT, write_results

GOAL = 0.90


def main() -> None:
    """Make scenes, segment them, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--side", type=int, default=5200)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    images = sorted(arguments.data.glob("tile-*/**/*.jpg"), key=os.path.getsize)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = folder / "archive"
        archive.mkdir()
        for index in range(arguments.scenes):
            make_scene(archive / f"{index}.tif", images[-1 - index], arguments.side)
        figures = measure(archive, folder)
    figures["mpx"] = round(arguments.scenes * arguments.side**2 / 1e6, 1)
    figures["mpx_per_s"] = round(figures["mpx"] / figures["wall_s"], 3)
    print(figures)
    print(f"model over wall: {figures['ratio']} (goal at least {GOAL})")
    if arguments.json is not None:
        write_results(arguments.json, figures)


def make_scene(path: Path, image: Path, side: int) -> None:
    """Repeat a photograph, mirrored, until it fills a scene of 1 m."""
    pixels = np.asarray(Image.open(image).convert("RGB")).transpose(2, 0, 1)
    pixels = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
    pixels = np.concatenate([pixels, pixels[..., ::-1]], axis=2)
    repeats = [1, *(-(-side // length) for length in pixels.shape[1:])]
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8",
        crs="EPSG:32640", transform=from_origin(3e5, 2.8e6, 1, 1), tiled=True,
        blockxsize=512, blockysize=512, compress="DEFLATE", predictor=2,
        interleave="pixel", photometric="RGB",
    ) as raster:  # fmt: skip
        raster.write(np.tile(pixels, repeats)[:, :side, :side])


def measure(archive: Path, folder: Path) -> dict[str, Any]:
    """Segment the archive; seconds of the model, and of the whole."""
    log, out = folder / "log", folder / "out"
    load = os.getloadavg()[0]
    log.mkdir()
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    subprocess.run(
        [
            sys.executable, "-m", "geoseg", "segment", str(archive), "-o", str(out),
            "--workers", "1", "--device", "cpu", "-q",
            "--set", "model.imports=[model_clock]",
        ],
        env={**os.environ, "PYTHONPATH": paths, "GEOSEG_MODEL_CLOCK": str(log)},
        check=True,
    )  # fmt: skip
    runs = [
        tuple(map(float, line.split()))
        for path in log.glob("*.log")
        for line in path.read_text().splitlines()
    ]
    first = min(begin for begin, _ in runs)
    last = max(path.stat().st_mtime for path in out.glob("*/item.json"))
    model = sum(end - begin for begin, end in runs)
    return {
        "load_before": round(load, 2),
        "tiles": len(runs),
        "model_s": round(model, 2),
        "wall_s": round(last - first, 2),
        "ratio": round(model / (last - first), 4),
        "gaps_s": [round(gap, 3) for gap in largest_gaps(runs)],
    }


def largest_gaps(runs: list[tuple[float, ...]]) -> list[float]:
    """The longest waits of the model between two batches, seconds."""
    ordered = sorted(runs)
    gaps = [b[0] - a[1] for a, b in itertools.pairwise(ordered)]
    return sorted(gaps, reverse=True)[:8]


if __name__ == "__main__":
    main()
