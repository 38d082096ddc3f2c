"""What geoseg costs outside the model, against the chain that people write themselves.

    python benchmarks/bench_chain.py [--side 8000] [--rounds 3] [--json FILE]

A stub model of next to no cost, a mask of at least 3,000 polygons a Mpx. `geoseg
segment` runs as its users run it, with one worker; its CPU seconds are those of client,
scheduler and worker together. Of these, a run on a scene seven times as tall takes off
those of a run on the scene: what is left is what six more of it cost, without starting
up, whose seconds differ too much from run to run to be told from a few scenes' work.
The naive chain (chain_naive.py) runs in turn with both, on the scene, and counts from
after its imports. The model is taken off on both sides. What they wrote is compared
first. Then the stages of geoseg are timed in one process without Dask, tall less short,
too: what the whole run takes beyond them is Dask's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from chain_scene import make_scene, save_model
from record import ROOT, write_results

from geoseg._heap import SETTINGS

NODATA = 255
FEWEST_POLYGONS = 3000
GOALS = {"with confidence": 50.0, "without": 40.0, "ratio": 10.0}
_PR_SET_CHILD_SUBREAPER = 36
KINDS = ("with confidence", "without")
TIMES = 7
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
        scenes = folder / "scene.tif", folder / "tall.tif"
        for scene, times in zip(scenes, (1, TIMES), strict=True):
            make_scene(scene, arguments.side, times)
        figures = measure(*scenes, model, folder, arguments.rounds)
    print_table(figures)
    if arguments.json is not None:
        write_results(arguments.json, {"side": arguments.side, **figures})


def measure(
    scene: Path, tall: Path, model: Path, folder: Path, rounds: int
) -> dict[str, Any]:
    """Run all in turn; return core-ms a Mpx by stage, and what was compared."""
    load = os.getloadavg()[0]
    naive: list[dict[str, float]] = []
    runs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    stages: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        naive.append(run_naive(scene, model, folder / "naive"))
        for kind in KINDS:
            place = folder / f"{kind} {number}"
            short = segment(scene, model, place / "short", kind)
            runs[kind].append(segment(tall, model, place / "tall", kind) - short)
            less = run_stages(scene, model, place / "less", kind)
            more = run_stages(tall, model, place / "more", kind)
            stages[kind].append({name: more[name] - less[name] for name in more})
        if number == 0:
            first = folder / "with confidence 0" / "short"
            compared = compare(folder / "naive", first)
    mpx = compared["valid_pixels"] / 1e6
    figures: dict[str, Any] = {
        "load_before": round(load, 2),
        "compared": compared,
        "naive": per_mpx(medians(naive), mpx),
        "geoseg": {},
    }
    for kind in KINDS:
        found = medians(stages[kind])
        whole = statistics.median(runs[kind])
        found["dask"] = whole - sum(found.values())
        figures["geoseg"][kind] = per_mpx(found, (TIMES - 1) * mpx)
    ours = figures["geoseg"]["with confidence"]["total"]
    figures["ratio"] = round(figures["naive"]["total"] / ours, 2)
    return figures


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of each stage."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def per_mpx(seconds: dict[str, float], mpx: float) -> dict[str, float]:
    """Core-ms a Mpx of each stage, and of all but the model."""
    found = {name: value * 1e3 / mpx for name, value in seconds.items()}
    model = found.pop("model")
    found |= {"total": sum(found.values()), "model": model}
    return {name: round(value, 2) for name, value in found.items()}


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


def run_naive(scene: Path, model: Path, out: Path) -> dict[str, float]:
    """CPU seconds of the naive chain by stage."""
    script = ROOT / "benchmarks" / "chain_naive.py"
    command = [sys.executable, str(script), str(scene), str(model), str(out)]
    found: dict[str, float] = json.loads(_cpu_of(command)[1].splitlines()[-1])
    return found


def run_stages(scene: Path, model: Path, out: Path, kind: str) -> dict[str, float]:
    """CPU seconds of geoseg's stages, without Dask."""
    script = ROOT / "benchmarks" / "chain_stages.py"
    command = [sys.executable, str(script), str(scene), str(model), str(out), kind]
    found: dict[str, float] = json.loads(_cpu_of(command)[1].splitlines()[-1])
    return found


def _cpu_of(command: list[str]) -> tuple[float, str]:
    """CPU seconds of a process and all below it; its output.

    geoseg ends by killing its nanny and its worker, which nobody waits for then: here
    they are left to this process.
    """
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit(
            "this system does not hand over orphans: workers would not count"
        )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        env={
            **os.environ,
            **SETTINGS,  # Those of workers: stages are to cost what they cost there.
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    with suppress(ChildProcessError):
        while True:
            os.wait()
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
    shapes = [_polygons(path / "segments.gpkg") for path in (naive, folder)]
    polygons = [len(found) for found in shapes]
    found = {
        "valid_pixels": int(valid.sum()),
        "other_class": int(other.sum()),
        "other_class_beyond_rounding": int((other & (margin >= MARGIN)).sum()),
        "largest_confidence_difference": int(apart),
        "polygons": polygons,
        "polygons_per_mpx": round(polygons[1] / valid.sum() * 1e6),
    }
    print(f"compared: {found}", flush=True)
    # Ours have a vertex at each node: equal as shapes, not as lists of vertices.
    if not other.any() and (
        polygons[0] != polygons[1] or not shapely.equals(*shapes).all()
    ):
        raise SystemExit("the polygons differ")
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


def _polygons(path: Path) -> Any:  # noqa: ANN401 (an array)
    """Polygons by class and place."""
    _, _, wkb, [classes] = pyogrio.raw.read(
        path, layer="segments", columns=["class_id"]
    )
    shapes = shapely.from_wkb(wkb)
    keys = [*shapely.bounds(shapes).T, shapely.area(shapes), classes]
    return shapes[np.lexsort(keys)]


def _read(path: Path) -> Any:  # noqa: ANN401 (an array)
    with rasterio.open(path) as raster:
        return raster.read(1)


def print_table(figures: dict[str, Any]) -> None:
    """Print core-ms a Mpx by stage and side."""
    columns = {"naive": figures["naive"], **figures["geoseg"]}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    print("core-ms a Mpx with data, the model and starting up apart")
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
