"""`geoseg vectorize` as users call it: peak memory of a tall raster, time by threads.

    python benchmarks/bench_vectorize_command.py --prototypes ../shared/prototypes
        [--rivals PYTHON] [--side 8000] [--times 8] [--rounds 3] [--json FILE]

A raster of `--side` pixels squared is compared with one that is `--times` as high, in
which the same classes lie mirrored below each other, so that polygons go on: peaks
are VmHWM of the command's process. Then the small one is vectorized with one thread and
with two, in turn, by the clock. Rasters come from labels.py, as in bench_vectorize.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
from bench_vectorize import MAKE
from high_water import high_water_mib
from record import write_results

BLOCK = 512
GOAL = 1.1


def write_raster(path: Path, labels: Path, times: int) -> None:
    """Write classes, and below them their mirror image, and so on; by rows."""
    classes = np.load(labels, mmap_mode="r")
    height, width = classes.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height * times, width=width,
        dtype="uint8", nodata=255, crs="EPSG:32633",
        transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
        tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="DEFLATE", zlevel=1,
    ) as raster:  # fmt: skip
        for row in range(0, height * times, BLOCK):
            rows = np.arange(row, min(row + BLOCK, height * times))
            turn, place = np.divmod(rows, height)
            source = np.where(turn % 2, height - 1 - place, place)
            window = rasterio.windows.Window(0, row, width, len(rows))
            raster.write(classes[source][None], window=window)


def run(raster: Path, out: Path, *options: str) -> dict[str, float]:
    """Vectorize a raster; return its wall and CPU seconds and its peak."""
    command = [sys.executable, "-m", "geoseg", "vectorize", str(raster)]
    command += ["-o", str(out), "--overwrite", "-q", *options]
    before = os.times()
    started = time.perf_counter()
    process = subprocess.Popen(command)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, high_water_mib(process.pid))
        time.sleep(0.02)
    wall = time.perf_counter() - started
    after = os.times()
    if process.returncode:
        raise SystemExit(f"geoseg vectorize ended with {process.returncode}")
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "peak_mib": round(peak, 1),
    }


def start_seconds(folder: Path) -> float:
    """Return what the command takes for a raster of one pixel: its imports."""
    small = folder / "one.npy"
    np.save(small, np.zeros((1, 1), np.uint8))
    write_raster(folder / "one.tif", small, 1)
    runs = [run(folder / "one.tif", folder / "one.gpkg") for _ in range(3)]
    return statistics.median(found["wall_s"] for found in runs)


def largest_polygon_mib(path: Path) -> float:
    """Return the size of the largest polygon's WKB."""
    sql = "SELECT MAX(LENGTH(geom)) AS size FROM segments"
    _, table = pyogrio.read_arrow(path, sql=sql, sql_dialect="SQLITE")
    return round(table.column("size")[0].as_py() / 2**20, 2)


def measure_memory(small: Path, tall: Path, out: Path, threads: str) -> dict[str, Any]:
    """Compare the peaks of both rasters."""
    rows: dict[str, Any] = {}
    for name, raster in (("small", small), ("tall", tall)):
        rows[name] = run(raster, out, "--threads", threads)
        rows[name]["polygons"] = pyogrio.read_info(out, layer="segments")["features"]
        rows[name]["largest_polygon_mib"] = largest_polygon_mib(out)
        print(f"  {name:<6} {rows[name]}", flush=True)
    ratio = rows["tall"]["peak_mib"] / rows["small"]["peak_mib"]
    print(f"  tall / small, {threads} threads, peak: {ratio:.3f} (goal at most {GOAL})")
    return {**rows, "ratio": round(ratio, 3)}


def measure_time(raster: Path, out: Path, rounds: int, start: float) -> dict[str, Any]:
    """Compare one thread with two, in turn."""
    times: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(rounds):
        for threads, found in times.items():
            found.append(run(raster, out, "--threads", threads)["wall_s"])
    medians = {threads: statistics.median(found) for threads, found in times.items()}
    for threads, seconds in medians.items():
        net = seconds - start
        print(f"  {threads} threads: {seconds:.2f} s, {net:.2f} s without its start")
    return {"wall_s": medians, "start_s": start}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prototypes", required=True)
    parser.add_argument("--rivals", default=sys.executable, help="Python with OpenCV")
    parser.add_argument("--kind", default="mid")
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = folder / "labels.npy"
        made = [arguments.rivals, "-c", MAKE, arguments.prototypes]
        made += [str(arguments.side), arguments.kind, str(labels)]
        subprocess.run(made, check=True)
        small, tall = folder / "small.tif", folder / "tall.tif"
        write_raster(small, labels, 1)
        write_raster(tall, labels, arguments.times)
        out = folder / "out.gpkg"
        print(f"{arguments.kind}, {arguments.side} wide")
        figures: dict[str, Any] = {"load_before": os.getloadavg()[0]}
        start = start_seconds(folder)
        figures["time"] = measure_time(small, out, arguments.rounds, start)
        figures["memory"] = {
            threads: measure_memory(small, tall, out, threads) for threads in "12"
        }
    if arguments.json:
        write_results(arguments.json, {"side": arguments.side, **figures})


if __name__ == "__main__":
    main()
