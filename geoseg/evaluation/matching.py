"""Which class of a model is which class of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.errors import UsageError
from geoseg.evaluation.counts import IGNORE, UNCOUNTED
from geoseg.types import NODATA, ClassInfo

LEAVE_OUT = "ignore"
"""Word in a mapping for predictions that do not count, whatever the truth is."""

FOREIGN = 253
"""Class index of a mask's value that is no class of its model."""


@dataclass(frozen=True, slots=True)
class ClassPairs:
    """Classes that are compared, and how labels and masks are turned into them."""

    labels: tuple[ClassInfo, ...]
    """Classes of the labels: rows of the confusion matrix, and its first columns."""
    others: tuple[ClassInfo, ...]
    """Classes of the model that labels do not have: the other columns. Pixels with a
    label that are predicted as one of them are wrong."""
    missing: tuple[str, ...]
    """Names of `labels` that no class of the model stands for: never right."""
    of_labels: npt.NDArray[np.uint8]
    """From index in the class table to row, shape (256,)."""
    of_mask: npt.NDArray[np.uint8]
    """From value of a class mask to column, shape (256,)."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.labels), len(self.labels) + len(self.others)

    @property
    def columns(self) -> tuple[ClassInfo, ...]:
        """Classes that may be predicted."""
        return self.labels + self.others


def pair_classes(
    labels: Sequence[ClassInfo],
    model: Sequence[ClassInfo],
    mapping: Mapping[str, str] | None = None,
    leave_out: Sequence[str] = (),
) -> ClassPairs:
    """Match classes by name, whatever its case, or as a mapping says.

    Args:
        labels: Classes of the labels, in the order of their indices.
        model: Classes of the model.
        mapping: Name of a class of the model -> of the labels, or "ignore". Several may
            become one.
        leave_out: Names of labels that do not count.

    Raises:
        UsageError: No class is common, or a name is no class.
    """
    row_names = [info.name for info in labels]
    left = {_found(name, row_names, "the labels") for name in leave_out}
    rows = [info for info in labels if info.name not in left]
    targets = _targets(rows, model, mapping or {})
    others = [info for info in model if targets[info.id] is None]
    if not set(targets.values()) & set(range(len(rows))):
        raise UsageError(
            f"the model's classes ({_listed(model)}) and those of the labels "
            f"({_listed(rows)}) have no name in common; pair them with "
            f"--map '{model[0].name}={labels[0].name}'"
        )
    of_labels = np.full(256, IGNORE, np.uint8)
    for index, info in enumerate(labels):
        if info in rows:
            of_labels[index] = rows.index(info)
    of_mask = np.full(256, FOREIGN, np.uint8)
    of_mask[NODATA] = IGNORE
    for info in model:
        target = targets[info.id]
        of_mask[info.id] = len(rows) + others.index(info) if target is None else target
    reached = set(targets.values())
    return ClassPairs(
        labels=tuple(rows),
        others=tuple(others),
        missing=tuple(r.name for i, r in enumerate(rows) if i not in reached),
        of_labels=of_labels,
        of_mask=of_mask,
    )


def per_model(
    mapping: Mapping[str, str], models: Sequence[Sequence[ClassInfo]]
) -> list[dict[str, str]]:
    """Return the part of a mapping that concerns each of several models.

    Raises:
        UsageError: A name is no class of any.
    """
    every = [info.name for model in models for info in model]
    for name in mapping:
        _found(name, list(dict.fromkeys(every)), "the model")
    parts = []
    for model in models:
        own = {_plain(info.name) for info in model}
        parts.append({n: t for n, t in mapping.items() if _plain(n) in own})
    return parts


def _targets(
    rows: Sequence[ClassInfo], model: Sequence[ClassInfo], mapping: Mapping[str, str]
) -> dict[int, int | None]:
    """Return the column of each class by its id, None for a column of its own."""
    row_names = [info.name for info in rows]
    model_names = [info.name for info in model]
    given = {}
    for source, target in mapping.items():
        name = _found(source, model_names, "the model")
        if _plain(target) == LEAVE_OUT:
            given[name] = UNCOUNTED
        else:
            given[name] = row_names.index(_found(target, row_names, "the labels"))
    by_name = {_plain(name): index for index, name in enumerate(row_names)}
    return {
        info.id: given.get(info.name, by_name.get(_plain(info.name))) for info in model
    }


def _found(name: str, known: Sequence[str], whose: str) -> str:
    for candidate in known:
        if _plain(candidate) == _plain(name):
            return candidate
    raise UsageError(
        f"{name!r} is no class of {whose} that counts; they are {', '.join(known)}"
    )


def _plain(name: str) -> str:
    return name.strip().casefold()


def _listed(classes: Sequence[ClassInfo]) -> str:
    return ", ".join(info.name for info in classes)
