"""What an evaluation found, for its tables, its page and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from geoseg.evaluation.bootstrap import (
    FEWEST_SCENES,
    Interval,
    intervals,
    paired_intervals,
)
from geoseg.evaluation.chips import Chip
from geoseg.evaluation.counts import SceneCounts, summed
from geoseg.evaluation.matching import ClassPairs
from geoseg.evaluation.metrics import Bin, Metrics, measure, reliability
from geoseg.evaluation.scene import SceneMasks, SceneScore


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made."""

    resamples: int = 2000
    """How often scenes are drawn; 0 makes no intervals."""
    seed: int = 0
    """Of the draws."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Metrics of a run less those of the first, over the same scenes."""

    metrics: Metrics
    """The differences."""
    intervals: Mapping[str, Interval] | None
    """Their intervals; None with too few scenes."""


@dataclass(frozen=True)
class RunResult:
    """One model with one set of settings."""

    name: str
    """What tells it from other runs, for tables."""
    settings: Mapping[str, str]
    """Keys of the recipe that differ between runs, and their values."""
    folder: str
    """Run directory of its masks, relative to the evaluation's folder if below it."""
    model: str
    """Name of its model."""
    model_sha256: str
    """Hash of the model's weights and configuration."""
    pairs: ClassPairs
    """Classes that were compared."""
    scenes: Mapping[str, SceneMasks]
    """By name of the labelled scene, in the order of the labels: what was compared."""
    scores: Mapping[str, SceneScore]
    """What was found, by the same names."""
    resampling: Resampling
    """How intervals are made."""
    worst: int
    """Chips to show."""

    @cached_property
    def counts(self) -> SceneCounts:
        """Pixels of all scenes."""
        each = [score.counts for score in self.scores.values()]
        return summed(each, SceneCounts.zeros(*self.pairs.size))

    @cached_property
    def metrics(self) -> Metrics:
        """Metrics of all pixels together."""
        return measure(self.counts)

    @cached_property
    def intervals(self) -> Mapping[str, Interval] | None:
        """Intervals of the metrics; None with too few scenes."""
        if not self.can_resample:
            return None
        return intervals(self._each(), self.resampling.resamples, self.resampling.seed)

    @cached_property
    def bins(self) -> list[Bin]:
        """Accuracy by confidence; none without confidence."""
        return reliability(self.counts.levels) if self.counts.levels.any() else []

    @property
    def can_resample(self) -> bool:
        """Whether intervals are asked for and there are scenes enough."""
        return self.resampling.resamples > 0 and len(self.scores) >= FEWEST_SCENES

    @property
    def border(self) -> tuple[int, int]:
        """Smallest and largest distance to a border that counted as near, pixels."""
        widths = [score.border for score in self.scores.values()]
        return min(widths), max(widths)

    @property
    def worst_chips(self) -> list[tuple[str, Chip]]:
        """Name of the scene and place of the worst chips, the worst first."""
        every = [
            (chip, name) for name, score in self.scores.items() for chip in score.chips
        ]
        return [(name, chip) for chip, name in sorted(every)[: self.worst]]

    def less(self, first: RunResult) -> Difference:
        """Return the difference to another run over the same scenes."""
        assert list(self.scores) == list(first.scores)
        one, other = self.metrics, first.metrics
        gaps = [getattr(one, f.name) - getattr(other, f.name) for f in fields(Metrics)]
        ends = None
        if self.can_resample:
            asked = self.resampling
            ends = paired_intervals(
                self._each(), first._each(), asked.resamples, asked.seed
            )
        return Difference(Metrics(*gaps), ends)

    def _each(self) -> list[SceneCounts]:
        return [score.counts for score in self.scores.values()]


@dataclass(frozen=True, slots=True)
class Failure:
    """A scene that counts nowhere."""

    run: str
    """Run that it failed in; "" for a scene without labels."""
    scene: str
    """Its name."""
    reason: str
    """Why, in one line."""


@dataclass(frozen=True)
class Evaluation:
    """Runs over the same labelled scenes."""

    title: str
    """What was evaluated on, for people."""
    runs: tuple[RunResult, ...]
    """At least one; others are compared with the first."""
    failures: tuple[Failure, ...] = ()
    """Scenes that are left out of all runs."""

    @property
    def ok(self) -> bool:
        """Whether every labelled scene was compared."""
        return not self.failures

    @cached_property
    def differences(self) -> list[Difference]:
        """Difference of each run but the first to the first."""
        return [run.less(self.runs[0]) for run in self.runs[1:]]


def notes_of(evaluation: Evaluation) -> list[str]:
    """Say what figures leave out, so that nobody takes them for more than they are.

    What holds for some of the runs only names them.
    """
    found: dict[str, list[str]] = {}
    for run in evaluation.runs:
        for note in _notes_of_run(run):
            found.setdefault(note, []).append(run.name)
    return [
        note if len(names) == len(evaluation.runs) else f"{note} ({'; '.join(names)})"
        for note, names in found.items()
    ]


def _notes_of_run(run: RunResult) -> list[str]:
    pairs, counts = run.pairs, run.counts
    notes = []
    if pairs.missing:
        notes.append(
            f"{run.model} has no class for {_listed(pairs.missing)}: an IoU of 0 there "
            "counts in means; --leave-out takes labels away"
        )
    if pairs.others:
        names = _listed([info.name for info in pairs.others])
        notes.append(
            f"{run.model} knows classes that the labels do not have ({names}): a "
            "labelled pixel that is predicted as one is wrong; --map pairs classes"
        )
    true = counts.confusion.sum(axis=1) + counts.unpredicted
    absent = [info.name for info, n in zip(pairs.labels, true, strict=True) if not n]
    if absent:
        notes.append(f"no labelled pixel is {_listed(absent)}")
    missed = int(counts.unpredicted.sum())
    if missed:
        share = missed / (missed + counts.scored)
        notes.append(
            f"{missed:,} labelled pixels ({share:.2%}) are nodata in the masks: they "
            "count in no metric"
        )
    resampled = sum(score.resampled for score in run.scores.values())
    if resampled:
        notes.append(
            f"the labels of {resampled} of {len(run.scores)} scenes are of another "
            "resolution than their masks: each pixel is compared with the label "
            "nearest to its centre"
        )
    if not run.bins:
        notes.append("there are no confidence rasters, so calibration is unknown")
    if run.resampling.resamples and not run.can_resample:
        notes.append(
            f"{_scenes(len(run.scores))} too few for intervals, which resample scenes; "
            f"they are given from {FEWEST_SCENES} on"
        )
    return notes


def _scenes(count: int) -> str:
    return "1 scene is" if count == 1 else f"{count} scenes are"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
