"""What a run leaves to look at: CSV, TensorBoard, pictures."""

from __future__ import annotations

import csv
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter

from geoseg.data.pictures import draw_chips
from geoseg.io.atomic import atomic_path
from geoseg.layout import PICTURES
from geoseg.training.outputs import writing
from geoseg.training.progress import Listener, Score
from geoseg.training.validation import View
from geoseg.types import ClassInfo

LOG, VALIDATION, TENSORBOARD = "log.csv", "validation.csv", "tensorboard"
"""Names in a run folder."""

MOST_PICTURES = 4
"""Scenes that are drawn at each validation."""


class RunLog(Callback):
    """Writes a run's log, in the first process only.

    Args:
        folder: The run folder.
        every: Steps between two lines.
        classes: Class table.
        listener: Told the same.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        classes: Sequence[ClassInfo],
        listener: Listener,
    ) -> None:
        self.folder, self.every, self.classes = folder, every, classes
        self.listener = listener
        self._writer: SummaryWriter | None = None
        self._drawn: tuple[int, int] = (0, 0)  # step, pictures

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what was logged of steps that will be taken again."""
        if not trainer.is_global_zero:
            return
        for name in (LOG, VALIDATION):
            _shorten(self.folder / name, trainer.global_step)
        for path in self.folder.glob(f"{PICTURES}/step-*.png"):
            if int(path.name.split("-")[1]) > trainer.global_step:
                path.unlink()
        events = self.folder / TENSORBOARD
        with writing(events):
            self._writer = SummaryWriter(events, purge_step=trainer.global_step + 1)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 (Lightning's own signature)
        *_: object,
    ) -> None:
        """Log the terms of the loss."""
        step = trainer.global_step
        if self._writer is None or (step % self.every and step < trainer.max_steps):
            return
        terms = {name: float(value) for name, value in outputs.items()}
        _append(self.folder / LOG, {"step": step, "time": _now(), **terms})
        self._scalars("train", terms, step)
        self.listener.step(step, terms)

    def validated(self, score: Score, best: bool) -> None:
        """Log a score."""
        if self._writer is None:
            return
        names = [entry.name for entry in self.classes]
        by_class = dict(zip(names, score.iou, strict=True))
        totals = {"miou": score.miou, "accuracy": score.accuracy}
        row = {"step": score.step, "time": _now(), "best": int(best), **totals}
        columns = {f"iou {name}": value for name, value in by_class.items()}
        _append(self.folder / VALIDATION, {**row, **columns})
        self._scalars("validation", totals, score.step)
        self._scalars("iou", by_class, score.step)
        with writing(self.folder / TENSORBOARD):
            self._writer.flush()
        self.listener.validated(score, best)

    def looked(self, step: int, view: View) -> None:
        """Draw a prediction beside the truth."""
        if self._drawn[0] != step:
            self._drawn = (step, 0)
        if self._writer is None or self._drawn[1] >= MOST_PICTURES:
            return
        self._drawn = (step, self._drawn[1] + 1)
        masks = {"labels": view.labels, "predicted": view.predicted}
        picture = draw_chips(
            torch.from_numpy(view.image)[None],
            [(title, torch.from_numpy(mask)[None]) for title, mask in masks.items()],
            self.classes,
            columns=1,
        )
        name = re.sub(r"[^\w.-]", "_", view.name)
        path = self.folder / PICTURES / f"step-{step:06d}-{name}.png"
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            picture.save(path)
        with writing(self.folder / TENSORBOARD):
            self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Close files, also after an error."""
        if self._writer is not None:
            with writing(self.folder / TENSORBOARD):
                self._writer.close()
            self._writer = None

    def _scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        assert self._writer is not None
        with writing(self.folder / TENSORBOARD):
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Keep back the trace of a thread that writes events where its disk is full.

    What it met is raised again by the next call that writes.
    """
    before = threading.excepthook

    def tell(failed: threading.ExceptHookArgs) -> None:
        written = type(failed.thread).__module__ == event_file_writer.__name__
        if not (written and isinstance(failed.exc_value, OSError)):
            before(failed)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


def _now() -> float:
    return round(time.time(), 1)


def _append(path: Path, row: Mapping[str, object]) -> None:
    # Empty where a full disk took nothing.
    fresh = not (path.exists() and path.stat().st_size)
    with writing(path), path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def _shorten(path: Path, step: int) -> None:
    """Drop the lines after a step, and one that was cut short."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    kept = [line for line in whole[1:] if int(line.split(",")[0]) <= step]
    with writing(path), atomic_path(path) as temporary:
        temporary.write_text("".join(whole[:1] + kept))
