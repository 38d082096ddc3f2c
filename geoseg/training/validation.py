"""Validation: whole scenes by tiles, as inference does it, and one confusion matrix."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from geoseg.blending import blend_classes
from geoseg.data.labelled import LabelledSource
from geoseg.errors import GeosegWarning, SceneError
from geoseg.evaluation.counts import Counts, Indices, SceneCounts, count_confusion
from geoseg.evaluation.metrics import measure
from geoseg.grid import Grid, Window
from geoseg.inference import Predictor, PredictorConfig, TileInput
from geoseg.tiling import TileGrid, default_stride
from geoseg.training.agreement import agree
from geoseg.training.checkpoints import BEST
from geoseg.training.progress import Score
from geoseg.types import ModelSpec, OnError

_GAIN = 1e-6
"""Least gain of mIoU that counts as one."""

_REGION = 2048
"""Side of what is predicted at a time, pixels: a scene need not fit into memory."""

_PICTURE = 512
"""Longest side of a picture of it, pixels."""


@dataclass(frozen=True, slots=True)
class View:
    """A part of a scene as it was predicted, thinned out to a picture's size."""

    name: str
    """The scene's."""
    image: npt.NDArray[np.float32]
    """(C, height, width), 0..1."""
    labels: Indices
    """(height, width), `IGNORE` where unlabelled."""
    predicted: Indices
    """(height, width)."""


class Seen(Protocol):
    """Takes note of validations."""

    def validated(self, score: Score, best: bool) -> None:
        """Learn a score, and whether it is the best so far."""


Looked = Callable[[int, View], None]
"""Called with the step and what was predicted."""


def predict_region(
    predictor: Predictor, scene: LabelledSource, region: Window, stride: int
) -> tuple[npt.NDArray[np.generic], Indices, Indices]:
    """Predict a part of a scene as `geoseg segment` does the whole of it.

    Args:
        predictor: The model.
        scene: The scene.
        region: Pixels wanted.
        stride: Pixels from tile to tile.

    Returns:
        Digital numbers (C, height, width), labels and class indices (height, width) of
        the region.
    """
    size, whole = predictor.config.tile_size, scene.grid
    grid = TileGrid(whole.height, whole.width, size, stride, region)
    top, left = grid.rows[0], grid.cols[0]
    bottom = min(grid.rows[-1] + size, whole.height)
    right = min(grid.cols[-1] + size, whole.width)
    image, labels, valid = scene.read(Window(top, left, bottom - top, right - left))
    places = [(i, j) for i in range(len(grid.rows)) for j in range(len(grid.cols))]
    inputs = []
    for i, j in places:
        row, col = grid.rows[i] - top, grid.cols[j] - left
        part = np.s_[row : row + size, col : col + size]
        inputs.append(TileInput(image[:, *part], valid[part]))
    logits = dict(zip(places, predictor.predict(inputs, scene.scale), strict=True))
    mask, _ = blend_classes(
        logits,
        grid,
        region,
        keep=np.ones((region.height, region.width), np.bool_),
        ids=np.arange(len(predictor.spec.classes), dtype=np.uint8),
        confidence=False,
    )
    rows = slice(region.row - top, region.row_stop - top)
    cols = slice(region.col - left, region.col_stop - left)
    return image[:, rows, cols], labels[rows, cols], mask


def _regions(grid: Grid) -> Iterator[Window]:
    for row in range(0, grid.height, _REGION):
        for col in range(0, grid.width, _REGION):
            height = min(_REGION, grid.height - row)
            yield Window(row, col, height, min(_REGION, grid.width - col))


def score_of(confusion: Counts, step: int) -> Score:
    """Turn a confusion matrix, (K, K), into a score."""
    nothing = SceneCounts.zeros(*confusion.shape)
    found = measure(replace(nothing, confusion=confusion))
    return Score(
        step=step,
        miou=float(np.nan_to_num(found.mean_iou)),
        iou=tuple(found.iou.tolist()),
        accuracy=float(np.nan_to_num(found.accuracy)),
    )


