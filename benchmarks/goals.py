"""Goals of a benchmark: each is met or missed, in its table and in its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and what it should be."""

    what: str
    """Of what, with its unit."""
    value: float
    """The figure."""
    side: Literal["at least", "at most"]
    limit: float
    """What it should be on that side of."""

    @property
    def met(self) -> bool:
        """Whether it is as it should be; a figure that is NaN is not."""
        if self.side == "at least":
            return self.value >= self.limit
        return self.value <= self.limit

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "what": self.what,
            "value": self.value,
            "goal": f"{self.side} {self.limit:g}",
            "met": self.met,
        }


def print_goals(goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """Print a line for each goal; return them for JSON."""
    for goal in goals:
        verdict = "met   " if goal.met else "MISSED"
        print(f"{verdict}  {goal.what}: {goal.value:g} ({goal.side} {goal.limit:g})")
    return [goal.record() for goal in goals]
