"""The training loop: seeded by step, checkpointed by time, resumed to the same run."""

from __future__ import annotations

import copy
import csv
import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.data.chips import ChipSampler
from geoseg.errors import ConfigError

logger = logging.getLogger(__name__)

_FOREIGN = (EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError)
"""What torch raises on a file that is no checkpoint, or one of another model."""

Loss = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Optimisation and bookkeeping."""

    steps: int = 3600
    """Optimiser steps in all."""
    batch_size: int = 4
    """Chips a step."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW."""
    weight_decay: float = 1e-2
    """Decoupled weight decay."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from zero."""
    power: float = 0.9
    """Exponent of the polynomial decay to zero."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.998
    """Decay of the moving average of the weights; the average is what ships."""
    checkpoint_seconds: float = 300.0
    """Longest time between two checkpoints."""
    final_share: float = 0.15
    """Share of the steps, at the end, that see larger chips, nearer to a tile."""
    final_chip_size: int = 480
    """Side of those chips, pixels."""
    final_batch_size: int = 2
    """Chips a step then."""
    log_every: int = 20
    """Steps between two lines of the log."""
    seed: int = 0
    """Seed of every random draw."""

    def __post_init__(self) -> None:
        """Check ranges, which would otherwise show after hours.

        Raises:
            ConfigError: A number makes no training.
        """
        counts = ("steps", "batch_size", "final_batch_size", "log_every")
        for name in (*counts, "final_chip_size"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"train.{name} is {getattr(self, name)}; use 1 or more"
                )
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"train.{name} is {getattr(self, name)}; use a number above 0"
                )
        for name in ("ema_decay", "final_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"train.{name} is {getattr(self, name)}; use 0 to 1")


class TrainingLoop:
    """Trains one model; a second call with the same folder goes on where it stopped.

    Args:
        model: The model to train.
        loss: Callable module (model, images, labels) -> terms with `total`; its own
            parameters are trained too, and stay behind when the model ships.
        sampler: Source of batches.
        mean: Mean per band, 0..1.
        std: Standard deviation per band.
        config: Optimisation.
        folder: Where checkpoints and the log go.
        recipe: What else the run depends on, by dotted key; a checkpoint of another
            recipe is refused.

    Raises:
        ConfigError: The folder's checkpoint is not one of this run.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        sampler: ChipSampler,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        config: LoopConfig,
        folder: Path,
        recipe: Mapping[str, object] | None = None,
    ) -> None:
        self.recipe = dict(recipe or {})
        self.model = model.to(memory_format=torch.channels_last)
        self.loss, self.sampler = loss, sampler
        self.config, self.folder = config, folder
        self.mean = torch.tensor(mean).view(1, -1, 1, 1)
        self.std = torch.tensor(std).view(1, -1, 1, 1)
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            _parameter_groups([model, loss], config.weight_decay),
            lr=config.learning_rate,
        )
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._shorten_log()

    @property
    def checkpoint(self) -> Path:
        """File of the newest checkpoint."""
        return self.folder / "checkpoint.pt"

    def run(self, progress: Callable[[int, dict[str, float]], None]) -> nn.Module:
        """Train to the last step and return the averaged model, in eval mode."""
        saved = time.monotonic()
        self.model.train()
        self.loss.train()
        while self.step < self.config.steps:
            terms = self._train_step()
            self.step += 1
            if self.step % self.config.log_every == 0:
                self._log(terms)
                progress(self.step, terms)
            if time.monotonic() - saved > self.config.checkpoint_seconds:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.average

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then polynomial decay to zero."""
        config = self.config
        warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
        left = max(0.0, 1.0 - step / config.steps)
        return float(config.learning_rate * warm * left**config.power)

    def _train_step(self) -> dict[str, float]:
        config = self.config
        # The loss draws its sampling points from torch's generator.
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        images, labels = self._batch()
        terms = self.loss(self.model, images, labels)
        total = terms["total"]
        self._check_finite("loss", total)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        self._check_finite("gradient's norm", norm)
        self.optimizer.step()
        self._update_average()
        return {name: float(value.detach()) for name, value in terms.items()}

    def _check_finite(self, name: str, value: Tensor) -> None:
        # Before the weights change: a checkpoint never holds any that are not finite.
        if not bool(torch.isfinite(value)):
            raise ConfigError(
                f"the {name} is {value.item()} at step {self.step}; lower "
                "train.learning_rate and start again from the last checkpoint"
            )

    def _batch(self) -> tuple[Tensor, Tensor]:
        config = self.config
        if self.step < config.steps * (1 - config.final_share):
            count, side = config.batch_size, self.sampler.config.size
        else:
            count, side = config.final_batch_size, config.final_chip_size
        images, labels = self.sampler.batch(config.seed, self.step, count, side)
        images = (images - self.mean) / self.std
        # oneDNN's convolutions are a third faster on this layout.
        return images.contiguous(memory_format=torch.channels_last), labels

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average starts short, so that the first random weights are soon forgotten.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        pairs = zip(
            self.average.state_dict().values(),
            self.model.state_dict().values(),
            strict=True,
        )
        for averaged, current in pairs:
            if averaged.dtype.is_floating_point:
                averaged.lerp_(current, 1 - decay)
            else:
                averaged.copy_(current)

    def _log(self, terms: dict[str, float]) -> None:
        path = self.folder / "log.csv"
        fresh = not path.exists()
        row = {"step": self.step, "time": round(time.time(), 1), **terms}
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row), lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def _shorten_log(self) -> None:
        """Drop the lines of steps that will be taken again."""
        path = self.folder / "log.csv"
        if path.exists():
            rows = path.read_text().splitlines(keepends=True)
            kept = [row for row in rows[1:] if int(row.split(",")[0]) <= self.step]
            path.write_text("".join(rows[:1] + kept))

    def save(self) -> None:
        """Write a checkpoint under a temporary name and rename it."""
        state = {
            "step": self.step,
            # As text: plain values of any kind, and no code.
            "recipe": json.dumps(self.recipe),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = self.checkpoint.with_suffix(".partial")
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.checkpoint)
        logger.info("step %d saved to %s", self.step, self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self._check_recipe(json.loads(state["recipe"]))
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.loss.load_state_dict(state["loss"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
        except ConfigError:
            raise
        except _FOREIGN as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(
                f"{self.checkpoint} is not a checkpoint of this model ({reason}); set "
                "another out"
            ) from error
        logger.info("going on from step %d of %s", self.step, self.checkpoint)

    def _check_recipe(self, begun: dict[str, object]) -> None:
        """Refuse to go on with another recipe: nobody could make that run again."""
        now = json.loads(json.dumps(self.recipe))
        for key in sorted(begun.keys() | now.keys()):
            if begun.get(key) != now.get(key):
                raise ConfigError(
                    f"{key} is {now.get(key)!r}, and {self.folder} was begun with "
                    f"{begun.get(key)!r}; give the same, or another out"
                )


def _parameter_groups(modules: list[nn.Module], decay: float) -> list[dict[str, Any]]:
    """Decay what has two axes or more, embeddings among them; not norms and biases."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
