"""What a training shows while it runs."""

from __future__ import annotations

from contextlib import ExitStack
from time import monotonic
from types import TracebackType
from typing import Self

from geoseg.cli.display import Display
from geoseg.reporting.amounts import duration
from geoseg.reporting.notes import heard
from geoseg.training.progress import Listener, Score


class TrainingProgress(Display, Listener):
    """Shows a training run: step, loss terms, time left, and geoseg's warnings."""

    def __init__(self, steps: int, *, verbosity: int = 0) -> None:
        super().__init__(verbosity, steps, "Preparing")
        self._steps = steps
        self._first: tuple[int, float] | None = None
        self._notes: set[str] = set()
        self._hearing = ExitStack()

    def __enter__(self) -> Self:
        """Show the bar, and say from now on what would be warned of."""
        self._hearing.enter_context(heard(self.note))
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        with self._hearing:
            super().__exit__(kind, error, trace)

    def note(self, message: str) -> None:
        """Say a note, and only once: a bad image is met again and again."""
        if message not in self._notes:
            self._notes.add(message)
            self.say(f"Note: {message}", style="yellow")

    def looked(self, part: str, done: int, total: int) -> None:
        """Show how far the look at the labels is."""
        status = f"{done / 1e6:,.0f}/{total / 1e6:,.0f} Mpx"
        self.show(done, total, f"Looking at {part} labels", status)

    def step(self, step: int, terms: dict[str, float]) -> None:
        """Show a step and the terms of its loss."""
        now = monotonic()
        # A resumed run starts in the middle: its speed counts from its first report.
        first_step, start = self._first = self._first or (step, now)
        parts = [f"step {step}/{self._steps}"]
        parts += [f"{name} {value:.3g}" for name, value in terms.items()]
        if step > first_step:
            left = (self._steps - step) * (now - start) / (step - first_step)
            parts.append(f"{duration(left)} left")
        self.show(step, self._steps, "Training", ", ".join(parts))

    def validated(self, score: Score, best: bool) -> None:
        """Say how good the model is by now."""
        note = ", the best so far" if best else ""
        self.say(
            f"Step {score.step}: mIoU {score.miou:.3f}, accuracy {score.accuracy:.3f} "
            f"on the validation scenes{note}"
        )
