"""What a class table's file holds, CSV, YAML or JSON: values as they are written."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from geoseg.errors import ConfigError

_CSV = (".csv", ".tsv", ".txt")

_YAML = (".yaml", ".yml")

_MOST_BYTES = 2 << 20
"""Bytes of a table: ten times what names the most values that a raster may hold."""


def read_entries(path: Path) -> list[tuple[str, Any]]:
    """Read the entries of a class table, and where each one is.

    Numbers and dates are text, as they are written: `2020-01-02`, `no` and `1e3` are
    names that a class may have.

    Raises:
        ConfigError: It cannot be read, is too large or not well-formed, or holds no
            list.
    """
    text = _read(path)
    if path.suffix.lower() in _CSV:
        return _from_csv(path, text)
    try:
        data = _parsed(path, text)
    except RecursionError as error:
        raise ConfigError(
            f"the class table {path} is nested too deeply; write a list of classes"
        ) from error
    # Some wrong values pass the parsers' own checks: "\UFFFFFFFF", say.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the class table {path} is not well-formed ({reason}); correct it there"
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


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"the class table {path} cannot be read: {reason}; check the path"
        ) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            f"the class table {path} is larger than {_MOST_BYTES >> 20} MB; give a "
            "table with one row for each class"
        )
    try:
        # Line ends of any system, as in files that are opened as text.
        return io.StringIO(data.decode("utf-8-sig"), newline=None).read()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the class table {path} cannot be read: it is no UTF-8 text; save it as "
            "UTF-8"
        ) from error


def _from_csv(path: Path, text: str) -> list[tuple[str, Any]]:
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        rows = [
            (f"line {reader.line_num}", [cell.strip() for cell in row])
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise ConfigError(
            f"the class table {path} is not well-formed ({error}); check its quotes"
        ) from error
    if not rows:
        return []
    titles = [title.lower() for title in rows[0][1]]
    twice = _twice(title for title in titles if title)
    if twice is not None:
        raise ConfigError(
            f"the class table {path} has the column {twice!r} twice; remove one"
        )
    return [
        (place, _by_title(titles, row, f"{path}, {place}")) for place, row in rows[1:]
    ]


def _by_title(titles: list[str], row: list[str], where: str) -> dict[str, str]:
    """Return the cells of a row that are not empty."""
    if any(row[len(titles) :]):
        raise ConfigError(
            f"{where}: there are {len(row)} cells under {len(titles)} titles; put "
            "quotes around a cell that holds the separator"
        )
    return {title: cell for title, cell in zip(titles, row, strict=False) if cell}


def _parsed(path: Path, text: str) -> Any:  # noqa: ANN401 (whatever it holds)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=str,
            object_pairs_hook=_object,
        )
    if suffix in _YAML:
        return yaml.load(text, Loader=_Loader)
    raise ConfigError(
        f"the class table {path} is no .csv, .yaml or .json file; rename it to what it "
        "is"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = _twice(key for key, _ in pairs)
    if twice is not None:
        raise ValueError(f"{twice!r} is twice in one object")
    return dict(pairs)


def _twice(names: Iterable[str]) -> str | None:
    [(name, count)] = Counter(names).most_common(1) or [("", 0)]
    return name if count > 1 else None


class _Loader(yaml.BaseLoader):
    """Reads every scalar but null as text, whatever its tag says."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        """Refuse keys that are there twice, of which YAML would take the last."""
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is there twice", node.start_mark
            )
        return found


# An empty value is none of these: after `color: #4a90d2` it is a comment that was
# meant to be a colour.
_NULL = "tag:yaml.org,2002:null"
# The whole value: PyYAML looks at the start of it only.
_WORDS = re.compile(r"(?:~|null|Null|NULL)\Z")
_Loader.add_implicit_resolver(_NULL, _WORDS, ["~", "n", "N"])
_Loader.add_constructor(_NULL, lambda _loader, _node: None)
