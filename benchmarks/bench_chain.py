"""What geoseg costs outside the model, against the chain that people write themselves.

    python benchmarks/bench_chain.py [--side 8000] [--rounds 3] [--json FILE]

A stub model of next to no cost, a mask of at least 3,000 polygons a Mpx. `geoseg
segment` runs as its users run it, with one worker; its CPU seconds are those of client,
scheduler and worker together. Starting up is measured on a scene of one tile, the model
by itself, and both are taken off on either side. The naive chain (chain_naive.py) runs
in turn with it. What both wrote is compared first. Then the stages of geoseg are timed
in this process, without Dask: what the whole run takes beyond them is Dask's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
from chain_scene import TILE, make_scene, save_model
from record import ROOT, write_results

NODATA = 255
FEWEST_POLYGONS = 3000
GOALS = {"with confidence": 50.0, "without": 40.0, "ratio": 10.0}
MARGIN = 1e-3
"""Classes may differ where the two best logits are closer than this (contract C3)."""


def main() -> None:
    """Run both chains, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_model(folder / "model")
        scene, tiny = folder / "scene.tif", folder / "tiny.tif"
        make_scene(scene, arguments.side)
        make_scene(tiny, TILE)
        figures = _measure(scene, tiny, model, folder, arguments.rounds)
    print_table(figures)
    if arguments.json is not None:
        write_results(arguments.json, {"side": arguments.side, **figures})


def _measure(
    scene: Path, tiny: Path, model: Path, folder: Path, rounds: int
) -> dict[str, Any]:
    load = os.getloadavg()[0]
    naive: list[dict[str, Any]] = []
    whole: dict[str, list[float]] = {"with confidence": [], "without": []}
    start: dict[str, list[float]] = {"with confidence": [], "without": []}
    for _ in range(rounds):
        naive.append(run_naive(scene, model, folder / "naive"))
        for kind in whole:
            whole[kind].append(segment(scene, model, folder / kind, kind))
            start[kind].append(segment(tiny, model, folder / f"tiny {kind}", kind))
        if len(naive) == 1:
            compared = compare(folder / "naive", folder / "with confidence")
    mpx = compared["valid_pixels"] / 1e6
    figures: dict[str, Any] = {
        "load_before": round(load, 2),
        "mpx": round(mpx, 2),
        "compared": compared,
        "naive": naive_stages(naive, mpx),
        "geoseg": {},
    }
    for kind in whole:
        stages = run_stages(scene, model, folder / f"stages {kind}", kind)
        ran = statistics.median(whole[kind]) - statistics.median(start[kind])
        figures["geoseg"][kind] = ours_stages(stages, ran, mpx)
    ours = figures["geoseg"]["with confidence"]["total"]
    figures["ratio"] = round(figures["naive"]["total"] / ours, 2)
    return figures


def segment(scene: Path, model: Path, out: Path, kind: str) -> float:
    """CPU seconds of `geoseg segment`: client, scheduler and worker."""
    command = [
        sys.executable, "-m", "geoseg", "segment", str(scene), "-o", str(out),
        "--model", str(model), "--set", "model.imports=[stubs]", "--device", "cpu",
        "--workers", "1", "--overwrite", "-q",
    ]  # fmt: skip
    if kind == "without":
        command.append("--no-confidence")
    return _cpu_of(command)[0]


def run_naive(scene: Path, model: Path, out: Path) -> dict[str, Any]:
    """CPU seconds of the naive chain by stage."""
    script = ROOT / "benchmarks" / "chain_naive.py"
    command = [sys.executable, str(script), str(scene), str(model), str(out)]
    seconds, text = _cpu_of(command)
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return {**found, "whole": seconds}


def run_stages(scene: Path, model: Path, out: Path, kind: str) -> dict[str, float]:
    """CPU seconds of geoseg's stages, without Dask."""
    script = ROOT / "benchmarks" / "chain_stages.py"
    command = [sys.executable, str(script), str(scene), str(model), str(out), kind]
    found: dict[str, float] = json.loads(_cpu_of(command)[1].splitlines()[-1])
    return found


