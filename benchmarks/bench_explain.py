"""Peak memory of `geoseg explain features` on small and large scenes (contract C8).

    make demo  # fetches the photograph
    python benchmarks/bench_explain.py [--sizes 6000 24000] [--json FILE]

A scene is a VRT that repeats a real photograph. The model is a ViT of one layer, alone,
with random weights and as many channels as the one that ships: what features, their
basis and their layers hold does not depend on how they were made. The peak is the
kernel's, of the whole process.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import rasterio
import torch
from goals import Goal, print_goals
from record import ROOT, write_results
from transformers import BitImageProcessor, DINOv3ViTConfig, DINOv3ViTModel

PHOTOGRAPH = ROOT / "demo" / "scene" / "test_tiled.tif"
TILE = 720


def main() -> None:
    """Explain scenes, each in a process of its own; print peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6000, 24000])
    parser.add_argument("--photograph", type=Path, default=PHOTOGRAPH)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save_vit(work / "vit")
        for size in arguments.sizes:
            scene = work / f"scene-{size}.vrt"
            place = repeat(arguments.photograph.resolve(), scene, size)
            runs.append({"size": size, **measure(scene, place, work)})
            print("  ".join(f"{k} {v}" for k, v in runs[-1].items()), flush=True)
    ratio = runs[-1]["peak_mib"] / runs[0]["peak_mib"]
    name = f"peak of {runs[-1]['size']} squared over that of {runs[0]['size']} squared"
    goals = print_goals([Goal(name, round(ratio, 3), "at most", 1.1)])
    if arguments.json is not None:
        write_results(arguments.json, {"runs": runs, "goals": goals})


def save_vit(folder: Path) -> None:
    """Write a DINOv3 of one layer and one head, with 96 channels."""
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=96,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_register_tokens=4,
        patch_size=16,
    )
    DINOv3ViTModel(config).save_pretrained(folder)
    BitImageProcessor(do_resize=False).save_pretrained(folder)


def repeat(photograph: Path, scene: Path, size: int) -> str:
    """Write a VRT that repeats a photograph; return a place in it, as --at takes it."""
    with rasterio.open(photograph) as dataset:
        height, width, transform = dataset.height, dataset.width, dataset.transform
        crs = dataset.crs.to_wkt()
    sources = [
        f'<SourceFilename relativeToVRT="0">{photograph}</SourceFilename>'
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{col}" yOff="{row}" xSize="{width}" ySize="{height}"/>'
        for row in range(0, size, height)
        for col in range(0, size, width)
    ]
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{color}'
        "</ColorInterp>"
        + "".join(
            f"<SimpleSource>{source}<SourceBand>{band}</SourceBand></SimpleSource>"
            for source in sources
        )
        + "</VRTRasterBand>"
        for band, color in enumerate(("Red", "Green", "Blue"), start=1)
    )
    numbers = ", ".join(str(number) for number in transform.to_gdal())
    scene.write_text(
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}">'
        f"<SRS>{quoteattr(crs)[1:-1]}</SRS><GeoTransform>{numbers}</GeoTransform>"
        f"{bands}</VRTDataset>"
    )
    x, y = transform @ (size / 2, size / 2)
    return f"{x},{y}"


def measure(scene: Path, place: str, work: Path) -> dict[str, Any]:
    """Explain one scene and return what it took."""
    command = [
        sys.executable, "-m", "geoseg", "explain", "features", str(scene),
        "--at", place, "--model", str(work / "vit"), "--tile-size", str(TILE),
        "--scale", "255", "--resolution", "native",
        "-o", str(work / f"out-{scene.stem}"), "-q",
    ]  # fmt: skip
    started = time.perf_counter()
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status != 0:
        raise SystemExit(
            f"geoseg explain ended with {os.waitstatus_to_exitcode(status)}"
        )
    return {
        "seconds": round(time.perf_counter() - started, 1),
        # The kernel counts it in KiB.
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    main()
