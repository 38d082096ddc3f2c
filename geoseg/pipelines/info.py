"""The job `geoseg info`: what this installation and this machine have."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import pyogrio
import pyproj
import rasterio
import shapely
import torch

from geoseg import __version__
from geoseg.config import pipeline_names, recipes
from geoseg.errors import GeosegError
from geoseg.models.registry import BUILTIN, find_model, read_spec, weight_files
from geoseg.ops import LIBRARY

PACKAGES = ("transformers", "numpy", "scipy", "dask", "distributed")
"""Libraries whose version alone tells enough."""

DRIVERS = ("GTiff", "COG", "LIBERTIFF", "GPKG", "FlatGeobuf", "Parquet")
"""GDAL drivers that geoseg uses, or that make it faster."""

Sections = dict[str, list[tuple[str, str]]]
"""Title -> names and values."""


def collect(model: str | None = None) -> Sections:
    """Look around; starts nothing, and fetches nothing but a model asked for.

    Args:
        model: Folder, checkpoint or hub id to tell about instead of the built-in model.

    Raises:
        ModelError: There is no such model, or it cannot be used.
    """
    return {
        "Versions": _versions(),
        "Devices": _devices(),
        "Operators": _operators(),
        "GDAL drivers": _drivers(),
        "Models": _model(model) if model else _builtin_model(),
        "Recipes": _recipes(),
    }


def _versions() -> list[tuple[str, str]]:
    rows = [("geoseg", __version__), ("python", platform.python_version())]
    rows.append(("torch", torch.__version__))  # with the CUDA it is built for
    rows += [(name, _version(name)) for name in PACKAGES]
    return [
        *rows,
        ("rasterio", f"{rasterio.__version__}, GDAL {rasterio.__gdal_version__}"),
        ("pyogrio", f"{pyogrio.__version__}, GDAL {pyogrio.__gdal_version_string__}"),
        ("shapely", f"{shapely.__version__}, GEOS {shapely.geos_version_string}"),
        ("pyproj", f"{pyproj.__version__}, PROJ {pyproj.proj_version_str}"),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[tuple[str, str]]:
    memory = psutil.virtual_memory()
    rows = [
        ("cpu", f"{os.cpu_count()} cores, {platform.machine()}"),
        ("memory", f"{_gib(memory.total)}, {_gib(memory.available)} of it free"),
    ]
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "no device found" if built else "this PyTorch is built without it"
        return [*rows, ("cuda", f"no: {why}")]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        text = f"{device.name}, {_gib(device.total_memory)}"
        rows.append(
            (f"cuda:{index}", f"{text}, capability {device.major}.{device.minor}")
        )
    return rows


def _operators() -> list[tuple[str, str]]:
    if not LIBRARY.loaded:
        return [("ms_deform_attn", f"PyTorch reference ({LIBRARY.reason})")]
    devices = "CPU and CUDA" if LIBRARY.cuda else "CPU; no CUDA kernels yet"
    return [("ms_deform_attn", f"native, {devices}"), ("library", LIBRARY.reason)]


def _drivers() -> list[tuple[str, str]]:
    # Each wheel carries a GDAL: one for rasters, another for vectors.
    with rasterio.Env() as env:
        raster = set(env.drivers())
    vector = set(pyogrio.list_drivers())
    rows = []
    for name in DRIVERS:
        owners = [
            library
            for library, drivers in (("rasterio", raster), ("pyogrio", vector))
            if name in drivers
        ]
        rows.append((name, f"yes ({', '.join(owners)})" if owners else "no"))
    return rows


def _builtin_model() -> list[tuple[str, str]]:
    try:
        return _model(BUILTIN)
    except GeosegError as error:  # What is wrong belongs into the report, too.
        return [(BUILTIN, f"no: {error}")]


def _model(name: str) -> list[tuple[str, str]]:
    folder = find_model(name)
    spec = read_spec(folder, name=name)
    size = sum(path.stat().st_size for path in weight_files(folder))
    resolution = "any" if spec.resolution is None else f"{spec.resolution:g} m"
    return [
        (name, f"{folder} ({size / 1e6:.1f} MB)"),
        ("  classes", ", ".join(f"{c.id} {c.name}" for c in spec.classes)),
        ("  input", f"{', '.join(spec.bands)}; {', '.join(d for d, _ in spec.scale)}"),
        ("  tile size", f"{spec.tile_size} pixels"),
        ("  resolution", resolution),
        ("  sha256", spec.weights_sha256),
    ]


def _recipes() -> list[tuple[str, str]]:
    root = recipes()
    parts: dict[str, list[str]] = {}
    for path in sorted((root / "configs").glob("*/*.yaml")):
        parts.setdefault(path.parent.name, []).append(path.stem)
    rows = [("folder", str(Path(root))), ("pipelines", ", ".join(pipeline_names()))]
    return rows + [(group, ", ".join(names)) for group, names in parts.items()]


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
