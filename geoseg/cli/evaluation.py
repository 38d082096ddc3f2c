"""What an evaluation shows on a terminal: progress, and its closing tables."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Self

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from geoseg.cli.display import Display
from geoseg.cli.options import stderr
from geoseg.cli.progress import RunProgress
from geoseg.cli.tables import never_fatal, print_line
from geoseg.evaluation.results import Evaluation, notes_of
from geoseg.evaluation.tables import (
    Table,
    class_table,
    comparison_table,
    overall_table,
)
from geoseg.pipelines.evaluate import PAGE, Watcher
from geoseg.pipelines.segment import Listener, SegmentConfig


class EvaluationProgress(Watcher):
    """Shows masks being made, and then being compared.

    Args:
        verbosity: -1 shows nothing.
    """

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._display: Display | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take a bar away that is left."""
        if self._display is not None:
            self._display.__exit__(None, None, None)

    def segmenting(
        self, name: str, config: SegmentConfig
    ) -> AbstractContextManager[Listener]:
        """Say which run it is, and show it as `geoseg segment` does."""
        self._say(f"Masks of {name}")
        return RunProgress(config, verbosity=self._verbosity)

    def comparing(self, name: str, done: int, scenes: int) -> None:
        """Move the bar of a run; it goes away with its last scene."""
        if self._display is None:
            self._display = Display(self._verbosity, scenes, "Comparing")
            self._display.__enter__()
        self._display.show(done, scenes, f"Comparing {name}", f"{done}/{scenes} scenes")
        if done == scenes:
            self._display.__exit__(None, None, None)
            self._display = None

    def note(self, message: str) -> None:
        """Say a note."""
        self._say(f"Note: {message}", style="yellow")

    def _say(self, line: str, style: str = "") -> None:
        if self._verbosity >= 0:
            stderr().print(Text(line, style=style), soft_wrap=True)


@never_fatal()
def print_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Print the tables, what figures leave out, and where the page is."""
    console = Console(highlight=False)
    if len(evaluation.runs) > 1:
        console.print(_rich(comparison_table(evaluation), evaluation.title))
    else:
        [run] = evaluation.runs
        console.print(
            _rich(class_table(run, brief=True), f"{run.name} on {evaluation.title}")
        )
        for name, value in overall_table(run).rows:
            print_line(console, f"{name + ':':<15}{value}")
    for note in notes_of(evaluation):
        stderr().print(Text(f"Note: {note}", style="yellow"), soft_wrap=True)
    for failure in evaluation.failures:
        print_line(stderr(), f"Left out: {failure.what}: {failure.reason}")
    print_line(console, f"Report:  {shlex.quote(str(out / PAGE))}")


def _rich(table: Table, title: str) -> RichTable:
    """Return a table for a terminal."""
    shown = RichTable(
        title=Text(title),
        title_style="bold",
        box=box.SIMPLE,
        padding=0,  # of ten columns no title is broken in a word then
        show_edge=False,
    )
    for number, name in enumerate(table.titles):
        side: Literal["left", "right"] = "left" if number < table.names else "right"
        shown.add_column(name, justify=side, overflow="fold")
    for cells in table.rows:
        shown.add_row(*(Text(cell) for cell in cells))
    return shown
