"""Settings of a training run: optimisation, losses, bookkeeping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from geoseg.errors import ConfigError

_COUNTS = (
    "steps",
    "batch_size",
    "final_batch_size",
    "final_chip_size",
    "log_every",
    "validate_every",
    "devices",
)
_POSITIVE = ("learning_rate", "clip_norm", "checkpoint_seconds")
_SHARES = ("ema_decay", "final_share", "layer_decay")
_NOT_NEGATIVE = ("weight_decay", "warmup_steps", "power", "workers", "seed")

LONGEST_CHECKPOINT_SECONDS = 600.0
"""More than this is never lost to a kill."""


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the terms."""

    set_weight: float = 1.0
    """Mask2Former's own loss, the sum over its decoder's layers."""
    pixel_weight: float = 2.0
    """Negative log likelihood of the class probabilities that inference uses."""
    auxiliary_weight: float = 1.0
    """A per-pixel classifier on the pixel decoder's features, which does not ship."""

    def __post_init__(self) -> None:
        """Check that there is something to learn from.

        Raises:
            ConfigError: A weight is negative, or all are zero.
        """
        weights = (self.set_weight, self.pixel_weight, self.auxiliary_weight)
        if min(weights) < 0 or self.set_weight + self.pixel_weight <= 0:
            raise ConfigError(
                f"loss weights are {weights}; use 0 or more, and more than 0 for "
                "loss.set_weight or loss.pixel_weight"
            )


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Optimisation and bookkeeping."""

    steps: int = 3600
    """Optimiser steps in all."""
    batch_size: int = 4
    """Chips a step, over all devices."""
    micro_batch_size: int | None = None
    """Chips a forward pass of one device, gradients summed; None: all of its chips."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW."""
    layer_decay: float = 1.0
    """What the learning rate of each layer of the ViT is of the next layer's, when the
    ViT is trained; 1 for the same."""
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
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the model; weights, losses and averages are float32 always."""
    final_share: float = 0.15
    """Share of the steps, at the end, that see larger chips, nearer to a tile."""
    final_chip_size: int = 480
    """Side of those chips, pixels."""
    final_batch_size: int = 2
    """Chips a step then."""
    validate_every: int = 400
    """Steps between two validations, if there are validation scenes."""
    validation_scenes: int | None = None
    """Scenes that are scored, drawn evenly from all of the validation; None: all."""
    patience: int | None = None
    """Validations in a row without a better mIoU after which training ends."""
    checkpoint_seconds: float = 300.0
    """Longest time between two checkpoints."""
    log_every: int = 20
    """Steps between two lines of the log."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto is CUDA where there is a GPU."""
    devices: int = 1
    """GPUs, or processes on a CPU, that share each step's chips."""
    workers: int = 0
    """Processes that cut chips for each device; 0: the training process itself."""
    seed: int = 0
    """Seed of every random draw."""

    def __post_init__(self) -> None:
        """Check ranges, which would otherwise show after hours.

        Raises:
            ConfigError: A number makes no training.
        """
        self._check(_COUNTS, lambda value: value >= 1, "1 or more")
        self._check(_POSITIVE, lambda value: value > 0, "a number above 0")
        self._check(_SHARES, lambda value: 0 <= value <= 1, "0 to 1")
        self._check(_NOT_NEGATIVE, lambda value: value >= 0, "0 or more")
        optional = [
            name
            for name in ("micro_batch_size", "validation_scenes", "patience")
            if getattr(self, name) is not None
        ]
        self._check(optional, lambda value: value >= 1, "1 or more, or null")
        if self.checkpoint_seconds > LONGEST_CHECKPOINT_SECONDS:
            raise ConfigError(
                f"train.checkpoint_seconds is {self.checkpoint_seconds:g}; use at most "
                f"{LONGEST_CHECKPOINT_SECONDS:g}, so that no kill costs more"
            )
        for name in ("batch_size", "final_batch_size"):
            if getattr(self, name) % self.devices:
                raise ConfigError(
                    f"train.{name} is {getattr(self, name)}, which {self.devices} "
                    f"devices cannot share evenly; use a multiple of {self.devices}"
                )

    def _check(
        self, names: Sequence[str], fits: Callable[[float], bool], wanted: str
    ) -> None:
        for name in names:
            value = getattr(self, name)
            if not fits(value):
                raise ConfigError(f"train.{name} is {value}; use {wanted}")

    def phase(self, step: int, chip_size: int) -> tuple[int, int]:
        """Return (chips, side of a chip in pixels) of a step.

        Args:
            step: Zero-based.
            chip_size: Side of a chip before the last phase.
        """
        if step < self.steps * (1 - self.final_share):
            return self.batch_size, chip_size
        return self.final_batch_size, self.final_chip_size

    def phases(self, chip_size: int) -> frozenset[tuple[int, int]]:
        """Return (chips, side of a chip in pixels) of all steps.

        Args:
            chip_size: As of `phase`.
        """
        return frozenset(self.phase(step, chip_size) for step in (0, self.steps - 1))

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then polynomial decay to zero."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        left = max(0.0, 1.0 - step / self.steps)
        return float(self.learning_rate * warm * left**self.power)
