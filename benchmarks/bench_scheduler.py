"""Tiles a second through a real scheduler: bands against a task a tile.

    python benchmarks/bench_scheduler.py [--tiles 10000] [--overlap-tiles 2500]
        [--most 1000000] [--json FILE]

One function of next to no cost, the same on all sides, is run on every tile of a made
raster: by `geoseg.stream.SceneStream` with the bands of a real scene, by
`client.map` with a task a tile, and by `dask.array.overlap`. Scheduler and worker are
processes of their own, the same for all. The sums over all tiles must be equal: the
benchmark fails where they are not. Goals are met or missed, in table and JSON.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from distributed import Client
from goals import Goal, print_goals
from high_water import high_water_mib, reset_high_water
from record import ROOT, write_results
from servers import SECONDS, needed, wait_for_file

from geoseg import stream
from geoseg.cluster import RESOURCE
from geoseg.finish import SceneResult
from geoseg.graph import BandLogits, PartRecord, SceneJob
from geoseg.grid import Window
from geoseg.stream import SceneStream
from geoseg.tiling import TileGrid

PLUGIN = "plugin"
"""Name that a model's plugin would have, and the resource that it would offer."""

TILE, STRIDE = 16, 12
EDGE = (TILE - STRIDE) // 2
LEAST_RATIO, MOST_SECONDS, MOST_MIB = 20.0, 600.0, 500.0


def pixels(window: Window, side: int) -> npt.NDArray[np.int64]:
    """Read a window of the raster, which is 0 along its rim: overlaps are padded so."""
    rows = np.arange(window.row, window.row_stop)[:, None]
    cols = np.arange(window.col, window.col + window.width)[None, :]
    inside = (rows >= EDGE) & (rows < side - EDGE)
    inside = inside & (cols >= EDGE) & (cols < side - EDGE)
    return np.where(inside, (rows * 7 + cols * 13) % 251, 0)


def value_of(tile: npt.NDArray[np.int64]) -> int:
    """The work on a tile: it differs for each, whatever order they come in."""
    return int(tile[::2].sum() + 3 * tile[:, ::2].sum())


@dataclass(frozen=True)
class Job:
    """Stands for a scene: a grid of tiles, and nothing on disk."""

    grid: TileGrid
    scene_id: str = "scene"
    work: str = "/nowhere"

    @property
    def bands(self) -> Any:  # noqa: ANN401
        """As a scene's job has them."""
        return self.grid.bands()

    @property
    def parts(self) -> Any:  # noqa: ANN401
        """All bands: there is no region."""
        return self.bands


def predict(job: Job, index: int, plugin: str) -> BandLogits:
    """A band: its pixels are read once, tiles are views of them."""
    band = job.bands[index]
    read, total = pixels(band.footprint, job.grid.height), 0
    for place in band.tiles:
        inside = job.grid.tile(*place).relative_to(band.footprint)
        total += value_of(read[inside.slices])
    return BandLogits(index, {}, np.array([total]), 0)  # type: ignore[arg-type]


def blend(job: Job, index: int, bands: list[BandLogits]) -> PartRecord:
    """A part: what its own band gave; the others' are there, too."""
    own = next(logits for logits in bands if logits.index == index)
    with Path(job.work, str(index)).open("w") as stream:  # Records are files.
        stream.write(str(int(own.keep[0])))
    return PartRecord(index, {}, 0, 0)


def finish(job: Job) -> SceneResult:
    """The scene: the sum of its parts."""
    total = sum(int(path.read_text()) for path in Path(job.work).iterdir())
    return SceneResult(job.scene_id, "", "", total, 0, ())


def through_stream(client: Client, side: int, tiles: int) -> int:
    """Run the bands of a scene."""
    stream.predict_task, stream.blend_task = predict, blend  # type: ignore[assignment]
    stream.finish_task = finish  # type: ignore[assignment]
    stream.find_part = lambda job, index: None
    with tempfile.TemporaryDirectory() as work:
        job: Any = Job(TileGrid(side, side, TILE, STRIDE), work=work)
        jobs: list[SceneJob] = [job]
        [outcome] = SceneStream(client, PLUGIN, iter(jobs), lambda *_: None)
    if not isinstance(outcome, SceneResult):
        raise SystemExit(f"the scene failed: {outcome}")
    return outcome.tiles


def one_tile(place: tuple[int, int], side: int) -> int:
    """A task of `client.map`."""
    window = Window(place[0] * STRIDE, place[1] * STRIDE, TILE, TILE)
    return value_of(pixels(window, side))


def through_map(client: Client, side: int, tiles: int) -> int:
    """Run a task a tile, and gather what they give."""
    places = [(i, j) for i in range(tiles) for j in range(tiles)]
    return sum(client.gather(client.map(one_tile, places, side=side)))


def _chunk(block_info: Any, side: int) -> npt.NDArray[np.int64]:  # noqa: ANN401
    (row, _), (col, _) = block_info[None]["array-location"]
    return pixels(Window(row + EDGE, col + EDGE, STRIDE, STRIDE), side)