class Validation(Callback):
    """Scores the average every so many steps, keeps the best, and stops in time.

    Its own loop, not Lightning's: that one passes over a validation which was due when
    a run was killed, and the best step would depend on it.

    Args:
        scenes: Labelled scenes that are never trained on, on the grids that they are
            predicted on.
        spec: What the model declares.
        folder: The run folder.
        every: Steps between two validations.
        patience: Validations without a better one after which training ends.
        precision: Arithmetic of the model.
        seen: Takes note of scores.
        looked: Takes note of predictions.
        on_bad: What to do about a scene that cannot be read: raise, or go on; a
            validation that lacks one neither is the best nor ends a run.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledSource],
        spec: ModelSpec,
        folder: Path,
        *,
        every: int,
        patience: int | None,
        precision: str,
        seen: Seen,
        looked: Looked,
        on_bad: OnError = "fail",
    ) -> None:
        self.on_bad = on_bad
        self.scenes, self.spec, self.path = scenes, spec, folder / BEST
        self.every, self.patience, self.precision = every, patience, precision
        self.seen, self.looked = seen, looked
        self.best: dict[str, Any] = {"step": 0, "miou": -1.0}
        self.misses = 0
        self.improved = False
        """Whether this step's weights are the best so far."""
        self._size = (len(spec.classes), len(spec.classes))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best": dict(self.best), "misses": self.misses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that over."""
        self.best, self.misses = dict(state_dict["best"]), state_dict["misses"]

    @property
    def stopped(self) -> bool:
        """Whether there was no better score for too long."""
        return self.patience is not None and self.misses >= self.patience

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object
    ) -> None:
        """Validate when it is time."""
        step, self.improved = trainer.global_step, False
        if step % self.every and step < trainer.max_steps:
            return
        assert isinstance(pl_module.average, nn.Module)
        counts, failed = self._count(trainer, pl_module.average)
        if failed:
            # Of other scenes than before: it tells of them, and chooses nothing.
            self._tell_failed(step, failed)
            if failed < len(self.scenes):
                self.seen.validated(score_of(counts, step), best=False)
            return
        score = score_of(counts, step)
        # Without a pixel that counts the score is 0, which is no score.
        gain = score.miou > self.best["miou"] + _GAIN
        better = self.improved = bool(counts.any()) and gain
        self.misses = 0 if better else self.misses + 1
        if better:
            self.best = {"step": step, "miou": score.miou}
            trainer.save_checkpoint(self.path, weights_only=True)
        self.seen.validated(score, better)
        trainer.should_stop = trainer.should_stop or self.stopped

    def _tell_failed(self, step: int, failed: int) -> None:
        warnings.warn(
            f"step {step}: {failed} of {len(self.scenes)} validation scenes could not "
            "be read, so this validation chooses nothing",
            GeosegWarning,
            stacklevel=2,
        )

    def _count(self, trainer: Trainer, average: nn.Module) -> tuple[Counts, int]:
        """Return the confusion matrix, and how many scenes could not be read."""
        step = trainer.global_step
        config = PredictorConfig(
            folder="",
            sha256="",
            tile_size=self.spec.tile_size,
            device=str(trainer.strategy.root_device),
            dtype="bfloat16" if self.precision == "bfloat16" else "float32",
        )
        predictor = Predictor(average, self.spec, config)
        stride = default_stride(self.spec.tile_size, self.spec.patch_size)
        confusion = np.zeros(self._size, np.int64)
        failures: list[SceneError] = []
        # Devices share the scenes.
        for scene in self.scenes[trainer.global_rank :: trainer.world_size]:
            try:
                confusion += self._score_scene(predictor, scene, step, stride)
            except SceneError as error:
                failures.append(error)
                if self.on_bad == "fail":
                    break
        if failures and self.on_bad == "fail":
            agree(trainer, failures[0], ())
        agree(trainer, None, [str(failure) for failure in failures])
        tally = torch.from_numpy(np.append(confusion, len(failures)))
        sums: Tensor = trainer.strategy.reduce(
            tally.to(trainer.strategy.root_device), reduce_op="sum"
        )
        *counts, failed = sums.tolist()
        return np.array(counts, np.int64).reshape(self._size), failed

    def _score_scene(
        self, predictor: Predictor, scene: LabelledSource, step: int, stride: int
    ) -> Counts:
        confusion = np.zeros(self._size, np.int64)
        for number, region in enumerate(_regions(scene.grid)):
            image, labels, predicted = predict_region(predictor, scene, region, stride)
            confusion += count_confusion(labels, predicted, self._size)
            if number == 0:
                # Every so many pixels: class colours must not mix.
                every = -(-max(labels.shape) // _PICTURE)
                thin = np.s_[::every, ::every]
                pixels = np.asarray(image[:, *thin], np.float32) / scene.scale
                view = View(
                    scene.name,
                    pixels.astype(np.float32),
                    np.ascontiguousarray(labels[thin]),
                    np.ascontiguousarray(predicted[thin]),
                )
                self.looked(step, view)
        return confusion
