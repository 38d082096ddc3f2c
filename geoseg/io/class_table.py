"""Class tables that users write: names, colours, merging and dropping of classes."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geoseg.errors import ConfigError
from geoseg.io.legend import Color
from geoseg.io.table_file import read_entries
from geoseg.types import unwritable

DROP = "drop"
"""Word in the column `into` for a class that gets no polygons."""

_COLUMNS = ("id", "name", "color", "into")


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One row of a class table."""

    id: int
    """Value in the raster."""
    name: str | None = None
    """Name; None: the raster's own, or one made of the id."""
    color: Color | None = None
    """Red, green, blue, each 0-255; None: the raster's own, or a made one."""
    into: int | Literal["drop"] | None = None
    """Class that it becomes part of; None: none but itself."""

    @property
    def target(self) -> int | None:
        """Class of its polygons; None if it has none."""
        if self.into is None:
            return self.id
        return self.into if isinstance(self.into, int) else None


def read_class_table(path: Path) -> tuple[ClassRow, ...]:
    """Read a class table from CSV (.csv, .tsv, .txt), YAML or JSON.

    CSV has a line of titles (id, name, color, into; only id must be there), with
    commas, semicolons or tabs between. YAML and JSON have a list of the same, on its
    own or under `classes`, as geoseg's recipes and models do.

    Raises:
        ConfigError: It cannot be read, a value is wrong, or a class is there twice.
    """
    rows = tuple(_row(entry, f"{path}, {place}") for place, entry in read_entries(path))
    if not rows:
        raise ConfigError(f"the class table {path} is empty; give it a row a class")
    _check(rows, path)
    return rows


def _row(entry: Any, where: str) -> ClassRow:  # noqa: ANN401 (as it is written)
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: {_shown(entry)} is no class; give it an id")
    for key in entry:
        if key not in _COLUMNS:
            near = difflib.get_close_matches(str(key), _COLUMNS, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            raise ConfigError(
                f"{where}: a class table has no column {_shown(key)} (it has "
                f"{', '.join(_COLUMNS)}); {hint}"
            )
    if entry.get("id") in (None, ""):
        raise ConfigError(f"{where}: the id is missing; give the value in the raster")
    color = entry.get("color")
    return ClassRow(
        id=_number(entry["id"], "id", where),
        name=_name(entry.get("name"), where),
        color=None if color is None else _color(color, where),
        into=_into(entry.get("into"), where),
    )


def _name(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{where}: name is {_shown(value)}; write text, in quotes")
    wrong = unwritable(value)
    if wrong is not None:
        raise ConfigError(
            f"{where}: name holds the character U+{ord(wrong):04X}, which no style "
            "may hold; remove it"
        )
    return value.strip() or None


def _number(value: object, column: str, where: str) -> int:
    # Spreadsheets write 3.0 in a column with gaps. Python's `int` reads 1_0, too.
    found = re.fullmatch(r"\s*([+-]?[0-9]{1,20})(\.0*)?\s*", str(value))
    if found is None:
        raise ConfigError(f"{where}: {column} is {_shown(value)}; use a whole number")
    return int(found[1])


def _into(value: object, where: str) -> int | Literal["drop"] | None:
    if value in (None, ""):
        return None
    if str(value).strip().lower() == DROP:
        return "drop"
    try:
        number = _number(value, "into", where)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: into is {_shown(value)}; use the id of a class, or {DROP}"
        ) from error
    if not 0 <= number <= 255:
        raise ConfigError(f"{where}: into is {number}; polygons have classes 0 to 255")
    return number


def _color(value: object, where: str) -> Color:
    """Read '#4a90d2', '74 144 210' or [74, 144, 210]."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        words = [str(word) for word in value]
    else:
        text = str(value).strip()
        if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
            red, green, blue = bytes.fromhex(text[1:])
            return red, green, blue
        words = re.split(r"[,\s]+", text)
    parts = [int(word) for word in words if re.fullmatch("[0-9]{1,3}", word)]
    if len(words) != 3 or len(parts) != 3 or max(parts) > 255:
        raise ConfigError(
            f"{where}: color is {_shown(value)}; write it as '#4a90d2' or "
            "'74 144 210', in quotes"
        )
    return parts[0], parts[1], parts[2]


def _shown(value: object) -> str:
    """Return a value as an error names it: aliases make small files large ones."""
    return reprlib.repr(value)


def _check(rows: Sequence[ClassRow], path: Path) -> None:
    """Refuse classes that are there twice, and those that go where none is.

    Raises:
        ConfigError: They are.
    """
    by_id: dict[int, ClassRow] = {}
    for row in rows:
        if row.id in by_id:
            raise ConfigError(
                f"the class table {path} has class {row.id} twice; keep one row, and "
                "merge other classes into it with the column into"
            )
        by_id[row.id] = row
    for row in rows:
        target = by_id.get(row.target) if row.target is not None else None
        if target is not None and target.target != target.id:
            end = DROP if target.target is None else target.target
            raise ConfigError(
                f"the class table {path} merges class {row.id} into {target.id}, which "
                f"goes into {end} itself; write {end} for both"
            )
