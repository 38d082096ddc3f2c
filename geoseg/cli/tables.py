"""Tables and closing lines: results to stdout, failures to stderr."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from geoseg.cli.options import stderr
from geoseg.layout import PAGE
from geoseg.reporting.amounts import ClassSum, add_sums, area_unit, sum_classes

if TYPE_CHECKING:
    # Not at run time: these load PyTorch and more, and some commands need none of it.
    from geoseg.finish import ClassSummary
    from geoseg.pipelines.segment import RunReport
    from geoseg.pipelines.train_sweep import SweepResult
    from geoseg.pipelines.vectorize import VectorizeResult

ALL_CLASSES = 20
"""Classes up to which those that were not found are listed too."""


@contextmanager
def never_fatal() -> Iterator[None]:
    """Say on stderr that stdout takes no more: the files are written all the same."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # `| head` has seen enough
        # Python would try what is left once more at its end, and fail.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (stays)
        reason = error.strerror or error
        note = f"Note: all files are written, but stdout takes no lines: {reason}"
        stderr().print(Text(note, style="yellow"), soft_wrap=True)


@never_fatal()
def print_closing(report: RunReport, *, reused: int) -> None:
    """Print area by class, where the results are, and what to do next.

    Args:
        report: What became of every scene.
        reused: Scenes that an earlier call had finished.
    """
    console = Console(highlight=False)
    if report.results:
        count = len(report.results)
        scenes = "1 scene" if count == 1 else f"{count} scenes"
        title = report.results[0].scene_id if count == 1 else scenes
        entries = [entry for scene in report.results for entry in scene.classes]
        console.print(_class_table(title, entries))
        reuse = f", {reused} of them from an earlier call" if reused else ""
        folder = shlex.quote(str(report.out))
        print_line(console, f"Results: {folder} ({scenes}{reuse})")
        print_line(console, f"Report:  {shlex.quote(str(report.out / PAGE))}")
        print_line(console, f"Next:    geoseg preview {folder}")


def print_failures(report: RunReport) -> None:
    """Print which scenes failed and why, on stderr."""
    if not report.failures:
        return
    count = len(report.failures)
    total = count + len(report.results)
    console = stderr()
    what = "1 scene failed" if count == 1 else f"{count} scenes failed"
    print_line(console, f"Error: {what} of {total}:")
    for failure in report.failures:
        reason = " ".join(failure.reason.split())
        print_line(console, f"  {failure.scene_id}: {reason}")


@never_fatal()
def print_vectorized(result: VectorizeResult) -> None:
    """Print area by class, where the polygons are, and how long it took."""
    console = Console(highlight=False)
    count = sum(entry.polygons or 0 for entry in result.classes)
    if result.classes:
        console.print(_class_table(result.path.name, result.classes))
    polygons = "1 polygon" if count == 1 else f"{count:,} polygons"
    file = shlex.quote(str(result.path))
    print_line(console, f"Result: {file} ({polygons}, {result.seconds:.1f} s)")


@never_fatal()
def print_trained(folder: Path) -> None:
    """Print where a trained model is and how it is used."""
    console = Console(highlight=False)
    quoted = shlex.quote(str(folder))
    print_line(console, f"Model: {quoted}")
    print_line(console, f"Next:  geoseg segment SCENES... -o OUT --model {quoted}")


def print_sweep(results: Sequence[SweepResult]) -> None:
    """Print the trainings of a sweep, the best one first."""
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE)
    for text in results[0].run.settings:
        table.add_column(Text(text.partition("=")[0]), overflow="fold")
    for title in ("mIoU", "best step", "steps"):
        table.add_column(title, justify="right")
    table.add_column("folder", overflow="fold")
    known = [r for r in results if r.miou is not None]
    ordered = sorted(known, key=lambda r: -(r.miou or 0.0))
    ordered += [r for r in results if r.miou is None]
    for result in ordered:
        values = [Text(text.partition("=")[2]) for text in result.run.settings]
        table.add_row(*values, *_figures(result), Text(str(result.run.config.out)))
    console.print(table)


def _figures(result: SweepResult) -> tuple[str, str, str]:
    """Best score, its step, and steps in all, as far as they are known."""
    ended = result.outcome
    if ended is None:
        return "failed", "-", "-"
    score = "-" if ended.best_miou is None else f"{ended.best_miou:.3f}"
    step = "-" if ended.best_step is None else str(ended.best_step)
    return score, step, str(ended.steps)


def print_sections(sections: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Print named lists of names and values."""
    console = Console(highlight=False)
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    for title, rows in sections.items():
        console.print(Text(title, style="bold"))
        for name, value in rows:
            print_line(console, f"  {name:<{width}}  {value}")


def _class_table(title: str, entries: Sequence[ClassSummary]) -> Table:
    sums = sum_classes(entries)
    whole = add_sums(sums.values())
    factor, sign = area_unit(whole.area_m2 or 0.0)
    table = Table(
        title=Text(title), title_style="bold", box=box.SIMPLE, show_footer=len(sums) > 1
    )
    table.add_column("class", "all", overflow="fold")
    known = whole.area_m2 is not None
    header = f"area {sign}" if known else "pixels"
    total = _size(whole, factor) if known else f"{whole.pixels:,}"
    table.add_column(header, total, justify="right")
    table.add_column("share", "", justify="right")
    table.add_column("polygons", _count(whole.polygons), justify="right")
    shown = {name: entry for name, entry in sums.items() if entry.pixels}
    for name, entry in (sums if len(sums) <= ALL_CLASSES else shown).items():
        # Scenes of several resolutions: then shares are of the ground, not of pixels.
        part, base = entry.area_m2, whole.area_m2
        if base is None:
            part, base = entry.pixels, whole.pixels
        share = "-" if part is None or not base else f"{part / base:.1%}"
        size = _size(entry, factor) if known else f"{entry.pixels:,}"
        table.add_row(Text(name), size, share, _count(entry.polygons))
    return table


def _size(entry: ClassSum, factor: float) -> str:
    return "-" if entry.area_m2 is None else f"{entry.area_m2 / factor:,.2f}"


def _count(polygons: int | None) -> str:
    return "-" if polygons is None else f"{polygons:,}"


def print_line(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no wrapping of paths."""
    console.print(Text(text), soft_wrap=True)
