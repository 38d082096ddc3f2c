"""Tables and closing lines: results to stdout, failures to stderr."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from geoseg.cli.options import stderr
from geoseg.finish import SceneResult
from geoseg.pipelines.segment import RunReport

Number = TypeVar("Number", int, float)

ALL_CLASSES = 20
"""Classes up to which those that were not found are listed too."""

AREA_UNITS = ((1e6, "km²"), (1e4, "ha"), (1.0, "m²"))
"""Square metres of a unit and its sign, largest first."""


@dataclass
class ClassSum:
    """One class over all scenes of a run."""

    pixels: int = 0
    """Pixels of the class."""
    polygons: int | None = 0
    """Polygons; None if a scene has none."""
    area_m2: float | None = 0.0
    """Ground area; None if that of a scene is unknown."""


def sum_classes(results: Sequence[SceneResult]) -> dict[str, ClassSum]:
    """Add up classes by name, in the order of the class table."""
    sums: dict[str, ClassSum] = {}
    for result in results:
        for entry in result.classes:
            total = sums.setdefault(entry.name, ClassSum())
            total.pixels += entry.pixels
            total.polygons = _add(total.polygons, entry.polygons)
            total.area_m2 = _add(total.area_m2, entry.area_m2)
    return sums


def print_closing(report: RunReport, *, reused: int) -> None:
    """Print area by class, where the results are, and what to do next.

    Args:
        report: What became of every scene.
        reused: Scenes that an earlier call had finished.
    """
    console = Console(highlight=False)
    if report.results:
        console.print(_class_table(report.results))
        count = len(report.results)
        scenes = "1 scene" if count == 1 else f"{count} scenes"
        reuse = f", {reused} of them from an earlier call" if reused else ""
        folder = shlex.quote(str(report.out))
        _line(console, f"Results: {folder} ({scenes}{reuse})")
        _line(console, f"Next:    geoseg preview {folder}")


def print_failures(report: RunReport) -> None:
    """Print which scenes failed and why, on stderr."""
    if not report.failures:
        return
    count = len(report.failures)
    total = count + len(report.results)
    console = stderr()
    what = "1 scene failed" if count == 1 else f"{count} scenes failed"
    _line(console, f"Error: {what} of {total}:")
    for failure in report.failures:
        reason = " ".join(failure.reason.split())
        _line(console, f"  {failure.scene_id}: {reason}")


def print_trained(folder: Path) -> None:
    """Print where a trained model is and how it is used."""
    console = Console(highlight=False)
    quoted = shlex.quote(str(folder))
    _line(console, f"Model: {quoted}")
    _line(console, f"Next:  geoseg segment SCENES... -o OUT --model {quoted}")


def print_sections(sections: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Print named lists of names and values."""
    console = Console(highlight=False)
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    for title, rows in sections.items():
        console.print(Text(title, style="bold"))
        for name, value in rows:
            _line(console, f"  {name:<{width}}  {value}")


def area_unit(largest_m2: float) -> tuple[float, str]:
    """Choose one unit for a column of areas: its square metres and its sign."""
    for factor, sign in AREA_UNITS:
        if largest_m2 >= factor:
            return factor, sign
    return AREA_UNITS[-1]


def _add(total: Number | None, value: Number | None) -> Number | None:
    return None if total is None or value is None else total + value


def _class_table(results: Sequence[SceneResult]) -> Table:
    sums = sum_classes(results)
    whole = ClassSum()
    for entry in sums.values():
        whole.pixels += entry.pixels
        whole.polygons = _add(whole.polygons, entry.polygons)
        whole.area_m2 = _add(whole.area_m2, entry.area_m2)
    factor, sign = area_unit(whole.area_m2 or 0.0)
    one = len(results) == 1
    title = results[0].scene_id if one else f"{len(results)} scenes"
    table = Table(
        title=Text(title), title_style="bold", box=box.SIMPLE, show_footer=len(sums) > 1
    )
    table.add_column("class", "all", overflow="fold")
    known = whole.area_m2 is not None
    header = f"area {sign}" if known else "pixels"
    table.add_column(header, _size(whole, factor), justify="right")
    table.add_column("share", "", justify="right")
    table.add_column("polygons", _count(whole.polygons), justify="right")
    shown = {name: entry for name, entry in sums.items() if entry.pixels}
    for name, entry in (sums if len(sums) <= ALL_CLASSES else shown).items():
        # Scenes of several resolutions: then shares are of the ground, not of pixels.
        part, base = entry.area_m2, whole.area_m2
        if part is None or base is None:
            part, base = entry.pixels, whole.pixels
        share = f"{part / base:.1%}" if base else "-"
        table.add_row(Text(name), _size(entry, factor), share, _count(entry.polygons))
    return table


def _size(entry: ClassSum, factor: float) -> str:
    if entry.area_m2 is None:
        return f"{entry.pixels:,}"
    return f"{entry.area_m2 / factor:,.2f}"


def _count(polygons: int | None) -> str:
    return "-" if polygons is None else f"{polygons:,}"


def _line(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no wrapping of paths."""
    console.print(Text(text), soft_wrap=True)
