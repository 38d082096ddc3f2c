"""Tables of a run's scenes: at its end, and for `geoseg status`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from geoseg.cli.options import stderr
from geoseg.cli.tables import never_fatal, print_line
from geoseg.reporting.amounts import add_sums, area_unit, duration, memory, sum_classes
from geoseg.reporting.record import WHOLE, RunRecord, SceneRecord

if TYPE_CHECKING:
    # Not at run time: this needs to load nothing that reads rasters.
    from geoseg.pipelines.merge import MergeResult
    from geoseg.pipelines.status import RunStatus

MOST_SCENES = 20
"""Scenes that a table lists unless more are asked for."""

_ORDER = ("running", "failed", "unfinished", "waiting", "done", "reused")
"""States from what is looked for first; the table of a large run has the first rows."""

_COLORS = {"failed": "red", "unfinished": "red", "running": "cyan", "done": "green"}


@never_fatal()
def print_status(status: RunStatus, *, all_scenes: bool) -> None:
    """Print how far a run is."""
    console = Console(highlight=False)
    record = status.record
    if status.note is not None:
        print_line(stderr(), f"Note: {status.note}")
    most = len(record.scenes) if all_scenes else MOST_SCENES
    if record.scenes:
        console.print(scene_table(record, most, parts=status.parts))
    print_line(console, f"Scenes: {counted(record)}")
    tiles = record.tiles()
    if tiles["all"]:
        share = tiles["done"] / tiles["all"]
        more = f"; {status.unopened:,} scenes not opened yet" if status.unopened else ""
        print_line(
            console,
            f"Tiles:  {tiles['done']:,} of {tiles['all']:,} ({share:.0%}{more})",
        )
    print_line(console, f"Run:    {_run_line(status)}")
    for scene in record.scenes:
        if scene.state == "failed":
            print_line(console, f"  {scene.scene_id}: {scene.reason}")


@never_fatal()
def print_merged(result: MergeResult) -> None:
    """Print what was merged, and what could not be."""
    console = Console(highlight=False)
    for path, what in result.files:
        print_line(console, f"{shlex.quote(str(path))}: {what}")
    for note in result.notes:
        stderr().print(Text(f"Note: {note}", style="yellow"), soft_wrap=True)


@never_fatal()
def print_run(record: RunRecord) -> None:
    """Print the scenes of a run that has ended, its time and its memory."""
    console = Console(highlight=False)
    if len(record.scenes) > 1:
        console.print(scene_table(record, MOST_SCENES))
        print_line(console, f"Scenes:  {counted(record)}")
    took = duration(record.seconds or 0)
    peaks = [f"{who} {memory(n)}" for who, n in record.peak_memory.items() if n]
    print_line(console, f"Time:    {took}; most memory: {', '.join(peaks)}")


def scene_table(
    record: RunRecord, most: int, *, parts: dict[str, int] | None = None
) -> Table:
    """Return a table of scenes.

    Args:
        record: The run.
        most: Rows at most; those that need attention go first if there are more.
        parts: Parts on disk by scene, for a column of them.
    """
    scenes = _chosen(record.scenes, most)
    areas = [add_sums(sum_classes(s.classes).values()).area_m2 or 0 for s in scenes]
    factor, sign = area_unit(max(areas, default=0.0))
    left = len(record.scenes) - len(scenes)
    caption = f"and {left:,} more; all are in report.json" if left else None
    table = Table(
        box=box.SIMPLE, caption=caption, caption_justify="left", padding=(0, 1, 0, 0)
    )
    table.add_column("scene", overflow="fold")
    table.add_column("state")
    columns = ["tiles", "skipped", *(["parts"] if parts else [])]
    for name in [*columns, f"area {sign}", "time", "memory"]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mostly", overflow="ellipsis", no_wrap=True)
    for scene, area in zip(scenes, areas, strict=True):
        cells = [_tiles(scene), _number(scene.tiles_skipped)]
        if parts:
            cells.append(_parts(scene, parts))
        table.add_row(
            Text(scene.scene_id),
            Text(scene.state, style=_COLORS.get(scene.state, "")),
            *cells,
            f"{area / factor:,.2f}" if area else "-",
            "-" if scene.seconds is None else duration(scene.seconds),
            memory(scene.peak_memory),
            Text(_mostly(scene)),
        )
    return table


def counted(record: RunRecord) -> str:
    """Say how many scenes there are of each state."""
    total = len(record.scenes)
    listed = ", ".join(f"{n:,} {state}" for state, n in record.counts().items())
    return f"{total:,} ({listed})" if listed else f"{total:,}"


def _chosen(scenes: Sequence[SceneRecord], most: int) -> Sequence[SceneRecord]:
    if len(scenes) <= most:
        return scenes
    return sorted(scenes, key=lambda scene: _ORDER.index(scene.state))[:most]


def _run_line(status: RunStatus) -> str:
    record = status.record
    if not status.alive:
        # A run that did all it could has ended, whatever became of its scenes.
        what = record.state if record.reason else "ended"
        when = f" {record.ended}" if record.ended else ""
        return f"{what}{when}" + (f": {record.reason}" if record.reason else "")
    if status.speed is None or status.seconds_left is None:
        return f"at work since {record.started}"
    left = duration(status.seconds_left)
    return f"at work, {status.speed:.3g} tiles/s, {left} left"


def _tiles(scene: SceneRecord) -> str:
    if scene.tiles is None:
        return "-"
    if scene.state in WHOLE:
        return f"{scene.tiles:,}"
    share = scene.tiles_done / scene.tiles if scene.tiles else 0
    return f"{scene.tiles_done:,}/{scene.tiles:,} {share:.0%}"


def _parts(scene: SceneRecord, parts: dict[str, int]) -> str:
    if scene.parts is None:
        return "-"
    if scene.state in WHOLE:
        return f"{scene.parts:,}"
    return f"{parts.get(scene.scene_id, 0):,}/{scene.parts:,}"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _mostly(scene: SceneRecord) -> str:
    """Name the largest class and its share of the pixels."""
    total = sum(entry.pixels for entry in scene.classes)
    if not total:
        return ""
    largest = max(scene.classes, key=lambda entry: entry.pixels)
    return f"{largest.pixels / total:.0%} {largest.name}"
