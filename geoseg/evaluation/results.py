"""What an evaluation found, for its tables, its page and its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from geoseg.errors import ConfigError
from geoseg.evaluation.bootstrap import (
    FEWEST_SCENES,
    Interval,
    intervals,
    paired_intervals,
)
from geoseg.evaluation.chips import Chip
from geoseg.evaluation.counts import Counts, SceneCounts, summed
from geoseg.evaluation.matching import ClassPairs
from geoseg.evaluation.metrics import Bin, Metrics, measure, reliability
from geoseg.evaluation.scene import SceneMasks, SceneScore

SAME_SHARE = 0.01
"""Difference of parts of scenes that is not worth a note: grids end where they do."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made."""

    resamples: int = 2000
    """How often scenes are drawn; 0 makes no intervals."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number makes no sense.
        """
        for name in ("resamples", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"resampling.{name} is {getattr(self, name)}; use 0 or more"
                )


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

    @property
    def scored_share(self) -> float:
        """Part of the labelled scenes that counts in metrics, 0..1."""
        return float(self.scored_parts.sum(axis=1).mean())

    @property
    def scored_parts(self) -> npt.NDArray[np.float64]:
        """The same by scene and true class, as parts of the scene: (scenes, L)."""
        return np.array(
            [
                _part(score, score.counts.confusion.sum(axis=1))
                for score in self.scores.values()
            ]
        )

    @property
    def left_out_parts(self) -> npt.NDArray[np.float64]:
        """Labelled parts of the scene without a prediction that counts, by true class.

        The last ones are what no mask covers, whatever its classes: (scenes, L + 1).
        """
        return np.array(
            [
                [
                    *_part(score, score.counts.unpredicted + score.counts.uncounted),
                    1 - score.covered,
                ]
                for score in self.scores.values()
            ]
        )

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


def _part(score: SceneScore, pixels: Counts) -> npt.NDArray[np.float64]:
    """Return pixels of a mask as parts of the labelled scene."""
    return score.covered * pixels / max(1, score.counts.pixels)


@dataclass(frozen=True, slots=True)
class Failure:
    """A scene that counts nowhere, or a run."""

    run: str
    """Run that it failed in; "" for a scene whose labels cannot be used."""
    scene: str
    """Its name; "" for a run that has no mask at all."""
    reason: str
    """Why, in one line."""

    @property
    def what(self) -> str:
        """What is left out."""
        return self.scene or self.run


@dataclass(frozen=True)
class Evaluation:
    """Runs over the same labelled scenes."""

    title: str
    """What was evaluated on, for people."""
    runs: tuple[RunResult, ...]
    """At least one; others are compared with the first."""
    failures: tuple[Failure, ...] = ()
    """Scenes that are left out of all runs, and runs that made no mask."""

    @property
    def ok(self) -> bool:
        """Whether every labelled scene was compared in every run."""
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
    notes = [
        note if len(names) == len(evaluation.runs) else f"{note} ({'; '.join(names)})"
        for note, names in found.items()
    ]
    return notes + _notes_of_comparison(evaluation.runs)


def _notes_of_comparison(runs: Sequence[RunResult]) -> list[str]:
    """Say what makes runs unlike that are compared."""
    notes = []
    # On unlike grids a class has unlike parts where nothing is left out; and what is
    # nodata in one mask may lie outside of another one.
    gaps = np.minimum(
        _gaps(np.array([run.scored_parts for run in runs])),
        _gaps(np.array([run.left_out_parts for run in runs])),
    )
    if gaps.max() > SAME_SHARE:
        told = "; ".join(f"{run.name}: {run.scored_share:.1%}" for run in runs)
        scene = list(runs[0].scores)[int(gaps.argmax())]
        notes.append(
            f"runs are scored on different parts of the labelled scenes ({told}; most "
            f"of all in {scene}): one that leaves out what is hard looks better"
        )
    if len({run.counts.pixels for run in runs}) > 1 and any(
        score.resampled for run in runs for score in run.scores.values()
    ):
        notes.append(
            "each run is compared on the grid of its own masks: coarse ones meet fewer "
            "labels at borders of classes, and look better"
        )
    return notes


def _gaps(parts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how far runs differ in each scene, in one class or in all together.

    What is left out may be as large in every run, and lie elsewhere.

    Args:
        parts: Parts of the scene by run, scene and class, shape (runs, scenes, n).
    """
    by_class = np.ptp(parts, axis=0).max(axis=1)
    gaps: npt.NDArray[np.float64] = np.maximum(
        by_class, np.ptp(parts.sum(axis=2), axis=0)
    )
    return gaps


def _notes_of_run(run: RunResult) -> list[str]:
    return [*_notes_of_classes(run), *_notes_of_pixels(run), *_notes_of_scenes(run)]


def _notes_of_classes(run: RunResult) -> Iterator[str]:
    pairs, counts = run.pairs, run.counts
    true = zip(pairs.labels, counts.labelled, strict=True)
    absent = [info.name for info, pixels in true if not pixels]
    missing = [name for name in pairs.missing if name not in absent]
    if missing:
        yield (
            f"{run.model} has no class for {_listed(missing)}: an IoU of 0 there "
            "counts in means; --leave-out takes labels away"
        )
    if pairs.others:
        names = _listed([info.name for info in pairs.others])
        yield (
            f"{run.model} knows classes that no label stands for which counts "
            f"({names}): a labelled pixel that is predicted as one is wrong; --map "
            "pairs classes"
        )
    if absent:
        yield f"no labelled pixel is {_listed(absent)}"


def _notes_of_pixels(run: RunResult) -> Iterator[str]:
    counts = run.counts
    labelled = max(1, int(counts.labelled.sum()))
    for pixels, what in (
        (int(counts.unpredicted.sum()), "nodata in the masks"),
        (int(counts.uncounted.sum()), "predicted as what --map ignores"),
    ):
        if pixels:
            yield (
                f"{pixels:,} labelled pixels ({pixels / labelled:.2%}) are {what}: "
                "they count in no metric"
            )
    known = int(counts.levels[0].sum())
    if not known and counts.scored:
        yield "there are no confidence rasters, so calibration is unknown"
    elif known < counts.scored:
        yield (
            f"calibration is that of {known / counts.scored:.1%} of the pixels: other "
            "scenes have no confidence raster"
        )


def _notes_of_scenes(run: RunResult) -> Iterator[str]:
    count = len(run.scores)
    partly = [s.covered for s in run.scores.values() if s.covered < 1 - SAME_SHARE]
    if partly:
        yield (
            f"the masks of {len(partly)} of {count} scenes cover a part of their "
            f"labels only, {sum(partly) / len(partly):.1%} on average: the rest counts "
            "nowhere"
        )
    named = sum(masks.by_name for masks in run.scenes.values())
    if named:
        yield (
            f"{named} of {count} scenes were found in the run by their names: their "
            "masks were made of images elsewhere"
        )
    resampled = sum(score.resampled for score in run.scores.values())
    if resampled:
        yield (
            f"the labels of {resampled} of {count} scenes are of another "
            "resolution than their masks: each pixel is compared with the label "
            "nearest to its centre"
        )
    if run.resampling.resamples and not run.can_resample:
        yield (
            f"{_scenes(count)} too few for intervals, which resample scenes; "
            f"they are given from {FEWEST_SCENES} on"
        )


def _scenes(count: int) -> str:
    return "1 scene is" if count == 1 else f"{count} scenes are"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
