"""A plain training loop that ends when so many CPU seconds are spent.

What a recipe of `geoseg train` says by steps (warm-up, decay, the larger chips at the
end) happens here at the same shares of the CPU seconds: nobody knows beforehand how
many steps they will do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.data.chips import ChipSampler
from geoseg.data.config import DataConfig
from geoseg.io.atomic import atomic_path
from geoseg.training.average import start_average, update_average
from geoseg.training.config import LoopConfig
from geoseg.training.parameters import parameter_groups

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes logits (B, K, H, W) and class indices (B, H, W)."""


class TimedTraining:
    """Trains a network on chips of geoseg's, and goes on from its checkpoint.

    Optimiser, weight decay, clipping, average, sizes of chips and batches are as
    `geoseg train` has them for the same recipe.

    Args:
        network: Gives an output with `logits`; in float32.
        loss: What is made small.
        chips: Draws the chips.
        loop: The section `train` of a recipe.
        chip_size: Side of a chip before the last phase, pixels.
        data: Tells mean and deviation of pixels.
        seconds: CPU seconds of this process to spend in all.
        clock: Tells how many it has spent.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        chips: ChipSampler,
        loop: LoopConfig,
        *,
        chip_size: int,
        data: DataConfig,
        seconds: float,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.network = network.train().to(memory_format=torch.channels_last)
        self.loss, self.chips, self.loop = loss, chips, loop
        self.chip_size, self.seconds, self.clock = chip_size, seconds, clock
        self.mean = torch.tensor(data.mean).view(1, -1, 1, 1)
        self.std = torch.tensor(data.std).view(1, -1, 1, 1)
        self.average = start_average(network)
        groups = parameter_groups([network], None, loop)
        self.optimizer = torch.optim.AdamW(groups, lr=loop.learning_rate)
        self.step, self.spent = 0, 0.0

    def run(self, path: Path, settings: Mapping[str, object]) -> None:
        """Train until the seconds are spent; `average` is the result.

        Args:
            path: Checkpoint, written every `loop.checkpoint_seconds` of CPU time.
            settings: What the result depends on: another checkpoint is refused.
        """
        if path.exists():
            self._load(path, settings)
        begun, saved = self.clock() - self.spent, self.spent
        while self.spent < self.seconds:
            loss = self._take_step()
            self.step += 1
            self.spent = self.clock() - begun
            late = self.spent - saved >= self.loop.checkpoint_seconds
            if late or self.spent >= self.seconds:
                self._save(path, settings)
                saved = self.spent
                told = f"step {self.step}, loss {loss:.3f}"
                print(f"{self.spent:8.0f} CPU s, {told}", flush=True)

    def _take_step(self) -> float:
        # The step of the recipe that the share of the seconds stands for.
        place = int(self.loop.steps * self.spent / self.seconds)
        count, side = self.loop.phase(place, self.chip_size)
        images, labels = self.chips.batch(self.loop.seed, self.step, count, side)
        images = ((images - self.mean) / self.std).contiguous(
            memory_format=torch.channels_last
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.loop.learning_rate_at(place)
        self.optimizer.zero_grad(set_to_none=True)
        low = self.loop.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = self.network(pixel_values=images).logits
        loss = self.loss(logits.float(), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.loop.clip_norm)
        self.optimizer.step()
        update_average(self.average, self.network, self.step, self.loop.ema_decay)
        return loss.item()

    def _save(self, path: Path, settings: Mapping[str, object]) -> None:
        checkpoint = {
            "settings": dict(settings),
            "step": self.step,
            "spent": self.spent,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def _load(self, path: Path, settings: Mapping[str, object]) -> None:
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
        if checkpoint["settings"] != settings:
            raise SystemExit(
                f"{path} was begun with other settings; take another folder"
            )
        self.step, self.spent = checkpoint["step"], checkpoint["spent"]
        self.network.load_state_dict(checkpoint["network"])
        self.average.load_state_dict(checkpoint["average"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
