"""Class raster to polygons: ours against its rivals, in processes of their own.

    python benchmarks/bench_vectorize.py --prototypes ../shared/prototypes
        [--rivals PYTHON] [--kinds mid smooth noisy] [--rounds 5] [--json FILE]

`--prototypes` holds `labels.py`, which makes the class rasters, and `trace.cpp`, a
sketch that is a rival, too. "ours" lets each batch go, as a writer does; "ours-kept"
holds all of them, as rivals have to. `--rivals` is a Python of 3.12 or newer with
opencv-python-headless, contourrs, xarray-spatial, shapely and pyarrow; without it the
rasters are made here, which takes opencv, and two rivals are missing. GDAL's own
`gdal_polygonize.py` runs where it is installed. What the tools give on a corner is
compared first; then they take turns, and medians of CPU seconds count. Two threads are
measured by the clock, and so is "ours-gpkg", which writes while it traces; that means
something only on an idle machine: the load before is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from record import write_results

TOOLS = Path(__file__).parent / "vectorize_tools.py"
MAKE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import labels
size, kind, path = int(sys.argv[2]), sys.argv[3], sys.argv[4]
np.save(path, labels.gen(size, **labels.KINDS[kind]))
"""
GOALS = (
    ("rasterio", "ours", "cpu", 60.0),
    ("contourrs", "ours", "cpu", 6.0),
    ("sketch", "ours", "cpu", 1.0),
    ("sketch", "ours-kept", "cpu", 1.0),
    ("sketch", "ours-confidence", "cpu", 1.0),
    ("xarray-spatial", "ours", "cpu", None),
    ("ours", "threads:2", "wall", 1.7),
    ("geopandas-gpkg", "ours-gpkg", "wall", 18.0),
    ("geopandas-gpkg", "ours-gpkg", "cpu", None),
    ("gdal_polygonize", "ours-gpkg", "wall", None),
    ("gdal_polygonize", "ours-gpkg", "cpu", None),
    ("ours-simplified", "ours", "cpu", None),
)


