"""Class tables that users write: names, colours, merging and dropping of classes."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from geoseg.errors import ConfigError
from geoseg.io.legend import Color

DROP = "drop"
"""Word in the column `into` for a class that gets no polygons."""

_CSV = (".csv", ".tsv", ".txt")

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
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ConfigError(f"the class table {path} cannot be read: {reason}") from error
    is_csv = path.suffix.lower() in _CSV
    entries = _from_csv(path, text) if is_csv else _from_yaml(path, text)
    rows = tuple(_row(entry, f"{path}, {place}") for place, entry in entries)
    if not rows:
        raise ConfigError(f"the class table {path} is empty; give it a row a class")
    _check(rows, path)
    return rows


def _from_csv(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
    reader.fieldnames = [title.strip().lower() for title in reader.fieldnames or ()]
    try:
        rows = [(f"line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise ConfigError(
            f"the class table {path} is not well-formed ({error}); check its quotes"
        ) from error
    return [
        (place, {title: cell for title, cell in row.items() if cell not in ("", None)})
        for place, row in rows
    ]


def _from_yaml(path: Path, text: str) -> list[tuple[str, Any]]:
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise ConfigError(
            f"the class table {path} is no .csv, .yaml or .json file; rename it to "
            "what it is"
        )
    try:
        data = yaml.safe_load(text)  # JSON is YAML, too.
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the class table {path} is not well-formed ({error})"
        ) from error
    for key in ("geoseg", "classes"):
        if isinstance(data, dict) and key in data:
            data = data[key]
    if not isinstance(data, list):
        raise ConfigError(
            f"the class table {path} holds no list of classes; write one like "
            "`classes: [{id: 1, name: water, color: '#4a90d2'}]`"
        )
    return [(f"class number {i}", entry) for i, entry in enumerate(data, start=1)]


def _row(entry: Any, where: str) -> ClassRow:  # noqa: ANN401 (as YAML has it)
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: {entry!r} is no class; give it at least an id")
    for key in entry:
        if key not in _COLUMNS:
            near = difflib.get_close_matches(str(key), _COLUMNS, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            raise ConfigError(
                f"{where}: a class table has no column {key!r} (it has "
                f"{', '.join(_COLUMNS)}); {hint}"
            )
    if entry.get("id") is None:
        raise ConfigError(f"{where}: the id is missing; give the value in the raster")
    name, color, into = (entry.get(key) for key in ("name", "color", "into"))
    return ClassRow(
        id=_number(entry["id"], "id", where),
        name=None if name is None else str(name).strip(),
        color=None if color is None else _color(color, where),
        into=_into(into, where),
    )


def _number(value: object, column: str, where: str) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, float) and value % 1):
            raise ValueError
        return int(value)  # type: ignore[call-overload,no-any-return]  # or it raises
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: {column} is {value!r}; use a whole number"
        ) from error


def _into(value: object, where: str) -> int | Literal["drop"] | None:
    if value is None:
        return None
    if str(value).strip().lower() == DROP:
        return "drop"
    try:
        number = _number(value, "into", where)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: into is {value!r}; use the id of a class, or {DROP}"
        ) from error
    if not 0 <= number <= 255:
        raise ConfigError(f"{where}: into is {number}; polygons have classes 0 to 255")
    return number


def _color(value: object, where: str) -> Color:
    """Read '#4a90d2', '74 144 210' or [74, 144, 210]."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        words: Iterable[object] = value
    else:
        text = str(value).strip()
        if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
            red, green, blue = bytes.fromhex(text[1:])
            return red, green, blue
        words = re.split(r"[,\s]+", text)
    try:
        red, green, blue = (int(str(word)) for word in words)
    except ValueError:
        red = green = blue = -1
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ConfigError(
            f"{where}: color is {value!r}; write it as '#4a90d2' or '74 144 210'"
        )
    return red, green, blue


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
