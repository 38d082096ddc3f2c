"""The Lightning module: one optimiser step, and what its checkpoints hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.errors import AgreedError, ConfigError, GeosegError, TrainingError
from geoseg.models.backbone import ViTAdapterBackbone
from geoseg.models.checkpoint import checkpoint_payload
from geoseg.models.presets import DECLARATION
from geoseg.training.agreement import agree, gathered
from geoseg.training.average import start_average, update_average
from geoseg.training.batches import (
    ChipSource,
    StepBatch,
    StepBatches,
    load_steps,
    model_seed,
    sample_seed,
)
from geoseg.training.config import LoopConfig, LossConfig
from geoseg.training.losses import DenseMask2FormerLoss
from geoseg.training.parameters import SCALE, parameter_groups

RECIPE = "geoseg_recipe"
"""Key of a checkpoint: what its run was begun with, as JSON."""

_UNUSED = "mask_token"
"""Parameter that a ViT has for its pretraining only: it would never get a gradient."""


class SegmentationModule(LightningModule):
    """Trains a Mask2Former on chips; a batch of the loader is a whole optimiser step.

    All that is drawn in a step is a function of (seed, step, chip). The losses of its
    chips are sums over what the step holds on all devices, so neither the number of
    devices nor that of forward passes changes gradients, batch norms apart.

    Args:
        model: The model, `declare`d. What is frozen in it stays as it is, bit by bit.
        source: Where chips come from.
        config: Optimisation.
        weights: Weights of the loss's terms.
        chip_size: Side of a chip before the last phase, pixels.
        mean: Mean per band, 0..1.
        std: Standard deviation per band.
        recipe: What the run depends on, by dotted key; kept in checkpoints.
    """

    def __init__(
        self,
        model: Mask2FormerForUniversalSegmentation,
        source: ChipSource,
        config: LoopConfig,
        *,
        weights: LossConfig,
        chip_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        recipe: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        # Chips of a step may take several backward passes.
        self.automatic_optimization = False
        self.source, self.config, self.chip_size = source, config, chip_size
        self.recipe = dict(recipe or {})
        for name, parameter in model.named_parameters():
            if name.endswith(_UNUSED):
                parameter.requires_grad_(False)
        # oneDNN's convolutions are a third faster on this layout.
        torch_module: nn.Module = model
        torch_module.to(memory_format=torch.channels_last)
        self.model = model
        self.loss = DenseMask2FormerLoss(model, weights)
        self.average = start_average(self.model)
        self.mean = nn.Buffer(torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; the average is in eval mode always."""
        super().train(mode)
        self.average.eval()
        return self

    def on_fit_start(self) -> None:
        """Check that all processes train on the same.

        Raises:
            ConfigError: They do not.
        """
        recipes = gathered(self.trainer, self.recipe)
        if any(recipe != recipes[0] for recipe in recipes):
            error = ConfigError(
                "the processes of this training found different scenes or labels; see "
                "that all of them can read all files, and start it again"
            )
            agree(self.trainer, error, ())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over what is trained."""
        encoder = self.model.model.pixel_level_module.encoder
        vit = encoder.backbone if isinstance(encoder, ViTAdapterBackbone) else None
        groups = parameter_groups([self.model, self.loss], vit, self.config)
        return torch.optim.AdamW(groups, lr=self.config.learning_rate)

    def train_dataloader(self) -> DataLoader[StepBatch | GeosegError]:
        """Load this device's chips, from the step on that comes next."""
        batches = StepBatches(
            self.source,
            self.config,
            self.chip_size,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        return load_steps(batches, self.trainer.global_step)

    def training_step(self, batch: StepBatch | GeosegError, _: int) -> dict[str, Any]:
        """Take one optimiser step.

        Returns:
            The loss's terms, over the chips of all devices.

        Raises:
            TrainingError: Loss or gradient is not finite; the weights did not change.
            SceneError: A scene cannot be read.
        """
        if isinstance(batch, GeosegError):
            agree(self.trainer, batch, getattr(batch, "__notes__", ()))
            raise batch  # which `agree` has done
        agree(self.trainer, None, batch.notes)
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        optimizer.zero_grad(set_to_none=True)
        terms = self.backward_all(batch)
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, self.config.clip_norm)
        self._check_finite(batch.step, terms["total"], norm)
        rate = self.config.learning_rate_at(batch.step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group[SCALE]
        optimizer.step()
        update_average(self.average, self.model, batch.step, self.config.ema_decay)
        return {**terms, "learning_rate": rate}

    def backward_all(self, batch: StepBatch) -> dict[str, float]:
        """Add up the gradients of a step's chips, of all devices in the end.

        Returns:
            The terms of the loss, summed likewise.
        """
        counts = self._summed(self.loss.count(batch.labels))
        chips = len(batch.images)
        size = self.config.micro_batch_size or chips
        terms: dict[str, Tensor] = {}
        for start in range(0, chips, size):
            stop = min(start + size, chips)
            with nullcontext() if stop == chips else self._unsynchronized():
                part = self._forward(batch, slice(start, stop), counts)
                # Devices' gradients are averaged, and their sum is wanted.
                self.manual_backward(part["total"] * self.trainer.world_size)
            for name, value in part.items():
                terms[name] = terms.get(name, 0) + value.detach()
        summed = self._summed(torch.stack(list(terms.values())))
        return dict(zip(terms, summed.tolist(), strict=True))

    def _forward(
        self, batch: StepBatch, part: slice, counts: Tensor
    ) -> dict[str, Tensor]:
        images = (batch.images[part] - self.mean) / self.std
        images = images.contiguous(memory_format=torch.channels_last)
        seed, samples = self.config.seed, range(batch.first, 1 << 30)[part]
        torch.manual_seed(model_seed(seed, batch.step))
        terms: dict[str, Tensor] = self.loss(
            self.model,
            images,
            batch.labels[part],
            [sample_seed(seed, batch.step, sample) for sample in samples],
            counts,
        )
        return terms

    def probe(self, side: int) -> Tensor:
        """Compute the loss of one made chip; nothing is changed by it."""
        images = torch.zeros(1, len(self.mean.flatten()), side, side)
        labels = (
            torch.arange(side**2).view(1, side, side)
            % self.loss.classifier.out_channels
        )
        self.eval()  # no statistics of batch norms
        try:
            terms = self.loss(self.model, images, labels, [0], self.loss.count(labels))
        finally:
            self.train()
        return cast(Tensor, terms["total"])

    def _unsynchronized(self) -> AbstractContextManager[Any]:
        strategy = self.trainer.strategy
        if isinstance(strategy, ParallelStrategy):
            return cast(AbstractContextManager[Any], strategy.block_backward_sync())
        return nullcontext()

    def _summed(self, values: Tensor) -> Tensor:
        """Sum over devices."""
        return cast(Tensor, self.trainer.strategy.reduce(values, reduce_op="sum"))

    def _check_finite(self, step: int, loss: float, norm: Tensor) -> None:
        # Before the weights change: no checkpoint ever holds any that are not finite.
        # Both are the same on all devices, so all of them stop.
        for name, value in (("loss", loss), ("gradient's norm", norm.item())):
            if not torch.isfinite(torch.tensor(value)):
                advice = (
                    "the last checkpoint is good, if one was written: lower "
                    "train.learning_rate, in another out"
                )
                if step == 0:  # No weight was changed yet.
                    advice = "check data.mean, data.std, data.scale and the images"
                kind = TrainingError if self.trainer.is_global_zero else AgreedError
                raise kind(f"the {name} is {value} at step {step}; {advice}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the model, so that a checkpoint is one; keep the recipe."""
        checkpoint[DECLARATION] = checkpoint_payload(self.model)
        # As text: plain values of any kind, and no code.
        checkpoint[RECIPE] = json.dumps(self.recipe)
