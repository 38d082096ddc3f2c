"""A bar on a terminal, a line now and then elsewhere; light to import."""

from __future__ import annotations

from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from geoseg.cli.options import stderr
from geoseg.pipelines import vectorize

LINE_SECONDS = 15.0
"""Least time between two plain lines of progress."""


class Display:
    """A progress bar on stderr, or plain lines where stderr is no terminal.

    Args:
        verbosity: -1 shows nothing.
        total: Steps in all, None while unknown.
        what: Said before the bar.
    """

    def __init__(self, verbosity: int, total: int | None, what: str) -> None:
        self.verbosity = verbosity
        self._console = stderr()
        self._bar = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=verbosity < 0 or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total, status="")
        self._lines = verbosity >= 0 and not self._console.is_terminal
        self._last_line = monotonic()

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def say(self, line: str, style: str = "") -> None:
        """Print one line above the bar."""
        if self.verbosity >= 0:
            self._console.print(Text(line, style=style), soft_wrap=True)

    def show(self, done: int, total: int | None, what: str, status: str) -> None:
        """Move the bar, or print a plain line when the last one is a while ago."""
        self._bar.update(
            self._task, completed=done, total=total, description=what, status=status
        )
        now = monotonic()
        if self._lines and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self.say(f"{what}: {status}")


class VectorizeProgress(Display, vectorize.Listener):
    """Shows a run of `vectorize`, by the rows that were read."""

    def __init__(self, *, verbosity: int = 0) -> None:
        super().__init__(verbosity, None, "Opening")
        self._lock = Lock()
        self._what = ""
        self._rows = self._done = 0

    def begun(self, what: str, rows: int) -> None:
        """Begin a pass over the raster."""
        self._what, self._rows, self._done = what, rows, 0
        self._show()

    def rows_done(self, rows: int) -> None:
        """Move the bar."""
        with self._lock:
            self._done += rows
            self._show()

    def note(self, message: str) -> None:
        """Say a note."""
        self.say(f"Note: {message}", style="yellow")

    def _show(self) -> None:
        what = self._what
        if self._done == self._rows:
            what = "Writing"  # what is held back until all rows were read
        status = f"{self._done:,}/{self._rows:,} rows"
        self.show(self._done, self._rows, what, status)