def _summed(block: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.array([[value_of(block)]])


def through_overlap(client: Client, side: int, tiles: int) -> int:
    """Run `dask.array.overlap`, as its documentation has it."""
    chunks = ((STRIDE,) * tiles,) * 2
    raster = da.map_blocks(_chunk, side=side, chunks=chunks, dtype=np.int64)
    values = da.map_overlap(
        _summed, raster, depth=EDGE, boundary=0, trim=False, chunks=(1, 1),
        dtype=np.int64, meta=np.empty((0, 0), np.int64),
    )  # fmt: skip
    return int(client.compute(values.sum()).result())


SIDES: dict[str, Callable[[Client, int, int], int]] = {
    "geoseg": through_stream,
    "client.map": through_map,
    "dask.array.overlap": through_overlap,
}


def main() -> None:
    """Run all sides, then a million tiles through geoseg's; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--overlap-tiles", type=int, default=2500)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    # Minutes for 10,000 tiles, as each takes some twenty tasks.
    rivals = {
        "client.map": arguments.tiles,
        "dask.array.overlap": arguments.overlap_tiles,
    }
    figures: dict[str, Any] = {name: compare(name, n) for name, n in rivals.items()}
    figures["many"] = many = measure("geoseg", arguments.most)
    print(f"{arguments.most} tiles: {many}")
    goals = [
        Goal(
            f"tiles a second, over {name}",
            figures[name]["ratio"],
            "at least",
            LEAST_RATIO,
        )
        for name in rivals
    ]
    goals.append(
        Goal(
            f"seconds for {arguments.most} tiles",
            many["seconds"],
            "at most",
            MOST_SECONDS,
        )
    )
    goals.append(
        Goal("scheduler meanwhile, MiB", many["scheduler_mib"], "at most", MOST_MIB)
    )
    figures["goals"] = print_goals(goals)
    if arguments.json is not None:
        write_results(arguments.json, figures)


def compare(name: str, tiles: int) -> dict[str, Any]:
    """Run a rival and geoseg on the same tiles."""
    ours, theirs = measure("geoseg", tiles), measure(name, tiles)
    ratio = round(ours["tiles_a_second"] / theirs["tiles_a_second"], 1)
    print(f"geoseg {ours}\n{name} {theirs}\nratio {ratio}", flush=True)
    return {"geoseg": ours, name: theirs, "ratio": ratio}


def sum_of_all(side: int) -> int:
    """Sum `value_of` over all tiles, by the formula and without a scheduler."""
    total = 0
    for row in range(0, side - TILE + 1, STRIDE):
        read = pixels(Window(row, 0, TILE, side), side)
        for weight, summed, step in (
            (1, read[::2].sum(axis=0), 1),
            (3, read.sum(axis=0), 2),
        ):
            tiles = np.lib.stride_tricks.sliding_window_view(summed, TILE)[::STRIDE]
            total += weight * int(tiles[:, ::step].sum())
    return total


def measure(name: str, tiles: int) -> dict[str, Any]:
    """Run one side on a cluster of its own.

    Raises:
        SystemExit: Its sum is wrong, or a server has ended.
    """
    count = round(tiles**0.5)
    side = TILE + STRIDE * (count - 1)
    with ExitStack() as ending:
        client, scheduler = cluster(ending)
        # Whatever is imported or compiled at first is no side's.
        SIDES[name](client, TILE + STRIDE * 7, 8)
        reset_high_water(scheduler)
        started = time.perf_counter()
        total = SIDES[name](client, side, count)
        seconds = time.perf_counter() - started
        if total != (expected := sum_of_all(side)):
            raise SystemExit(f"{name}: the sum is {total}, and should be {expected}")
        return {
            "tiles": count**2,
            "seconds": round(seconds, 2),
            "tiles_a_second": round(count**2 / seconds),
            "scheduler_mib": round(high_water_mib(scheduler), 1),
        }


def cluster(ending: ExitStack) -> tuple[Client, int]:
    """Start a scheduler and a worker of two threads; return its pid."""
    folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
    file = folder / "scheduler.json"
    start = [sys.executable, "-m", "dask"]
    common = ["--no-dashboard", "--scheduler-file", str(file)]
    resources = ["--resources", f"{RESOURCE}=1,{PLUGIN}=1000000"]
    worker = ["worker", *common, "--nthreads", "2", "--no-nanny", *resources]
    commands = [
        ["scheduler", *common, "--host", "127.0.0.1", "--port", "0"],
        [*worker, "--local-directory", str(folder), "--host", "127.0.0.1"],
    ]
    servers: dict[str, subprocess.Popen[bytes]] = {}
    for kind, command in zip(("scheduler", "worker"), commands, strict=True):
        process = subprocess.Popen(
            [*start, *command], stderr=subprocess.DEVNULL, cwd=ROOT / "benchmarks"
        )
        ending.callback(process.wait)
        ending.callback(process.kill)
        servers[kind] = process
        wait_for_file(file, servers["scheduler"])
    ending.enter_context(needed(servers))
    client = ending.enter_context(Client(scheduler_file=str(file)))
    client.wait_for_workers(1, timeout=SECONDS)
    return client, servers["scheduler"].pid


if __name__ == "__main__":
    # Workers import it by its name: what is defined in `__main__` would travel with
    # every task.
    import bench_scheduler

    bench_scheduler.main()
