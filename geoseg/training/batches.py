"""The chips of each step: the same ones however a run is stopped or spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from geoseg.errors import GeosegError
from geoseg.reporting.notes import heard
from geoseg.training.config import LoopConfig


class ChipSource(Protocol):
    """What draws chips; a function of its arguments and of nothing else."""

    def chip(self, key: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
        """Draw the chip of a (seed, step, sample).

        Returns:
            Image (C, side, side), float32 in 0..1, and labels (side, side), int64.
        """


class StepBatch(NamedTuple):
    """One device's chips of one optimiser step."""

    step: int
    """Zero-based."""
    first: int
    """Number of the first chip among all of the step's."""
    images: Tensor
    """(B, C, side, side), float32 in 0..1."""
    labels: Tensor
    """(B, side, side), int64."""
    notes: Sequence[str] = ()
    """What was warned of while they were cut, perhaps in a process of the loader's."""


class StepBatches(Dataset[StepBatch]):
    """The batches of one device, by step.

    Args:
        source: Where chips come from.
        config: How many there are of which size.
        chip_size: Side of a chip before the last phase, pixels.
        rank: Number of the device.
        world: Devices in all.
    """

    def __init__(
        self,
        source: ChipSource,
        config: LoopConfig,
        chip_size: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.source, self.config, self.chip_size = source, config, chip_size
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> StepBatch:
        count, side = self.config.phase(step, self.chip_size)
        share = count // self.world
        first = self.rank * share
        chips = [
            self.source.chip((self.config.seed, step, sample), side)
            for sample in range(first, first + share)
        ]
        images, labels = zip(*chips, strict=True)
        return StepBatch(step, first, torch.stack(images), torch.stack(labels))


class _Carried(Dataset["StepBatch | GeosegError"]):
    """Returns errors instead of raising them, and what would be warned of.

    A loader would make many lines of an error that a process of its own raises, and
    what that warns of goes past whoever listens here.
    """

    def __init__(self, batches: StepBatches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> StepBatch | GeosegError:
        notes: list[str] = []
        try:
            with heard(notes.append):
                batch = self.batches[step]
        except GeosegError as error:
            for text in notes:
                error.add_note(text)
            return error
        return batch._replace(notes=tuple(notes))


class _Remaining(Sampler[int]):
    """Steps from `first` on; its length is that of the whole run, as trainers count."""

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.steps = first, steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.steps))

    def __len__(self) -> int:
        return self.steps


def load_steps(batches: StepBatches, first: int) -> DataLoader[StepBatch | GeosegError]:
    """Load batches in order of steps, beginning with `first`.

    What goes wrong comes in place of a batch.
    """
    workers = batches.config.workers
    return DataLoader(
        _Carried(batches),
        batch_size=None,
        sampler=_Remaining(first, len(batches)),
        num_workers=workers,
        # Forked, a worker would inherit the locks of torch's threads.
        multiprocessing_context="forkserver" if workers else None,
        persistent_workers=workers > 0,
    )


def model_seed(seed: int, step: int) -> int:
    """Seed of what a model draws in one step, the same for all chips and devices."""
    return _seed(seed, step, 0)


def sample_seed(seed: int, step: int, sample: int) -> int:
    """Seed of what the loss draws for one chip."""
    return _seed(seed, step, 1 + sample)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
