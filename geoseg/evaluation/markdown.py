"""`evaluation.md`: the tables, for a repository or a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from geoseg.evaluation.results import Evaluation, RunResult, notes_of
from geoseg.evaluation.tables import (
    Table,
    class_table,
    comparison_table,
    overall_table,
    scene_table,
)


def markdown(evaluation: Evaluation) -> str:
    """Return the report as Markdown."""
    return "\n".join(_lines(evaluation))


def _lines(evaluation: Evaluation) -> Iterator[str]:
    yield f"# Evaluation on {_text(evaluation.title)}"
    yield ""
    for note in notes_of(evaluation):
        yield f"- {_text(note)}"
    for failure in evaluation.failures:
        yield f"- left out: {_text(failure.what)}: {_text(failure.reason)}"
    yield ""
    if len(evaluation.runs) > 1:
        yield "## Comparison"
        yield ""
        yield from _table(comparison_table(evaluation))
    for run in evaluation.runs:
        yield from _run(run)


def _run(run: RunResult) -> Iterator[str]:
    yield f"## {_text(run.name)}"
    yield ""
    yield (
        f"Model {_text(run.model)} ({run.model_sha256[:12]}), {len(run.scores)} "
        f"{'scene' if len(run.scores) == 1 else 'scenes'}, {run.counts.scored:,} "
        "labelled pixels."
    )
    yield ""
    yield from _table(overall_table(run))
    yield from _table(class_table(run))
    yield "Pixels by true (row) and predicted class (column):"
    yield ""
    yield from _table(_confusion(run))
    yield from _table(scene_table(run))


def _confusion(run: RunResult) -> Table:
    counts = run.counts
    names = [info.name for info in run.pairs.columns]
    rows = [
        (info.name, *(f"{n:,}" for n in row), f"{missed:,}")
        for info, row, missed in zip(
            run.pairs.labels, counts.confusion, counts.unpredicted, strict=True
        )
    ]
    return Table(("", *names, "nodata"), tuple(rows))


def _table(table: Table) -> Iterator[str]:
    yield _row(table.titles)
    numbers = len(table.titles) - table.names
    yield _row((*["---"] * table.names, *["---:"] * numbers))
    for cells in table.rows:
        yield _row(cells)
    yield ""


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(_text, cells))} |"


def _text(text: str) -> str:
    """Return text that ends no cell and begins no markup."""
    flat = " ".join(text.split())
    for sign in "\\`*_|<[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat
