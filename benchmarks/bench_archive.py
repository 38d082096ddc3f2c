"""Whole archives under a memory limit: one huge scene, and thousands of small ones.

    python benchmarks/bench_archive.py --data DIR [--sizes 10000 60000]
        [--scenes 2000] [--json FILE]

The huge scene is a VRT that repeats a real photograph, every pixel valid, with at least
1,000 polygons a Mpx from a stub model; the workers of a scheduler of one's own may take
4 GiB each. Peaks of all processes must be the same for all sizes within a tenth, stage
by stage, and Dask's logs must tell of no spilling, pausing or restarting. The small
scenes must leave client and scheduler as they were after the first tenth. All this is
met or missed, in table and JSON; the benchmark fails where outputs are wrong, or a
stage was never seen.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import rasterio
from bench_memory import FRAME, STAGES, Watcher, print_run, save_model
from goals import Goal, print_goals
from high_water import high_water_mib, reset_high_water
from record import ROOT, write_results
from servers import end, wait_for_file

from geoseg._heap import SETTINGS

PHOTOGRAPH = "geotiff-samples/dutch_ortho_rgb_28992_jpeg_tiled.tif"
"""1000 x 1000 pixels of 0.25 m, RGB, all valid."""
STEP = 1000
LIMIT = "4GiB"
FEWEST = 1000
FLAT = 1.1
WORRIES = re.compile(r"spill|paus|restart|memory|killed", re.IGNORECASE)
"""What Dask says when memory is short."""


def main() -> None:
    """Run the sizes, then the small scenes; print peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 60_000])
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"limit": LIMIT, "sizes": []}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        save_model(work / "model")
        tiles = [
            write_tile(arguments.data / PHOTOGRAPH, work / f"tile-{kind}.tif", kind)
            for kind in (0, 1)
        ]
        for size in arguments.sizes:
            scene = write_mosaic(tiles, work / f"scene-{size}.vrt", size)
            figures["sizes"].append({"size": size, **measure(scene, work)})
            print_run(figures["sizes"][-1])
        if arguments.scenes:
            figures["small"] = measure_many(tiles[0], arguments.scenes, work)
            print(json.dumps(figures["small"]))
    wrong = list(find_wrong(figures))
    figures["wrong"] = wrong
    figures["goals"] = print_goals(list(find_goals(figures)))
    if arguments.json is not None:
        write_results(arguments.json, figures)
    if wrong:
        raise SystemExit("\n".join(wrong))


def write_tile(photograph: Path, path: Path, kind: int) -> Path:
    """Write the photograph in a frame of the first or the last class.

    Without frames a class would run from one end of the scene to the other, and a
    polygon is held by whoever writes it. Frames of neighbours are of two classes.
    """
    with rasterio.open(photograph) as source:
        values = source.read()[:, :STEP, :STEP]
    framed = np.full_like(values, 255 if kind else 0)
    inner = (slice(None), *(slice(FRAME, -FRAME),) * 2)
    framed[inner] = values[inner]
    write_raster(path, framed)
    return path


def write_raster(path: Path, values: npt.NDArray[np.uint8]) -> None:
    """Write RGB as a tiled GeoTIFF."""
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=values.shape[1],
        width=values.shape[2], dtype="uint8", crs="EPSG:28992",
        transform=rasterio.Affine(1, 0, 1e5, 0, -1, 5e5), tiled=True, blockxsize=512,
        blockysize=512, compress="DEFLATE", predictor=2, interleave="pixel",
    ) as raster:  # fmt: skip
        raster.write(values)


