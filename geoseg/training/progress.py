"""What a training run tells, and who hears of it; light to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """How well a step's average did on the validation scenes."""

    step: int
    """Optimiser steps taken."""
    miou: float
    """Mean of `iou` over the classes that it is known of."""
    iou: tuple[float, ...]
    """Intersection over union by class; NaN for one that is nowhere."""
    accuracy: float
    """Share of the labelled pixels that got their class."""


class Listener:
    """Hears of a run's progress; these methods do nothing."""

    def looked(self, part: str, done: int, total: int) -> None:
        """Learn how many pixels of a part's labels were looked at before training."""

    def note(self, message: str) -> None:
        """Learn what the user should know before or beside the scores."""

    def step(self, step: int, terms: dict[str, float]) -> None:
        """Learn the terms of the loss after a step."""

    def validated(self, score: Score, best: bool) -> None:
        """Learn a score, and whether it is the best so far."""
