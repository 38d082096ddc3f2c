"""Manifests: text files with a location a line, and tables with a column of them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator

from geoseg.discovery.found import Found
from geoseg.errors import SceneError, UsageError
from geoseg.io.location import beside, folder_of, shown, suffix_of
from geoseg.io.vsi import read_bytes

SUFFIXES = (".txt", ".csv")
"""What a manifest's name ends in, lower case."""

COLUMNS = ("path", "href", "url", "uri", "location", "file", "filename")
"""Names of the column that holds locations, the first that is there counts."""

_TOLD = 5
"""Wrong lines that an error tells."""


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
        text = os.fsdecode(read_bytes(name).removeprefix(b"\xef\xbb\xbf"))
    except SceneError as error:
        raise UsageError(str(error)) from error
    rows = _of_table(name, text) if suffix_of(name) == ".csv" else _of_lines(text)
    found: list[Found] = []
    wrong: list[str] = []
    listed = 0
    for number, location in rows:
        listed += 1
        try:
            if suffix_of(location) in SUFFIXES:
                raise UsageError(f"{location} is a manifest itself; list its scenes")
            found += find(beside(folder_of(name), location))
        except UsageError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        raise UsageError(f"{shown(name)}, {'; '.join(wrong[:_TOLD])}{more}")
    if not listed:
        raise UsageError(f"{shown(name)} lists no scene; write one location a line")
    return found


def _of_lines(text: str) -> Iterator[tuple[int, str]]:
    """Give the number and the location of each line that has one."""
    for number, line in enumerate(text.split("\n"), start=1):
        location = line.strip()
        if location and not location.startswith("#"):
            yield number, location


def _of_table(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Give the number and the location of each row of a table."""
    lines = list(_of_lines(text))
    if not lines:
        return
    header = lines[0][1]
    delimiter = max(",;\t", key=header.count)
    columns = [column.strip() for column in _cells(header, delimiter)]
    lower = [column.lower() for column in columns]
    place = next((lower.index(known) for known in COLUMNS if known in lower), None)
    if place is None:
        raise UsageError(
            f"{shown(name)} has the columns {', '.join(columns)}, and none is named "
            f"{', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; rename the one with locations"
        )
    for number, line in lines[1:]:
        cells = _cells(line, delimiter)
        location = cells[place].strip() if place < len(cells) else ""
        if not location:
            raise UsageError(
                f"{shown(name)}, line {number}: the column {columns[place]} is empty"
            )
        yield number, location


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader(io.StringIO(line), delimiter=delimiter))