def _cpu_of(command: list[str]) -> tuple[float, str]:
    """CPU seconds of a process and all that it waited for; its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return user + system, done.stdout


def compare(naive: Path, ours: Path) -> dict[str, Any]:
    """Compare masks, confidence and polygons.

    Raises:
        SystemExit: They differ by more than rounding explains.
    """
    [folder] = [path.parent for path in ours.glob("*/classes.tif")]
    masks = [_read(path / "classes.tif") for path in (naive, folder)]
    percents = [_read(path / "confidence.tif") for path in (naive, folder)]
    margin = np.load(naive / "margin.npy")
    valid = masks[0] != NODATA
    other = masks[0] != masks[1]
    apart = np.abs(percents[0].astype(int) - percents[1])[valid].max()
    polygons = [
        pyogrio.read_info(path / "segments.gpkg", layer="segments")["features"]
        for path in (naive, folder)
    ]
    found = {
        "valid_pixels": int(valid.sum()),
        "other_class": int(other.sum()),
        "other_class_beyond_rounding": int((other & (margin >= MARGIN)).sum()),
        "largest_confidence_difference": int(apart),
        "polygons": polygons,
        "polygons_per_mpx": round(polygons[1] / valid.sum() * 1e6),
    }
    print(f"compared: {found}", flush=True)
    if (
        found["other_class_beyond_rounding"]
        or apart > 1
        or abs(polygons[0] - polygons[1]) > 4 * other.sum()
        or ((masks[1] == NODATA) == valid).any()
    ):
        raise SystemExit("the outputs differ")
    if found["polygons_per_mpx"] < FEWEST_POLYGONS:
        raise SystemExit(f"too few polygons; the goal is {FEWEST_POLYGONS} a Mpx")
    return found


def _read(path: Path) -> Any:  # noqa: ANN401 (an array)
    with rasterio.open(path) as raster:
        return raster.read(1)


def naive_stages(runs: list[dict[str, Any]], mpx: float) -> dict[str, float]:
    """Core-ms a Mpx by stage, medians; the model apart."""
    stages = {
        name: statistics.median(run["cpu_s"][name] for run in runs) * 1e3 / mpx
        for name in runs[0]["cpu_s"]
    }
    model = stages.pop("model")
    found = {name: round(value, 2) for name, value in stages.items()}
    total = round(sum(stages.values()), 2)
    return {**found, "total": total, "model": round(model, 2)}


def ours_stages(stages: dict[str, float], ran: float, mpx: float) -> dict[str, float]:
    """Core-ms a Mpx by stage; Dask's is what the whole run takes beyond them."""
    found = {name: value * 1e3 / mpx for name, value in stages.items()}
    model = found.pop("model")
    total = ran * 1e3 / mpx - model
    found["dask"] = total - sum(found.values())
    found |= {"total": total, "model": model}
    return {name: round(value, 2) for name, value in found.items()}


def print_table(figures: dict[str, Any]) -> None:
    """Print core-ms a Mpx by stage and side."""
    columns = {"naive": figures["naive"], **figures["geoseg"]}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    print(f"core-ms a Mpx of {figures['mpx']} Mpx, the model and starting up apart")
    print(f"{'':<14}" + "".join(f"{head:>18}" for head in columns))
    for name in names:
        cells = (column.get(name) for column in columns.values())
        line = "".join(f"{'-' if c is None else f'{c:.2f}':>18}" for c in cells)
        print(f"{name:<14}{line}")
    for kind, column in figures["geoseg"].items():
        print(f"{kind}: {column['total']} (goal at most {GOALS[kind]})")
    print(f"naive / geoseg: {figures['ratio']} (goal at least {GOALS['ratio']})")


if __name__ == "__main__":
    main()
