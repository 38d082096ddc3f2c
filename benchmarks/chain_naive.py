"""The chain that people write with the libraries geoseg uses, stage by stage.

    python benchmarks/chain_naive.py SCENE MODEL OUT

Whole-scene arrays, as in the tutorials. It prints a line of JSON: CPU seconds by stage.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import rasterio.features
import rasterio.shutil
import shapely
import torch
import torch.nn.functional as F
from chain_scene import CLASSES, STRIDE, TILE
from rasterio.io import MemoryFile
from rasterio.windows import Window
from record import ROOT

NODATA = 255
SECONDS: dict[str, float] = {}


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the CPU seconds of a block to a stage."""
    started = time.process_time()
    yield
    SECONDS[name] = SECONDS.get(name, 0.0) + time.process_time() - started


def main() -> None:
    """Segment a scene."""
    scene, model, out = map(Path, sys.argv[1:])
    out.mkdir(exist_ok=True)
    network = _load(model)
    with rasterio.open(scene) as source:
        profile = {"crs": source.crs, "transform": source.transform}
        logits, weight, valid = _blend(source, network)
    with stage("blend"):
        logits /= weight
        mask = (logits.argmax(0) + 1).astype(np.uint8)
        exp = np.exp(logits - logits.max(0))
        percent = np.rint(exp.max(0) / exp.sum(0) * 100).astype(np.uint8)
        del exp
        mask[~valid], percent[~valid] = NODATA, NODATA
    np.save(out / "margin.npy", _margins(logits))
    with stage("cog"):
        _write_cog(mask, out / "classes.tif", "mode", profile)
        _write_cog(percent, out / "confidence.tif", "average", profile)
    with stage("trace"):
        polygons = [
            (shapely.geometry.shape(geometry), int(value))
            for geometry, value in rasterio.features.shapes(
                mask, mask=valid, transform=profile["transform"]
            )
        ]
    with stage("geopackage"):
        geometry, values = zip(*polygons, strict=True)
        table = geopandas.GeoDataFrame(
            {"class_id": values, "class_name": [f"class {v}" for v in values]},
            geometry=list(geometry),
            crs=profile["crs"],
        )
        table["area"] = table.area
        table.to_file(out / "segments.gpkg", layer="segments")
    print(json.dumps(SECONDS))


def _load(folder: Path) -> torch.nn.Module:
    sys.path.insert(0, str(ROOT / "tests"))
    import stubs  # noqa: F401 (it registers the model)
    from transformers import AutoModelForSemanticSegmentation

    torch.set_num_threads(1)
    network: torch.nn.Module = AutoModelForSemanticSegmentation.from_pretrained(folder)
    return network.eval()


def _blend(source: Any, network: torch.nn.Module) -> tuple[Any, Any, Any]:  # noqa: ANN401
    """Read tile by tile, predict, upsample, add up under a window."""
    height, width = source.shape
    logits = np.zeros((CLASSES, height, width), np.float32)
    weight = np.zeros((height, width), np.float32)
    valid = np.zeros((height, width), bool)
    line = np.sin(np.pi * (np.arange(TILE) + 0.5) / TILE) ** 2
    window = np.outer(line, line).astype(np.float32)
    for row in _origins(height):
        for col in _origins(width):
            place = (slice(row, row + TILE), slice(col, col + TILE))
            with stage("read"):
                pixels = source.read(window=Window(col, row, TILE, TILE))
                valid[place] = (pixels != 0).any(axis=0)
            with stage("model input"):
                # Times, as geoseg does it: the other rounding of a division may give
                # another half float, and another class, where two are nearly equal.
                scaled = pixels.astype(np.float32) * np.float32(1 / 255)
                tensor = torch.from_numpy(scaled)[None]
            with stage("model"), torch.inference_mode():
                # Half floats, as a model under autocast gives them.
                output = network(pixel_values=tensor).logits.half().float()
            with stage("blend"):
                fine = F.interpolate(
                    output, size=(TILE, TILE), mode="bilinear", align_corners=False
                )
                logits[:, *place] += fine[0].numpy() * window
                weight[place] += window
    return logits, weight, valid


def _origins(length: int) -> list[int]:
    last = length - TILE
    return sorted({*range(0, last, STRIDE), last})


def _margins(logits: Any) -> Any:  # noqa: ANN401 (an array)
    """How far the two best classes are apart; costs nothing that is measured."""
    best = np.partition(logits, CLASSES - 2, axis=0)[-2:]
    return (best[1] - best[0]).astype(np.float16)


def _write_cog(band: Any, path: Path, resampling: str, profile: Any) -> None:  # noqa: ANN401
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", count=1, dtype="uint8", nodata=NODATA, height=len(band),
            width=band.shape[1], **profile,
        ) as raster:  # fmt: skip
            raster.write(band, 1)
        with memory.open() as raster:
            rasterio.shutil.copy(
                raster, path, driver="COG", overview_resampling=resampling
            )


if __name__ == "__main__":
    main()
