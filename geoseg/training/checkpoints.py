"""Checkpoints: written whole or not at all, and only gone on with by the same run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from geoseg.errors import ConfigError
from geoseg.io.atomic import atomic_path
from geoseg.training.module import RECIPE
from geoseg.training.outputs import unwritten

LAST, BEST = "last.ckpt", "best.ckpt"
"""Files of a run folder: where it goes on, and the weights with the best mIoU."""

_REMEMBERED = 0.5
"""Share of the longest step that the next one is expected to take, at least."""

_FOREIGN = (EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError)
"""What torch raises on a file that is no checkpoint, or one of another model."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes under a temporary name, flushes to the disk, and renames."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: object = None,
    ) -> None:
        """Write a checkpoint; a kill or a full disk leaves the older one.

        Raises:
            FileOutputError: The disk is full or gone.
        """
        final = Path(path)
        try:
            with atomic_path(final) as temporary, temporary.open("wb") as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:
            kept = "the checkpoint before it is whole" if final.exists() else ""
            raise unwritten(final, error, kept) from error


class StepClock(Callback):
    """Knows how long a step takes; goes before what validates, `Checkpoints` after it.

    A step that took long once, in a process that was stopped, is soon forgotten.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds that the next step may take."""
        self._begun = monotonic()

    def restart(self) -> None:
        """Count from here: what comes next is a step."""
        self._begun = monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object
    ) -> None:
        """Take the time."""
        self.longest = max(monotonic() - self._begun, _REMEMBERED * self.longest)


class Validates(Protocol):
    """Scores a step."""

    improved: bool
    """Whether the weights of this step are the best so far, and written as that."""


class Checkpoints(Callback):
    """Saves the run at most so many seconds after the last time, and at its end.

    A validation may add its own time. With new best weights it saves at once: what
    tells their step is in the checkpoint.

    Args:
        folder: The run folder.
        seconds: Longest time between two checkpoints.
        steps: Steps of the whole run.
        clock: Knows how long a step takes.
        validation: What writes the best weights, if anything does.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float,
        steps: int,
        clock: StepClock,
        validation: Validates | None,
    ) -> None:
        self.path, self.seconds, self.steps = folder / LAST, seconds, steps
        self.clock, self.validation = clock, validation
        self._saved = monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here."""
        self._saved = monotonic()
        self.clock.restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object
    ) -> None:
        """Save when it is time."""
        # Before the next step ends, not after it: a step may take minutes.
        late = monotonic() - self._saved + self.clock.longest > self.seconds
        ended = trainer.should_stop or trainer.global_step >= self.steps
        # The first process's clock counts for all, who write together.
        improved = self.validation is not None and self.validation.improved
        if trainer.strategy.broadcast(late or ended or improved):
            trainer.save_checkpoint(self.path)
            self._saved = monotonic()
        self.clock.restart()


def read_checkpoint(path: Path, recipe: Mapping[str, object]) -> dict[str, Any]:
    """Read a run's checkpoint, without running any code in it.

    Args:
        path: The file.
        recipe: What the run depends on now, by dotted key.

    Raises:
        ConfigError: It is no checkpoint of ours, or of a run with another recipe.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=True
        )
        begun = json.loads(checkpoint[RECIPE])
    except _FOREIGN as error:
        raise foreign(path, error) from error
    _check_recipe(path, begun, recipe)
    return checkpoint


def begun_with(folder: Path) -> Mapping[str, object]:
    """Return the recipe that a run folder's checkpoint was begun with, {} if none is.

    Raises:
        ConfigError: What is there is no checkpoint of ours.
    """
    path = folder / LAST
    if not path.exists():
        return {}
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        begun: dict[str, object] = json.loads(checkpoint[RECIPE])
    except _FOREIGN as error:
        raise foreign(path, error) from error
    return begun


def check_folder(folder: Path, recipe: Mapping[str, object]) -> None:
    """Check that a run folder is new, or holds a checkpoint of the same run.

    Raises:
        ConfigError: It holds another.
    """
    if (folder / LAST).exists():
        read_checkpoint(folder / LAST, recipe)


def foreign(path: Path, error: BaseException) -> ConfigError:
    """The error of a file that does not fit the model, from what torch raised."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ConfigError(
        f"{path} is not a checkpoint of this model ({reason}); set another out"
    )


def _check_recipe(
    path: Path, begun: Mapping[str, object], recipe: Mapping[str, object]
) -> None:
    """Refuse to go on with another recipe: nobody could make that run again."""
    now = json.loads(json.dumps(dict(recipe)))
    differences = [
        f"{key} is {now.get(key)!r}, was {begun.get(key)!r}"
        for key in sorted(begun.keys() | now.keys())
        if not _same(begun.get(key), now.get(key))
    ]
    if differences:
        raise ConfigError(
            f"{path.parent} was begun with another recipe ({'; '.join(differences)}); "
            "give the same, or another out"
        )


def _same(one: object, other: object) -> bool:
    """Tell whether two values of a recipe mean the same: 1 and 1.0 do."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) in (int, float) and type(other) in (int, float) and one == other:
        return True
    # As text NaN is what it was, and a number is no switch.
    return json.dumps(one) == json.dumps(other)
