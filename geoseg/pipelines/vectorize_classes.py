"""Which classes a raster's values are, and how its pixels are told to the tracer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg.errors import UsageError
from geoseg.io.class_raster import ClassRaster
from geoseg.io.class_table import ClassRow
from geoseg.io.legend import Legend
from geoseg.types import ClassInfo, distinct_color

MOST_CLASSES = 254
"""Classes of one raster; two more numbers of a byte are for what has no class."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Classes:
    """What is known of a raster's values."""

    targets: Mapping[int, int | None]
    """Class of each value; None for one that gets no polygons."""
    infos: tuple[ClassInfo, ...]
    """Classes that get polygons, in legend order."""


class ClassChooser:
    """Finds out which classes a raster's values are, and which get polygons.

    Names of values that the raster does not hold are no reason to refuse it, nor is the
    name of its nodata value, which is no class.

    Args:
        raster: Whose values they are.
        table: Where `rows` are from.
        rows: A class table; None: what the raster says of itself.
        exclude: Ids or names of classes that get no polygons.
    """

    def __init__(
        self,
        raster: ClassRaster,
        table: Path | None,
        rows: Sequence[ClassRow] | None,
        exclude: Sequence[str],
    ) -> None:
        self._raster, self._table, self._exclude = raster, table, exclude
        self._complete = rows is not None
        if rows is None:
            self._declared = _classes_of_values(raster.legend.names, raster)
        else:
            self._declared = _classes_of_table(rows, raster)

    def declared(self) -> Classes | None:
        """Return what is declared; None if only the values can tell."""
        infos = self._declared.infos
        if not self._declared.targets or _needs_values(infos, self._exclude):
            return None
        classes = self._without_excluded(self._declared)
        return None if _misfit(classes) else classes

    def of_values(self, counts: Mapping[int, int]) -> Classes:
        """Return the classes of a raster that holds these values.

        Args:
            counts: Pixels of each value.

        Raises:
            UsageError: A class table lacks one of them, classes are too many, their ids
                are no bytes, or one to exclude is not there.
        """
        declared = self._declared
        unnamed = [value for value in counts if value not in declared.targets]
        if self._complete:
            classes = _with_values(declared, unnamed, self._raster)
        else:
            values = {*declared.targets, *counts}
            classes = _classes_of_values(values, self._raster)
        classes = self._without_excluded(classes)
        missing = [v for v in unnamed if classes.targets[v] is not None]
        if self._complete and missing:
            raise _unknown_values(self._raster, counts, missing, self._table)
        if _misfit(classes):
            classes = _held(classes, counts)
        reason = _misfit(classes)
        if reason is not None:
            raise UsageError(reason)
        return classes

    def _without_excluded(self, classes: Classes) -> Classes:
        infos = list(classes.infos)
        nodata = self._raster.nodata
        if nodata is not None and nodata not in {info.id for info in infos}:
            # It has no polygons as it is, and may be named all the same.
            names = [self._raster.legend.names.get(nodata, "no data")]
            infos.append(_info(nodata, 0, names, [], self._raster.legend))
        return _without(classes, excluded_ids(infos, self._exclude))


def excluded_ids(infos: Sequence[ClassInfo], wanted: Iterable[str]) -> set[int]:
    """Return the classes that are named by id or, where no id is meant, by name.

    Raises:
        UsageError: There is no such class.
    """
    found = set()
    for text in wanted:
        ids = _meant(infos, text)
        if not ids:
            known = ", ".join(f"{info.id} ({info.name})" for info in infos)
            raise UsageError(
                f"there is no class {text!r} to exclude; classes are: {known or 'none'}"
            )
        found |= ids
    return found


def _meant(infos: Sequence[ClassInfo], text: str) -> set[int]:
    word = text.strip().lower()
    ids = {info.id for info in infos if str(info.id) == word}
    return ids or {info.id for info in infos if info.name.strip().lower() == word}


def _needs_values(infos: Sequence[ClassInfo], wanted: Iterable[str]) -> bool:
    """Tell whether a class to exclude may be a value that has no name."""
    ids = {str(info.id) for info in infos}
    return any(
        # A number that is no id here may be one in the raster, and ids go first.
        re.fullmatch("-?[0-9]+", text.strip()) is not None or not _meant(infos, text)
        for text in wanted
        if text.strip() not in ids
    )


def _classes_of_table(rows: Sequence[ClassRow], raster: ClassRaster) -> Classes:
    """Return what a class table says; what it leaves open, the raster may know.

    Name and colour of a class are those of its own row, or else of the first one that
    goes into it.
    """
    own = {row.id: row for row in rows}
    rows = [row for row in rows if row.id != raster.nodata]
    kept = dict.fromkeys(row.target for row in rows if row.target is not None)
    infos = []
    for index, target in enumerate(kept):
        members = [own[target]] if target in own else []
        members += [row for row in rows if row.target == target and row.id != target]
        names = [row.name for row in members if row.name]
        colors = [row.color for row in members if row.color]
        infos.append(_info(target, index, names, colors, raster.legend))
    return Classes({row.id: row.target for row in rows}, tuple(infos))


