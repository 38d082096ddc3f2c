"""Amounts for people: classes added up; times, sizes and areas as they are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

Number = TypeVar("Number", int, float)

AREA_UNITS = ((1e6, "km²"), (1e4, "ha"), (1.0, "m²"))
"""Square metres of a unit and its sign, largest first."""


class Amount(Protocol):
    """One class in one scene."""

    @property
    def name(self) -> str:
        """Name of the class."""

    @property
    def pixels(self) -> int:
        """Pixels of the class."""

    @property
    def polygons(self) -> int | None:
        """Polygons; None if there are none to count."""

    @property
    def area_m2(self) -> float | None:
        """Ground area; None if unknown."""


@dataclass
class ClassSum:
    """One class over all scenes of a run."""

    pixels: int = 0
    """Pixels of the class."""
    polygons: int | None = 0
    """Polygons; None if a scene has none."""
    area_m2: float | None = 0.0
    """Ground area; None if that of a scene is unknown."""


def sum_classes(entries: Iterable[Amount]) -> dict[str, ClassSum]:
    """Add up classes by name, in the order of the class table."""
    sums: dict[str, ClassSum] = {}
    for entry in entries:
        total = sums.setdefault(entry.name, ClassSum())
        total.pixels += entry.pixels
        total.polygons = _add(total.polygons, entry.polygons)
        total.area_m2 = _add(total.area_m2, entry.area_m2)
    return sums


def add_sums(sums: Iterable[ClassSum]) -> ClassSum:
    """Add up all classes; those without polygons have no area that could be added."""
    whole = ClassSum()
    listed = list(sums)
    drawn = [entry for entry in listed if entry.polygons is not None] or listed
    whole.pixels = sum(entry.pixels for entry in listed)
    for entry in drawn:
        whole.polygons = _add(whole.polygons, entry.polygons)
        whole.area_m2 = _add(whole.area_m2, entry.area_m2)
    return whole


def area_unit(largest_m2: float) -> tuple[float, str]:
    """Choose one unit for a column of areas: its square metres and its sign."""
    for factor, sign in AREA_UNITS:
        if largest_m2 >= factor:
            return factor, sign
    return AREA_UNITS[-1]


def duration(seconds: float) -> str:
    """Write a time as 1:05:09 or 5:09."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def memory(count: int | None) -> str:
    """Write bytes as MiB or GiB; a dash if they are unknown."""
    if count is None:
        return "-"
    if count < 1 << 30:
        return f"{count / (1 << 20):.0f} MiB"
    return f"{count / (1 << 30):.1f} GiB"


def _add(total: Number | None, value: Number | None) -> Number | None:
    return None if total is None or value is None else total + value
