"""Tiles of logits to classes and confidence: ours against NumPy, in one process.

    python benchmarks/bench_blend.py [--prototypes ../shared/prototypes] [--rounds 7]
        [--json FILE]

"numpy" is what users write: each tile upsampled by torch, weighted and added to a
full-resolution sum, then divided; argmax, and a softmax for the confidence. Both sides
mask what is not wanted. `--prototypes` holds `blend.cpp`, a sketch that gives labels
only: it is compared with ours without confidence. Results are compared first; then all
take turns on one thread, and medians of CPU time count.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from record import write_results

from geoseg.blending import blend_classes
from geoseg.blending.weights import axis_weights
from geoseg.tiling import TileGrid
from geoseg.types import NODATA, BlendSpace

Pixels = npt.NDArray[np.uint8]

TILE, STRIDE = 720, 624
SIDES = {14: (728, 630)}
"""Tile and stride where the usual ones are no multiple of the factor."""
GOALS = (
    ("numpy", "ours", 18.0),
    ("numpy-labels", "ours-labels", None),
    ("sketch-labels", "ours-labels", 1.0),
)
FACTORS = (1, 2, 8, 14, 16)
CLASSES = (2, 16, 64, 254)
MOST_COST = 2.0
"""Of a logit at another factor or number of classes, over one of 7 classes at 4."""


@dataclass(frozen=True)
class Case:
    """A scene's tiles of logits."""

    num_classes: int = 7
    """K."""
    factor: int = 4
    """Pixels along a source pixel."""
    rows: int = 2
    """Rows of tiles."""
    cols: int = 4
    """Columns of tiles."""

    @cached_property
    def grid(self) -> TileGrid:
        """Where the tiles lie; the last ones are not pulled inward."""
        tile, stride = SIDES.get(self.factor, (TILE, STRIDE))
        height, width = (tile + (n - 1) * stride for n in (self.rows, self.cols))
        return TileGrid(height, width, tile, stride)

    @cached_property
    def tiles(self) -> dict[tuple[int, int], npt.NDArray[np.float16]]:
        """Smooth logits with noise, as a model's are."""
        rng = np.random.default_rng(0)
        side = self.grid.tile_size // self.factor
        tiles = {}
        for place in itertools.product(range(self.rows), range(self.cols)):
            coarse = torch.from_numpy(rng.normal(0, 4, (1, self.num_classes, 9, 9)))
            smooth = F.interpolate(coarse, (side, side), mode="bicubic")[0].numpy()
            noise = rng.normal(0, 0.3, smooth.shape)
            tiles[place] = (smooth + noise).astype(np.float16)
        return tiles

    @cached_property
    def keep(self) -> npt.NDArray[np.bool_]:
        """All but a corner holds data."""
        keep = np.ones((self.grid.height, self.grid.width), np.bool_)
        keep[: self.grid.height // 8, : self.grid.width // 8] = False
        return keep

    @property
    def megapixels(self) -> float:
        """Pixels of the scene, millions."""
        return self.grid.height * self.grid.width / 1e6


def ours(
    case: Case, *, confidence: bool = True, space: BlendSpace = "logits"
) -> tuple[Pixels, Pixels | None]:
    """Blend with geoseg."""
    return blend_classes(
        case.tiles,
        case.grid,
        case.grid.output,
        keep=case.keep,
        ids=np.arange(case.num_classes, dtype=np.uint8),
        space=space,
        confidence=confidence,
    )


def numpy_naive(case: Case, *, confidence: bool = True) -> tuple[Pixels, Pixels | None]:
    """Blend as users write it."""
    grid = case.grid
    (profile,) = axis_weights((0,), TILE, TILE, "hann")
    weights = np.outer(profile, profile)
    total = np.zeros((case.num_classes, grid.height, grid.width), np.float32)
    weight_sum = np.zeros((grid.height, grid.width), np.float32)
    for (i, j), tile in case.tiles.items():
        rows, cols = grid.tile(i, j).slices
        source = torch.from_numpy(tile.astype(np.float32))[None]
        upsampled = F.interpolate(
            source, (TILE, TILE), mode="bilinear", align_corners=False
        )[0].numpy()
        total[:, rows, cols] += upsampled * weights
        weight_sum[rows, cols] += weights
    total /= weight_sum
    mask = np.where(case.keep, total.argmax(axis=0).astype(np.uint8), NODATA)
    if not confidence:
        return mask, None
    # The largest softmax: its own exponential is 1.
    sums = np.exp(total - total.max(axis=0)).sum(axis=0)
    percent = np.rint(100 / sums).astype(np.uint8)
    return mask, np.where(case.keep, percent, NODATA)


class Sketch:
    """The sketch in the prototypes: float32 logits to labels."""

    def __init__(self, prototypes: Path, case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / "sketch.so"
            flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC"]
            source = str(prototypes / "blend.cpp")
            subprocess.run(["g++", *flags, source, "-o", str(built)], check=True)
            self._library = ctypes.CDLL(str(built))
        self._library.triad.restype = ctypes.c_double
        self._case = case
        places = itertools.product(range(case.rows), range(case.cols))
        logits = [case.tiles[place].astype(np.float32) for place in places]
        self._logits = np.stack(logits)
        (self._weights,) = axis_weights((0,), TILE, TILE, "hann")
        self._rows = np.array(case.grid.rows, np.int32)
        self._cols = np.array(case.grid.cols, np.int32)

    def labels(self) -> tuple[Pixels, None]:
        """Blend the case."""
        case, grid = self._case, self._case.grid
        mask = np.empty((grid.height, grid.width), np.uint8)
        pointers = [
            ctypes.c_void_p(array.ctypes.data)
            for array in (self._logits, self._rows, self._cols, self._weights, mask)
        ]
        self._library.fused(
            pointers[0],
            *(case.rows, case.cols, *pointers[1:3]),
            *(case.num_classes, TILE // case.factor, pointers[3]),
            *(grid.height, grid.width, pointers[4], 0, grid.height),
        )
        return np.where(case.keep, mask, NODATA), None

    def bandwidth(self) -> float:
        """Bytes a second that STREAM's triad moves on one thread."""
        count, repeats = 1 << 24, 5
        arrays = [np.ones(count, np.float32) for _ in range(3)]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        started = time.perf_counter()
        self._library.triad(*pointers, ctypes.c_long(count), repeats)
        return 12 * count * repeats / (time.perf_counter() - started)


def compare(case: Case, tools: dict[str, Callable[[], Any]]) -> None:
    """Fail unless all tools give the same classes and confidence."""
    expected, percent = numpy_naive(case)
    assert percent is not None, "it was asked for"
    for name, tool in tools.items():
        mask, confidence = tool()
        # Values that are equal but for rounding may be ranked either way.
        if (mask != expected).mean() > 1e-4 or ((mask == NODATA) == case.keep).any():
            raise SystemExit(f"{name} gives other classes than numpy")
        if confidence is not None:
            apart = np.abs(confidence.astype(np.int16) - percent)
            if apart.max() > 1:
                raise SystemExit(f"{name} gives another confidence than numpy")
    print("  the same classes and confidence from each tool")


def take_turns(
    tools: dict[str, Callable[[], Any]], rounds: int, megapixels: float
) -> dict[str, float]:
    """Return the median CPU time of each tool, milliseconds a megapixel."""
    times: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, tool in tools.items():
            started = time.process_time()
            tool()
            times[name].append(1e3 * (time.process_time() - started) / megapixels)
    return {name: statistics.median(own) for name, own in times.items()}


def bench_rivals(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare and time all tools on the usual case."""
    case = Case()
    tools: dict[str, Callable[[], Any]] = {
        "ours": partial(ours, case),
        "ours-labels": partial(ours, case, confidence=False),
        "numpy": partial(numpy_naive, case),
        "numpy-labels": partial(numpy_naive, case, confidence=False),
    }
    sketch = Sketch(arguments.prototypes, case) if arguments.prototypes else None
    if sketch is not None:
        tools["sketch-labels"] = sketch.labels
    print(f"{case.num_classes} classes at stride {case.factor}, hann")
    compare(case, tools)
    figures = take_turns(tools, arguments.rounds, case.megapixels)
    for name, cost in figures.items():
        print(f"  {name:<16} {cost:8.2f} core-ms/Mpx")
    ratios = {}
    for slow, fast, goal in GOALS:
        if slow in figures:
            ratio = figures[slow] / figures[fast]
            ratios[f"{slow} / {fast}"] = round(ratio, 2)
            wanted = "" if goal is None else f" (goal {goal:g})"
            print(f"  {slow} / {fast}: {ratio:.2f}{wanted}")
    found: dict[str, Any] = {
        "core_ms_per_mpx": {name: round(cost, 3) for name, cost in figures.items()},
        "ratios": ratios,
    }
    if sketch is not None:
        moved = sum(t.nbytes for t in case.tiles.values()) + 3 * case.keep.nbytes
        share = moved / sketch.bandwidth() / (figures["ours"] * case.megapixels / 1e3)
        found["triad_share"] = round(share, 3)
        print(f"  bytes moved at STREAM triad's speed: {share:.1%} of ours")
    return found


def bench_others(rounds: int) -> dict[str, Any]:
    """Time other factors and numbers of classes, by the logit at full resolution."""
    usual = Case()
    cases = {f"factor {f}": Case(factor=f) for f in FACTORS}
    # Logits of many classes are gigabytes at the usual size.
    cases |= {
        f"{k} classes": Case(k) if k <= 16 else Case(k, rows=1, cols=2) for k in CLASSES
    }
    found = {}
    for confidence in (True, False):
        for name, case in cases.items():
            tools = {
                name: partial(ours, case, confidence=confidence),
                "usual": partial(ours, usual, confidence=confidence),
            }
            times = take_turns(tools, rounds, 1)
            cost, base = (
                times[key] / of.megapixels / of.num_classes
                for key, of in ((name, case), ("usual", usual))
            )
            label = name if confidence else f"{name}, labels"
            found[label] = {
                "core_ms_per_mpx": round(cost * case.num_classes, 3),
                "per_logit_of_usual": round(cost / base, 2),
            }
            goal = f" (at most {MOST_COST:g})" if confidence else ""
            print(
                f"  {label:<20} {cost * case.num_classes:8.2f} core-ms/Mpx, a logit "
                f"{cost / base:.2f} times the usual{goal}"
            )
    spaces = {
        space: partial(ours, usual, space=space) for space in get_args(BlendSpace)
    }
    figures = take_turns(spaces, rounds, usual.megapixels)
    print(f"  probabilities {figures['probabilities']:.2f} core-ms/Mpx")
    found["probabilities"] = {"core_ms_per_mpx": round(figures["probabilities"], 3)}
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prototypes", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    figures = {
        "load_before": load,
        "rivals": bench_rivals(arguments),
        "others": bench_others(arguments.rounds),
    }
    if arguments.json:
        write_results(arguments.json, figures)


if __name__ == "__main__":
    main()
