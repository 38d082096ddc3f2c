"""Peak memory of every process while small and large scenes are segmented.

    python benchmarks/bench_memory.py [--sizes 6000 24000] [--json FILE]

The scenes are all valid and have at least 1,000 polygons a Mpx; a stub model's classes
follow the pixels. For each stage of a run, up to the last rename, the largest VmHWM of
client, scheduler and workers is read from /proc (contract C8); the kernel's mark is
reset where a stage begins.
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
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import rasterio
from high_water import high_water_mib, reset_high_water
from record import ROOT, write_results
from scipy import ndimage

FRAME = 12
"""Width of frames, pixels: three logits."""
STAGES = ("start", "bands", "rasters", "polygons")
ROLES = ("client", "scheduler", "worker")
Peaks = dict[str, dict[str, float]]


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
            print_run(rows[-1])
    first, last = rows[0]["peak_mib"], rows[-1]["peak_mib"]
    for stage in STAGES:
        if not last[stage]["worker"]:
            raise SystemExit(f"{stage}: nobody saw it; its files have other names")
        for role in ROLES:
            ratio = last[stage][role] / first[stage][role]
            print(f"{role}, {stage}: last size over first {ratio:.2f} (goal 1.1)")
    if arguments.json is not None:
        write_results(arguments.json, {"runs": rows})


def save_model(folder: Path) -> None:
    """A stub whose classes are the levels of red, on tiles of 720 at stride 4."""
    sys.path.insert(0, str(ROOT / "tests"))
    import stubs

    stubs.save_stub(
        folder, kind="levels", num_classes=7, tile_size=720, output_stride=4
    )


def make_scene(path: Path, size: int) -> None:
    """Write a scene of smooth blobs, some rows at a time: it needs no memory.

    A frame around each block keeps polygons from growing with the scene: whoever
    writes one holds all of it. Frames of neighbours are of two classes.
    """
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
            line = np.concatenate(
                [
                    _framed(block, (row // step + i) % 2)
                    for i in range(-(-size // step))
                ],
                axis=1,
            )[:height, :size]
            window = rasterio.windows.Window(0, row, size, height)
            raster.write(np.stack([line] * 3), window=window)


def _framed(block: npt.NDArray[np.uint8], kind: int) -> npt.NDArray[np.uint8]:
    """Put a frame of the first or the last class around a block."""
    framed = np.full_like(block, 255 if kind else 0)
    inner = (slice(FRAME, -FRAME),) * 2
    framed[inner] = block[inner]
    return framed


def measure(scene: Path, out: Path, work: Path) -> dict[str, Any]:
    """Segment one scene and watch the tree of processes that it starts."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [
        sys.executable, "-m", "geoseg", "segment", str(scene), "-o", str(out),
        "--model", str(work / "model"), "--set", "model.imports=[stubs]",
        "--workers", "2", "-q",
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    watcher = Watcher(process, out)
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
        "polygons": polygons,
        "polygons_per_mpx": round(polygons / mpx),
        "peak_mib": watcher.peaks,
    }


def print_run(row: dict[str, Any]) -> None:
    """Print one size: a line for each stage."""
    head = {name: row[name] for name in row if name != "peak_mib"}
    print("  ".join(f"{name} {value}" for name, value in head.items()))
    for stage, peaks in row["peak_mib"].items():
        cells = "  ".join(f"{role} {round(peak):>6}" for role, peak in peaks.items())
        print(f"  {stage:<9} MiB: {cells}", flush=True)


class Watcher(threading.Thread):
    """Reads each process's high-water mark some times a second, stage by stage."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        super().__init__()
        self.peaks: Peaks = {stage: dict.fromkeys(ROLES, 0.0) for stage in STAGES}
        self._process, self._out = process, out
        self._stage = STAGES[0]

    def run(self) -> None:
        """Watch until the client ends."""
        while self._process.poll() is None:
            try:
                family = self._family()
            except psutil.NoSuchProcess:
                return
            for member in family:
                role = self._role(member)
                peak = high_water_mib(member.pid)
                peaks = self.peaks[self._stage]
                peaks[role] = round(max(peaks[role], peak), 1)
            stage = self._current_stage()
            if stage != self._stage:
                self._stage = stage
                for member in family:
                    reset_high_water(member.pid)
            time.sleep(0.1)

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _role(self, member: psutil.Process) -> str:
        if member.pid == self._process.pid:
            return "client"
        try:
            return (
                "scheduler"
                if "distributed.Scheduler" in " ".join(member.cmdline())
                else "worker"
            )
        except psutil.Error:
            return "worker"

    def _current_stage(self) -> str:
        """The furthest stage whose files are there."""
        signs = {
            "polygons": "*/.segments*",
            "rasters": "*/.classes*",
            "bands": ".geoseg/parts/*/part-*",
        }
        places = {stage: index for index, stage in enumerate(STAGES)}
        for stage, pattern in signs.items():
            if places[stage] > places[self._stage] and any(self._out.glob(pattern)):
                return stage
        return self._stage


if __name__ == "__main__":
    main()