def _classes_of_values(values: Iterable[int], raster: ClassRaster) -> Classes:
    """Return classes as they are in the raster."""
    ids = sorted(value for value in values if value != raster.nodata)
    infos = [_info(value, i, [], [], raster.legend) for i, value in enumerate(ids)]
    return Classes(dict(zip(ids, ids, strict=True)), tuple(infos))


def _with_values(
    classes: Classes, values: Sequence[int], raster: ClassRaster
) -> Classes:
    """Return classes to which values are added, each one of its own."""
    ids = {info.id for info in classes.infos}
    more = [
        _info(value, index, [], [], raster.legend)
        for index, value in enumerate(values)
        if value not in ids
    ]
    targets = {**classes.targets, **dict(zip(values, values, strict=True))}
    return Classes(targets, (*classes.infos, *more))


def _without(classes: Classes, excluded: Set[int]) -> Classes:
    """Return the classes of which none of those ids gets polygons."""
    targets = {
        value: None if target in excluded else target
        for value, target in classes.targets.items()
    }
    infos = tuple(info for info in classes.infos if info.id not in excluded)
    return Classes(targets, infos)


def _held(classes: Classes, values: Iterable[int]) -> Classes:
    """Return the classes that some of those values are."""
    targets = {value: classes.targets[value] for value in values}
    ids = set(targets.values())
    return Classes(targets, tuple(info for info in classes.infos if info.id in ids))


def _misfit(classes: Classes) -> str | None:
    """Say why polygons cannot have these classes; None if they can."""
    outside = [info.id for info in classes.infos if not 0 <= info.id <= 255]
    if outside:
        few = ", ".join(map(str, outside[:8])) + (" ..." if len(outside) > 8 else "")
        return (
            f"classes of polygons are 0 to 255, and there are others: {few}; give each "
            "such id another one with --classes, in the column into"
        )
    if len(classes.infos) > MOST_CLASSES:
        return (
            f"there are {len(classes.infos)} classes, more than {MOST_CLASSES}; merge "
            "or drop some with --classes, in the column into"
        )
    return None


class Coding:
    """Turns a raster's values into classes of one byte.

    Args:
        raster: Where they come from.
        classes: What its values are.
    """

    def __init__(self, raster: ClassRaster, classes: Classes) -> None:
        used = {info.id for info in classes.infos}
        self.hidden, self.unknown = [c for c in range(256) if c not in used][:2]
        """Codes of pixels without a polygon, and of values that are no known class."""
        limits = np.iinfo(raster.dtype)
        targets = {
            value: self.hidden if target is None else target
            for value, target in classes.targets.items()
            if limits.min <= value <= limits.max
        }
        if raster.nodata is not None:
            targets[raster.nodata] = self.hidden
        self._values = np.array(sorted(targets), raster.dtype)
        self._codes = np.array([targets[v] for v in sorted(targets)], np.uint8)
        self.classes: Bytes | None = None
        """What each byte that `encode` gives stands for; None: the code itself."""
        if raster.dtype == "uint8" and not raster.masked:
            self.classes = np.full(256, self.unknown, np.uint8)
            self.classes[self._values] = self._codes

    def encode(
        self, values: npt.NDArray[Any], shown: npt.NDArray[np.bool_] | None
    ) -> Bytes:
        """Return a byte for each pixel, which `classes` reads.

        Args:
            values: As the raster has them, shape (height, width).
            shown: Pixels that a mask does not hide, same shape.
        """
        if self.classes is not None:
            return values  # the tracer recodes faster
        codes = np.full(values.shape, self.unknown, np.uint8)
        if len(self._values):
            place = np.searchsorted(self._values, values)
            place[place == len(self._values)] = 0
            known = self._values[place] == values
            codes[known] = self._codes[place[known]]
        if shown is not None:
            codes[~shown] = self.hidden
        return codes

    def visible(self, encoded: Bytes) -> npt.NDArray[np.bool_]:
        """Tell which pixels get a polygon."""
        codes = encoded if self.classes is None else self.classes[encoded]
        seen: npt.NDArray[np.bool_] = codes != self.hidden
        return seen


def _unknown_values(
    raster: ClassRaster,
    counts: Mapping[int, int],
    missing: Sequence[int],
    table: object,
) -> UsageError:
    """Return what to say of values that a class table does not name."""
    shown = ", ".join(f"{value} ({counts[value]:,} pixels)" for value in missing[:8])
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    return UsageError(
        f"{raster.path} holds values that {table} does not name: {shown}{more}; add a "
        "row for each, with `drop` in the column into if it is to get no polygons, or "
        "name the value of pixels without data with --nodata"
    )


def _info(
    class_id: int,
    index: int,
    names: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    legend: Legend,
) -> ClassInfo:
    name = next(iter(names), None) or legend.names.get(class_id)
    color = next(iter(colors), None) or legend.colors.get(class_id)
    return ClassInfo(
        class_id, name or f"class {class_id}", color or distinct_color(index)
    )
