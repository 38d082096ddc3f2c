"""One polygonizer in a process of its own, for bench_vectorize.py.

    python benchmarks/vectorize_tools.py TOOL LABELS.npy

Each line on standard input is a command: `run` traces the labels and answers with a
line of JSON; `check FILE` traces their corner of 600 pixels and writes a line with
class and WKB of each polygon. Rivals may live in another Python than geoseg.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

NODATA = 255
CORNER = 600
ROWS = 256
CRS, TRANSFORM = "EPSG:32631", (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0)
"""Of what is written: with numbers that pixels are found in again exactly."""
Labels = Any
Result = tuple[int, Iterator[tuple[int, bytes]]]
"""Number of polygons, and their classes and WKB; those cost extra, for `check` only."""
Tool = Callable[[Labels], Result]


def ours(labels: Labels, percents: Labels = None, *, keep: bool = False) -> Result:
    """Trace by rows, WKB in Arrow; batches are let go, as when they are written."""
    from affine import Affine

    from geoseg.vectorize import trace_rows

    rows = (
        (labels[i : i + ROWS], None if percents is None else percents[i : i + ROWS])
        for i in range(0, len(labels), ROWS)
    )
    with tempfile.TemporaryDirectory() as folder:
        batches = trace_rows(
            rows,
            labels.shape[1],
            transform=Affine.identity(),
            spill=Path(folder),
        )
        if keep or len(labels) <= CORNER:
            return _of_batches(list(batches))
        return sum(map(len, batches)), iter(())


def ours_kept(labels: Labels) -> Result:
    """Keep all WKB in memory, as rivals do."""
    return ours(labels, keep=True)


def ours_with_confidence(labels: Labels) -> Result:
    """Sum the confidence of each polygon, too."""
    return ours(labels, labels)


def ours_simplified(labels: Labels) -> Result:
    """Trace, then simplify the coverage by two pixels."""
    from affine import Affine

    from geoseg.vectorize import simplify, trace_rows

    with tempfile.TemporaryDirectory() as folder:
        traced = trace_rows(
            [(labels, None)],
            labels.shape[1],
            transform=Affine.identity(),
            spill=Path(folder),
        )
        return _of_batches(list(simplify(traced, 2.0)))


def ours_on_threads(labels: Labels, threads: int) -> Result:
    """Trace bands on threads and join them; batches are let go, as `ours` does."""
    from affine import Affine

    from geoseg.grid import Window
    from geoseg.vectorize import trace_bands

    with tempfile.TemporaryDirectory() as folder:
        batches = trace_bands(
            lambda window: (labels[window.slices], None),
            Window(0, 0, *labels.shape),
            height=2 * ROWS,
            transform=Affine.identity(),
            spill=Path(folder),
            threads=threads,
        )
        if len(labels) <= CORNER:
            return _of_batches(list(batches))
        return sum(map(len, batches)), iter(())


def ours_to_gpkg(labels: Labels, path: Path) -> Result:
    """Trace by rows and write a GeoPackage, with areas, index and style."""
    import pyproj
    from affine import Affine

    from geoseg.grid import Grid
    from geoseg.io.vector import write_segments
    from geoseg.types import ClassInfo
    from geoseg.vectorize import trace_rows

    transform = Affine(*TRANSFORM)
    grid = Grid(*labels.shape, transform, pyproj.CRS(CRS).to_wkt())
    classes = tuple(ClassInfo(i, f"class {i}", (i, i, i)) for i in range(1, 8))
    rows = ((labels[i : i + ROWS], None) for i in range(0, len(labels), ROWS))
    totals = write_segments(
        path,
        trace_rows(rows, labels.shape[1], transform=transform, spill=path.parent),
        grid=grid,
        classes=classes,
        scene_id="scene",
        provenance={},
    )
    return sum(total.polygons for total in totals.values()), _of_file(path, labels)


def geopandas_to_gpkg(labels: Labels, path: Path) -> Result:
    """Do what most people do, with fewer columns than ours and planar areas."""
    import geopandas
    import shapely
    from affine import Affine
    from rasterio.features import shapes

    found = [
        (int(value), shapely.geometry.shape(geometry))
        for geometry, value in shapes(
            labels, mask=labels != NODATA, transform=Affine(*TRANSFORM)
        )
    ]
    frame = geopandas.GeoDataFrame(
        {"class_id": [value for value, _ in found]},
        geometry=[polygon for _, polygon in found],
        crs=CRS,
    )
    frame["class_name"] = "class " + frame.class_id.astype(str)
    frame["area_m2"] = frame.area
    frame.to_file(path, layer="segments", engine="pyogrio")
    return len(frame), _of_file(path, labels)


def gdal_polygonize(labels: Labels, path: Path) -> Result:
    """Let GDAL's own program do it, of Debian's gdal-bin, say; it reads a GeoTIFF.

    Its time is that of a process of its own, with a start of a fifth of a second.
    """
    import pyogrio
    import rasterio
    from affine import Affine

    source = path.with_suffix(".tif")
    with rasterio.open(
        source, "w", driver="GTiff", height=len(labels), width=labels.shape[1],
        count=1, dtype="uint8", nodata=NODATA, crs=CRS, transform=Affine(*TRANSFORM),
    ) as raster:  # fmt: skip
        raster.write(labels, 1)
    command = ["gdal_polygonize.py", "-q", "-f", "GPKG", source, path]
    subprocess.run([*command, "segments", "class_id"], check=True)
    found = int(pyogrio.read_info(path, layer="segments")["features"])
    return found, _of_file(path, labels)


def _of_file(path: Path, labels: Labels) -> Iterator[tuple[int, bytes]]:
    """Return the polygons of a GeoPackage in pixels; of a corner only."""
    if len(labels) > CORNER:
        return iter(())
    import geopandas
    from affine import Affine

    frame = geopandas.read_file(path, layer="segments")
    pixels = frame.affine_transform((~Affine(*TRANSFORM)).to_shapely())
    return iter(list(zip(frame.class_id, pixels.to_wkb(), strict=True)))


def into_folder(tool: Callable[[Labels, Path], Result]) -> Tool:
    """Give a tool a new file for each run."""

    def run(labels: Labels) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            return tool(labels, Path(folder) / "segments.gpkg")

    return run


def _of_batches(batches: list[Any]) -> Result:
    pairs = (
        (int(class_id), wkb)
        for batch in batches
        for class_id, wkb in zip(
            batch.class_id, batch.geometry.to_pylist(), strict=True
        )
    )
    return sum(map(len, batches)), pairs


def rasterio_shapely(labels: Labels) -> Result:
    """Do what most people do."""
    import shapely
    from rasterio.features import shapes

    found = [
        (int(value), shapely.geometry.shape(geometry))
        for geometry, value in shapes(labels, mask=labels != NODATA)
    ]
    return len(found), ((value, shapely.to_wkb(polygon)) for value, polygon in found)


def contourrs(labels: Labels) -> Result:
    """Trace with the fastest peer, WKB in Arrow, too."""
    import contourrs as rival

    table = rival.shapes_arrow(labels, mask=labels != NODATA)
    names = table.column_names
    geometry = next(name for name in names if name.startswith("geom"))
    value = next(name for name in names if name != geometry)
    pairs = zip(
        map(int, table[value].to_pylist()), table[geometry].to_pylist(), strict=True
    )
    return len(table), pairs


def xarray_spatial(labels: Labels) -> Result:
    """Trace with numba; its rings are arrays of coordinates, no WKB."""
    import shapely
    import xarray
    from xrspatial import polygonize

    values, polygons = polygonize(
        xarray.DataArray(labels), mask=xarray.DataArray(labels != NODATA)
    )
    pairs = (
        (int(value), shapely.to_wkb(shapely.Polygon(rings[0], rings[1:])))
        for value, rings in zip(values, polygons, strict=True)
    )
    return len(values), pairs


def sketch(library: str) -> Tool:
    """Return the C++ sketch, built as a library."""
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    native = ctypes.CDLL(library)
    native.tr_run.restype = pointer
    native.tr_run.argtypes = [pointer, *[ctypes.c_int] * 3, pointer]
    native.tr_free.argtypes = [pointer]
    kinds = {"n": number, "bytes": number, "wkb": pointer, "off": pointer}
    for name, kind in {**kinds, "val": pointer}.items():
        function = getattr(native, f"tr_{name}")
        function.restype, function.argtypes = kind, [pointer]
    transform = np.array([0, 1, 0, 0, 0, 1], np.float64)

    def run(labels: Labels) -> Result:
        trace = native.tr_run(
            labels.ctypes.data, *labels.shape, NODATA, transform.ctypes.data
        )
        count = native.tr_n(trace)

        def pairs() -> Iterator[tuple[int, bytes]]:
            wkb = ctypes.string_at(native.tr_wkb(trace), native.tr_bytes(trace))
            offsets = (number * (count + 1)).from_address(native.tr_off(trace))
            values = ctypes.string_at(native.tr_val(trace), count)
            for index, value in enumerate(values):
                yield value, wkb[offsets[index] : offsets[index + 1]]

        result = count, iter(list(pairs()) if labels.shape[0] <= CORNER else ())
        native.tr_free(trace)
        return result

    return run


def choose(name: str) -> Tool:
    """Return the tool of a name; `sketch:LIBRARY`, `threads:NUMBER`."""
    kind, _, option = name.partition(":")
    if kind == "sketch":
        return sketch(option)
    if kind == "threads":
        return lambda labels: ours_on_threads(labels, int(option))
    tools: dict[str, Tool] = {
        "ours": ours,
        "ours-kept": ours_kept,
        "ours-confidence": ours_with_confidence,
        "ours-simplified": ours_simplified,
        "ours-gpkg": into_folder(ours_to_gpkg),
        "geopandas-gpkg": into_folder(geopandas_to_gpkg),
        "gdal_polygonize": into_folder(gdal_polygonize),
        "rasterio": rasterio_shapely,
        "contourrs": contourrs,
        "xarray-spatial": xarray_spatial,
    }
    return tools[kind]


def _cpu_seconds() -> float:
    """CPU seconds of this process and of those that it waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def main() -> None:
    """Answer commands until there are no more."""
    tool, labels = choose(sys.argv[1]), np.load(sys.argv[2])
    corner = np.ascontiguousarray(labels[:CORNER, :CORNER])
    tool(corner)  # imports, compiles
    for line in sys.stdin:
        command, _, path = line.strip().partition(" ")
        if command == "check":
            _, pairs = tool(corner)
            text = "".join(f"{value} {wkb.hex()}\n" for value, wkb in pairs)
            Path(path).write_text(text)
            print("{}", flush=True)
            continue
        wall, cpu = time.perf_counter(), _cpu_seconds()
        result = tool(labels)
        wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
        answer = {"wall": wall, "cpu": cpu, "polygons": result[0]}
        print(json.dumps(answer), flush=True)
        del result


if __name__ == "__main__":
    main()
