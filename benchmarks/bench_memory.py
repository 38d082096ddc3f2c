"""Peak memory of every process while small and large scenes are segmented.

    python benchmarks/bench_memory.py [--sizes 6000 24000] [--json FILE]

The scenes are all valid and have at least 1,000 polygons a Mpx; a stub model's classes
follow the pixels. The largest VmHWM over client, scheduler and workers is read from
/proc until the last output is renamed (contract C8).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import rasterio
from scipy import ndimage

STAGES = ("client", "scheduler", "worker")


def main() -> None:
    """Make scenes, segment each in a process of its own, print peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6000, 24000])
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save_model(work / "model")
        for size in arguments.sizes:
            scene = work / f"scene-{size}.tif"
            make_scene(scene, size)
            rows.append({"size": size, **measure(scene, work / f"out-{size}", work)})
            print_row(rows[-1])
    if len(rows) > 1:
        ratio = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
        print(f"largest process, last size over first: {ratio:.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def save_model(folder: Path) -> None:
    """A stub whose classes are the levels of red, on tiles of 720 at stride 4."""
    sys.path.insert(0, str(_tests()))
    import stubs

    stubs.save_stub(
        folder, kind="levels", num_classes=7, tile_size=720, output_stride=4
    )


def make_scene(path: Path, size: int) -> None:
    """Write a scene of smooth blobs, some rows at a time: it needs no memory."""
    rng = np.random.default_rng(0)
    step = 1000
    patch = rng.random((step, step)).astype(np.float32)
    smooth = ndimage.gaussian_filter(patch, 9, mode="wrap")
    ranks = smooth.ravel().argsort().argsort().reshape(smooth.shape)
    block = (ranks * 256 // ranks.size).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
        tiled=True, blockxsize=512, blockysize=512, compress="DEFLATE", zlevel=1,
    ) as raster:  # fmt: skip
        for row in range(0, size, step):
            height = min(step, size - row)
            line = np.tile(block, (1, -(-size // step)))[:height, :size]
            window = rasterio.windows.Window(0, row, size, height)
            # Levels differ a little from block to block, or all would be the same.
            raster.write(np.stack([np.roll(line, row % 7, 1)] * 3), window=window)


def measure(scene: Path, out: Path, work: Path) -> dict[str, float]:
    """Segment one scene and watch the tree of processes that it starts."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(_tests()),
    }
    command = [
        sys.executable, "-m", "geoseg", "segment", str(scene), "-o", str(out),
        "--model", str(work / "model"), "--set", "model.imports=[stubs]",
        "--workers", "2", "-q",
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    peaks: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    code = process.wait()
    watcher.join()
    if code != 0:
        raise SystemExit(f"geoseg segment ended with {code}")
    report = json.loads((out / "report.json").read_text())
    classes = report["scenes"][0]["classes"]
    mpx = sum(entry["pixels"] for entry in classes) / 1e6
    polygons = sum(entry["polygons"] for entry in classes)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "mpx": round(mpx, 2),
        "polygons_per_mpx": round(polygons / mpx),
        "peak_mib": round(max(peaks.values())),
        **{f"{stage}_mib": round(peak) for stage, peak in peaks.items()},
    }


def print_row(row: dict[str, float]) -> None:
    """Print one size."""
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def _watch(process: subprocess.Popen[bytes], peaks: dict[str, float]) -> None:
    while process.poll() is None:
        try:
            parent = psutil.Process(process.pid)
            family = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for member in family:
            stage = _stage(member, process.pid)
            peaks[stage] = max(peaks[stage], _high_water_mib(member.pid))
        time.sleep(0.2)


def _stage(member: psutil.Process, client: int) -> str:
    if member.pid == client:
        return "client"
    try:
        return "scheduler" if "Scheduler" in " ".join(member.cmdline()) else "worker"
    except psutil.Error:
        return "worker"


def _high_water_mib(pid: int) -> float:
    """VmHWM: the largest resident size that the kernel has seen so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _tests() -> Path:
    return Path(__file__).parents[1] / "tests"


if __name__ == "__main__":
    main()
