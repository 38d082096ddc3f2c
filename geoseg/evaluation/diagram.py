"""A reliability diagram as lengths and texts; the page's template draws it as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoseg.evaluation.metrics import Bin

SIDE = 300.0
"""Side of the square that it is drawn in, units of the SVG."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin of confidence."""

    x: float
    """Left edge."""
    width: float
    """Its width."""
    accuracy: float
    """Height of the share that is right."""
    confidence: float
    """Height of the mean confidence."""
    weight: float
    """How dark it is, 0..1: by its part of the pixels."""
    text: str
    """What it says when it is pointed at."""


@dataclass(frozen=True, slots=True)
class Diagram:
    """Accuracy by confidence; of a calibrated model all bars end at the diagonal."""

    side: float
    """Side of the square."""
    bars: tuple[Bar, ...]
    """Bins that hold pixels."""

    @classmethod
    def of(cls, bins: Sequence[Bin]) -> Diagram:
        """Lay bins out."""
        most = max(each.pixels for each in bins)
        total = sum(each.pixels for each in bins)
        return cls(SIDE, tuple(_bar(b, most, total) for b in bins if b.pixels))


def _bar(each: Bin, most: int, total: int) -> Bar:
    return Bar(
        x=each.low * SIDE,
        width=(each.high - each.low) * SIDE,
        accuracy=each.accuracy * SIDE,
        confidence=each.confidence * SIDE,
        # Even a rare bin is seen: its bar may be the one that is far off.
        weight=0.25 + 0.75 * (each.pixels / most) ** 0.5,
        text=(
            f"confidence {each.low:.2f} to {each.high:.2f}: {each.accuracy:.1%} right, "
            f"{each.confidence:.1%} sure, {each.pixels / total:.1%} of the pixels"
        ),
    )