class Worker:
    """A tool that waits for commands."""

    def __init__(self, name: str, python: str, tool: str, labels: Path) -> None:
        self.name = name
        self.runs: list[dict[str, float]] = []
        self._process = subprocess.Popen(
            [python, str(TOOLS), tool, str(labels)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str) -> dict[str, float]:
        """Send a command and wait for its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None, "it was opened"
        assert stdout is not None, "it was opened"
        stdin.write(f"{command}\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def median(self, key: str) -> float:
        """Return the median of what was measured."""
        return statistics.median(run[key] for run in self.runs)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def read_corner(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Return classes and polygons by their last pixel, which is unique."""
    lines = [line.split() for line in path.read_text().splitlines()]
    values = np.array([int(value) for value, _ in lines])
    polygons = shapely.make_valid(
        shapely.from_wkb([bytes.fromhex(wkb) for _, wkb in lines])
    )
    corners, owner = shapely.get_coordinates(polygons, return_index=True)
    last = np.full(len(polygons), -1.0)
    np.maximum.at(last, owner, corners[:, 1] * 2**20 + corners[:, 0])
    order = np.argsort(last)
    return values[order], polygons[order]


def compare(workers: list[Worker], folder: Path) -> None:
    """Fail unless all tools find the same polygons."""
    expected = None
    for worker in workers:
        if worker.name == "ours-simplified":
            continue
        path = folder / "corner.txt"
        worker.ask(f"check {path}")
        values, polygons = read_corner(path)
        if expected is None:
            expected = values, polygons
        same = (
            len(values) == len(expected[0])
            and (values == expected[0]).all()
            and shapely.equals(polygons, expected[1]).all()
        )
        if not same:
            raise SystemExit(
                f"{worker.name} finds other polygons than {workers[0].name}"
            )
    count = 0 if expected is None else len(expected[0])
    print(f"  the same {count} polygons from each tool in the corner")


def start(
    arguments: argparse.Namespace, kind: str, labels: Path, sketch: Path
) -> list[Worker]:
    """Start all tools that can be had."""
    own = [
        ("ours", "ours"),
        ("ours-kept", "ours-kept"),
        ("ours-confidence", "ours-confidence"),
        ("threads:2", "threads:2"),
        ("rasterio", "rasterio"),
        ("ours-gpkg", "ours-gpkg"),
        ("geopandas-gpkg", "geopandas-gpkg"),
        ("sketch", f"sketch:{sketch}"),
    ]
    if kind != "noisy":  # two million polygons are too many for GEOS here
        own.append(("ours-simplified", "ours-simplified"))
    tools = [(name, sys.executable, tool) for name, tool in own]
    if shutil.which("gdal_polygonize.py"):
        tools.append(("gdal_polygonize", sys.executable, "gdal_polygonize"))
    if arguments.rivals:
        rivals = ("contourrs", "xarray-spatial")
        tools += [(name, arguments.rivals, name) for name in rivals]
    return [
        Worker(name, python, tool, labels)
        for name, python, tool in tools
        if arguments.tools is None or name in arguments.tools
    ]


def measure(
    arguments: argparse.Namespace, kind: str, folder: Path, sketch: Path
) -> dict[str, Any]:
    """Measure all tools on one kind of raster."""
    labels = folder / f"{kind}.npy"
    python = arguments.rivals or sys.executable
    made = [python, "-c", MAKE, arguments.prototypes, str(arguments.side), kind]
    subprocess.run([*made, str(labels)], check=True)
    print(f"{kind}, {arguments.side} x {arguments.side}")
    workers = start(arguments, kind, labels, sketch)
    compare(workers, folder)
    load = os.getloadavg()[0]
    slow = {"rasterio", "ours-simplified", "geopandas-gpkg", "gdal_polygonize"}
    order = random.Random(0)
    for number in range(arguments.rounds):
        # Caches are as the tool before leaves them: not always the same one.
        for worker in order.sample(workers, len(workers)):
            # The slow ones spread less, and take nearly all of the time.
            if worker.name not in slow or number < arguments.slow_rounds:
                worker.runs.append(worker.ask("run"))
    for worker in workers:
        worker.close()
    return report(workers, arguments.side**2 / 1e6, load)


def report(workers: list[Worker], pixels: float, load: float) -> dict[str, Any]:
    """Print times and ratios; return them."""
    by_name = {worker.name: worker for worker in workers}
    tools = {}
    for name, worker in by_name.items():
        cpu, wall = worker.median("cpu"), worker.median("wall")
        count = int(worker.runs[0]["polygons"])
        tools[name] = {
            "cpu_s": round(cpu, 4),
            "wall_s": round(wall, 4),
            "polygons": count,
            "runs": len(worker.runs),
        }
        print(
            f"  {name:<16} {cpu:8.3f} CPU s {wall:8.3f} s {pixels / cpu:8.1f} Mpx/s "
            f"{count:>9} polygons"
        )
    ratios = {}
    for slow, fast, key, goal in GOALS:
        if slow in by_name and fast in by_name:
            ratio = by_name[slow].median(key) / by_name[fast].median(key)
            ratios[f"{slow} / {fast}, {key}"] = round(ratio, 3)
            wanted = "" if goal is None else f" (goal {goal:g})"
            print(f"  {slow} / {fast}, {key}: {ratio:.2f}{wanted}")
    return {"load_before": load, "tools": tools, "ratios": ratios}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prototypes", required=True)
    parser.add_argument("--rivals", help="Python with the rivals")
    parser.add_argument("--kinds", nargs="+", default=["mid", "smooth", "noisy"])
    parser.add_argument("--tools", nargs="+", help="only these; the default is all")
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sketch = folder / "sketch.so"
        source = str(Path(arguments.prototypes) / "trace.cpp")
        flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC"]
        subprocess.run(["g++", *flags, source, "-o", str(sketch)], check=True)
        for kind in arguments.kinds:
            figures[kind] = measure(arguments, kind, folder, sketch)
    if arguments.json:
        write_results(arguments.json, {"side": arguments.side, "kinds": figures})


if __name__ == "__main__":
    main()
