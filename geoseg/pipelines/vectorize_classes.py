"""Which classes a raster's values are, and how its pixels are told to the tracer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
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


def classes_of_table(rows: Sequence[ClassRow], legend: Legend) -> Classes:
    """Return what a class table says; what it leaves open, the raster may know.

    Name and colour of a class are those of its own row, or else of the first one that
    goes into it.

    Raises:
        UsageError: Classes are too many, or their ids are no bytes.
    """
    targets = {row.id: row.target for row in rows}
    kept = dict.fromkeys(row.target for row in rows if row.target is not None)
    own = {row.id: row for row in rows}
    infos = []
    for index, target in enumerate(kept):
        members = [own[target]] if target in own else []
        members += [row for row in rows if row.target == target and row.id != target]
        names = [row.name for row in members if row.name]
        colors = [row.color for row in members if row.color]
        infos.append(_info(target, index, names, colors, legend))
    return _checked(targets, infos)


def classes_of_values(values: Iterable[int], legend: Legend) -> Classes:
    """Return classes as they are in the raster.

    Raises:
        UsageError: Classes are too many, or their ids are no bytes.
    """
    ids = sorted(values)
    infos = [_info(value, index, [], [], legend) for index, value in enumerate(ids)]
    return _checked(dict(zip(ids, ids, strict=True)), infos)


def excluded_ids(infos: Sequence[ClassInfo], wanted: Iterable[str]) -> set[int]:
    """Return the classes that are named by id or name.

    Raises:
        UsageError: There is no such class.
    """
    found = set()
    for text in wanted:
        ids = {
            info.id
            for info in infos
            if text.strip() in (str(info.id), info.name)
            or text.strip().lower() == info.name.lower()
        }
        if not ids:
            known = ", ".join(f"{info.id} ({info.name})" for info in infos)
            raise UsageError(
                f"there is no class {text!r} to exclude; classes are: {known or 'none'}"
            )
        found |= ids
    return found


def without(classes: Classes, excluded: Set[int]) -> Classes:
    """Return the classes of which none of those ids gets polygons."""
    targets = {
        value: None if target in excluded else target
        for value, target in classes.targets.items()
    }
    infos = tuple(info for info in classes.infos if info.id not in excluded)
    return replace(classes, targets=targets, infos=infos)


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


def unknown_values(
    raster: ClassRaster, counts: Mapping[int, int], classes: Classes, table: object
) -> UsageError:
    """Return what to say of values that a class table does not name."""
    missing = [value for value in counts if value not in classes.targets]
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


def _checked(targets: Mapping[int, int | None], infos: Sequence[ClassInfo]) -> Classes:
    outside = [info.id for info in infos if not 0 <= info.id <= 255]
    if outside:
        few = ", ".join(map(str, outside[:8])) + (" ..." if len(outside) > 8 else "")
        raise UsageError(
            f"classes of polygons are 0 to 255, and there are others: {few}; give each "
            "such id another one with --classes, in the column into"
        )
    if len(infos) > MOST_CLASSES:
        raise UsageError(
            f"there are {len(infos)} classes, more than {MOST_CLASSES}; merge or drop "
            "some with --classes, in the column into"
        )
    return Classes(targets, tuple(infos))