def write_mosaic(tiles: list[Path], path: Path, size: int) -> Path:
    """Repeat two tiles in turn, as a VRT of rows that are VRTs: few sources each."""
    rows = []
    for kind in (0, 1):
        row = path.with_name(f"row-{kind}-{size}.vrt")
        order = [tiles[(kind + i) % 2] for i in range(size // STEP)]
        places = [(0, i * STEP) for i in range(len(order))]
        row.write_text(vrt(order, places, (STEP, STEP), (STEP, size)))
        rows.append(row)
    order = [rows[i % 2] for i in range(size // STEP)]
    places = [(i * STEP, 0) for i in range(len(order))]
    path.write_text(vrt(order, places, (STEP, size), (size, size)))
    return path


def vrt(
    sources: list[Path],
    places: list[tuple[int, int]],
    shape: tuple[int, int],
    whole: tuple[int, int],
) -> str:
    """Put equal sources side by side."""
    bands = []
    for band in (1, 2, 3):
        parts = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{source.name}'
            f"</SourceFilename><SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{shape[1]}" ySize="{shape[0]}"/>'
            f'<DstRect xOff="{col}" yOff="{row}" xSize="{shape[1]}" '
            f'ySize="{shape[0]}"/></SimpleSource>'
            for source, (row, col) in zip(sources, places, strict=True)
        )
        bands.append(f'<VRTRasterBand dataType="Byte" band="{band}">{parts}')
    body = "</VRTRasterBand>".join([*bands, ""])
    return (
        f'<VRTDataset rasterXSize="{whole[1]}" rasterYSize="{whole[0]}">'
        "<SRS>EPSG:28992</SRS><GeoTransform>1e5,1,0,5e5,0,-1</GeoTransform>"
        f"{body}</VRTDataset>"
    )


def measure(scene: Path, work: Path) -> dict[str, Any]:
    """Segment one scene; peaks of client, scheduler and workers by stage."""
    out = work / f"out-{scene.stem}"
    with cluster(work) as (address, servers, log):
        started = time.perf_counter()
        process = segment(scene, out, address, work)
        watcher = ClusterWatcher(process, out, servers)
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        watcher.join()
        if code != 0:
            raise SystemExit(f"geoseg segment ended with {code}")
        said = worries(log)
    [result] = json.loads((out / "report.json").read_text())["scenes"]
    mpx = sum(entry["pixels"] for entry in result["classes"]) / 1e6
    polygons = sum(entry["polygons"] for entry in result["classes"])
    return {
        "seconds": round(seconds, 1),
        "mpx": round(mpx, 2),
        "polygons_per_mpx": round(polygons / mpx),
        "worries": said,
        "peak_mib": watcher.peaks,
    }


def measure_many(tile: Path, number: int, work: Path) -> dict[str, Any]:
    """Segment small scenes; peaks after the first tenth, and after all."""
    archive, out = work / "archive", work / "out-many"
    archive.mkdir()
    with rasterio.open(tile) as source:
        small = source.read(window=((0, 200), (0, 200)))
    write_raster(work / "small.tif", small)
    for index in range(number):
        (archive / f"s{index:05d}.tif").hardlink_to(work / "small.tif")
    with cluster(work) as (address, servers, log):
        started = time.perf_counter()
        process = segment(archive, out, address, work)
        pids = {"client": process.pid, "scheduler": servers[0].pid}
        first, peaks = dict.fromkeys(pids, 0.0), dict.fromkeys(pids, 0.0)
        while process.poll() is None:
            done = sum(1 for _ in out.glob("*/item.json"))
            if not any(first.values()) and done >= number // 10:
                first = {role: high_water_mib(pid) for role, pid in pids.items()}
                for pid in pids.values():
                    reset_high_water(pid)
            last = {role: high_water_mib(pid) for role, pid in pids.items()}
            if all(last.values()):
                peaks = last
            time.sleep(0.5)
        if process.returncode != 0:
            raise SystemExit(f"geoseg segment ended with {process.returncode}")
        scenes = json.loads((out / "report.json").read_text())["scenes"]
        return {
            "scenes": number,
            "whole": len(scenes),
            # They are one scene under many names.
            "kinds": len({json.dumps(scene["classes"]) for scene in scenes}),
            "seconds": round(time.perf_counter() - started, 1),
            "worries": worries(log),
            "peak_mib_first_tenth": first,
            "peak_mib_rest": peaks,
        }


def segment(
    scenes: Path, out: Path, address: str, work: Path
) -> subprocess.Popen[bytes]:
    """Start the command on a scheduler that runs."""
    command = [
        sys.executable, "-m", "geoseg", "segment", scenes, "-o", out, "-q",
        "--model", work / "model", "--set", "model.imports=[stubs]",
        "--device", "cpu", "--scheduler", address,
    ]  # fmt: skip
    return subprocess.Popen(list(map(str, command)), env=environment())


@contextmanager
def cluster(work: Path) -> Iterator[tuple[str, list[psutil.Process], Path]]:
    """A scheduler and two workers under the limit, as `docs/` tells users to start."""
    file, log = work / "scheduler.json", work / "dask.log"
    dask = [sys.executable, "-m", "dask"]
    common = ["--no-dashboard", "--scheduler-file", str(file), "--host", "127.0.0.1"]
    worker = ["worker", *common, "--nthreads", "2", "--memory-limit", LIMIT]
    worker += ["--local-directory", str(work)]
    with ExitStack() as ending:
        stream = ending.enter_context(log.open("wb"))
        servers = []
        for command in (["scheduler", *common, "--port", "0"], worker, worker):
            process = psutil.Popen(
                [*dask, *command], stdout=stream, stderr=stream, env=environment()
            )
            ending.callback(end, process)
            servers.append(process)
            wait_for_file(file, servers[0])
        yield json.loads(file.read_text())["address"], servers, log
    file.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """Of client and workers: the stub is found, and glibc keeps what a task needs."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, **SETTINGS, "PYTHONPATH": paths}


def worries(log: Path) -> list[str]:
    """Lines of Dask's logs that tell of too little memory."""
    lines = log.read_text(errors="replace").splitlines()
    # A nanny says under which limit it starts its worker.
    return [line for line in lines if WORRIES.search(line) and "Memory:" not in line]


class ClusterWatcher(Watcher):
    """Watches a client and the servers of a cluster, which are not its children."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        out: Path,
        servers: list[psutil.Process],
    ) -> None:
        super().__init__(process, out)
        self._servers = servers

    def _family(self) -> list[psutil.Process]:
        workers = [child for s in self._servers[1:] for child in s.children()]
        return [psutil.Process(self._process.pid), self._servers[0], *workers]

    def _role(self, member: psutil.Process) -> str:
        if member.pid == self._process.pid:
            return "client"
        return "scheduler" if member.pid == self._servers[0].pid else "worker"


def find_wrong(figures: dict[str, Any]) -> Iterator[str]:
    """Say which outputs are wrong, and what was never seen."""
    for run in figures["sizes"]:
        name = str(run["size"])
        if run["mpx"] != round(run["size"] ** 2 / 1e6, 2):
            yield f"{name}: {run['mpx']} Mpx have a class, and all are valid"
        for stage in STAGES:
            yield from _unseen(f"{name}, {stage}", run["peak_mib"][stage])
    small = figures.get("small")
    if small is None:
        return
    if (small["whole"], small["kinds"]) != (small["scenes"], 1):
        yield f"small: {small['whole']} are whole, of {small['kinds']} kinds"
    for part in ("peak_mib_first_tenth", "peak_mib_rest"):
        yield from _unseen(f"small, {part}", small[part])


def _unseen(where: str, peaks: dict[str, float]) -> Iterator[str]:
    unseen = [role for role, peak in peaks.items() if not peak]
    if unseen:
        yield f"{where}: nobody saw {', '.join(unseen)}"


def find_goals(figures: dict[str, Any]) -> Iterator[Goal]:
    """Compare figures with what they should be."""
    sizes = figures["sizes"]
    for run in sizes:
        what, size = run["polygons_per_mpx"], run["size"]
        yield Goal(f"{size}: polygons a Mpx", what, "at least", FEWEST)
        yield Goal(f"{size}: worries in Dask's logs", len(run["worries"]), "at most", 0)
    for stage in STAGES if len(sizes) > 1 else ():
        first, last = (run["peak_mib"][stage] for run in (sizes[0], sizes[-1]))
        yield from _flat(f"{stage}: peak of the last size over the first", first, last)
    small = figures.get("small")
    if small is None:
        return
    yield Goal("small: worries in Dask's logs", len(small["worries"]), "at most", 0)
    first, last = small["peak_mib_first_tenth"], small["peak_mib_rest"]
    yield from _flat("small: peak of the rest over the first tenth", first, last)


def _flat(what: str, first: dict[str, float], last: dict[str, float]) -> Iterator[Goal]:
    """Compare peaks of each role; `find_wrong` tells of those that nobody saw."""
    for role, before in first.items():
        if before:
            ratio = round(last[role] / before, 3)
            yield Goal(f"{role}, {what}", ratio, "at most", FLAT)


if __name__ == "__main__":
    main()
