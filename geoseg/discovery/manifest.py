"""Manifests: text files with a location a line, and tables with a column of them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator

from geoseg.discovery.found import Found
from geoseg.errors import SceneError, UsageError
from geoseg.io.location import (
    beside,
    folder_of,
    name_for_gdal,
    shown,
    suffix_of,
    without_secrets,
)
from geoseg.io.vsi import read_bytes

SUFFIXES = (".txt", ".csv")
"""What a manifest's name ends in, lower case."""

COLUMNS = ("path", "href", "url", "uri", "location", "file", "filename")
"""Names of the column that holds locations, the first that is there counts."""

_TOLD = 5
"""Wrong lines that an error tells."""

_LONGEST = 8192
"""Characters of a location: no system has longer paths, and few servers longer URLs."""


def read_manifest(name: str, find: Callable[[str], list[Found]]) -> list[Found]:
    """Return the scenes that a manifest lists, in its order.

    Args:
        name: A .txt file with a file, folder, pattern or URL a line, or a .csv file
            with a header; relative ones lie beside it. Blank lines and those that begin
            with # say nothing.
        find: Gives the scenes that a location stands for.

    Raises:
        UsageError: It cannot be read, lists nothing, or lines name nothing that exists.
    """
    try:
        content = read_bytes(name).removeprefix(b"\xef\xbb\xbf")
    except SceneError as error:
        raise UsageError(str(error)) from error
    if b"\0" in content:  # UTF-16, as PowerShell writes it, or no text.
        raise UsageError(f"{shown(name)} is no list in UTF-8; save it as UTF-8")
    text = os.fsdecode(content)
    rows = _of_table(name, text) if suffix_of(name) == ".csv" else _of_lines(text)
    found: list[Found] = []
    wrong: list[str] = []
    listed = 0
    for number, location in rows:
        listed += 1
        try:
            found += find(_listed(name, location))
        except UsageError as error:
            reason = str(error).replace("\n", " ")  # A cell may have several lines.
            wrong.append(f"line {number}: {reason}")
    if wrong:
        more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        raise UsageError(f"{shown(name)}, {'; '.join(wrong[:_TOLD])}{more}")
    if not listed:
        raise UsageError(f"{shown(name)} lists no scene; write one location a line")
    return found


def _listed(manifest: str, location: str) -> str:
    """Return what a line names; another manifest is refused."""
    if len(location) > _LONGEST:
        raise UsageError(f"{len(location)} characters are no location; check its end")
    named = beside(folder_of(manifest), location)
    if suffix_of(name_for_gdal(named)) in SUFFIXES:
        told = without_secrets(location)
        raise UsageError(f"{told} is a manifest itself; list its scenes")
    return named


def _of_lines(text: str) -> Iterator[tuple[int, str]]:
    """Give the number and the location of each line that has one."""
    for number, line in enumerate(text.split("\n"), start=1):
        location = line.strip()
        if location and not location.startswith("#"):
            yield number, location


def _of_table(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Give the number and the location of each row of a table."""
    _, header = next(_of_lines(text), (0, ""))
    rows = _rows(name, text, max(",;\t", key=header.count))
    _, columns = next(rows, (0, []))
    if not columns:
        return
    lower = [column.lower() for column in columns]
    place = next((lower.index(known) for known in COLUMNS if known in lower), None)
    if place is None:
        raise UsageError(
            f"{shown(name)} has the columns {', '.join(columns)}, and none is named "
            f"{', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; rename the one with locations"
        )
    for number, cells in rows:
        location = cells[place] if place < len(cells) else ""
        if not location:
            raise UsageError(
                f"{shown(name)}, line {number}: the column {columns[place]} is empty"
            )
        yield number, location


def _rows(name: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Give the cells of each row that says something, and the line that it ends in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not cells[0].startswith("#"):
                yield reader.line_num, cells
    except csv.Error as error:
        raise UsageError(
            f"{shown(name)}, line {reader.line_num}: {error}; check its quotes"
        ) from error
