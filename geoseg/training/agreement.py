"""What the processes of a training tell each other: errors, and what to warn of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from lightning.pytorch import Trainer

from geoseg.errors import AgreedError, GeosegError, GeosegWarning, TrainingError

T = TypeVar("T")


def gathered(trainer: Trainer, own: T) -> list[T]:
    """Return what each process has, by rank; all of them must call."""
    if trainer.world_size == 1:
        return [own]
    every: list[T | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(every, own)
    return cast(list[T], every)


def agree(trainer: Trainer, error: GeosegError | None, notes: Sequence[str]) -> None:
    """End in all processes where one has to, and warn in the first of what any met.

    A process that raised alone would leave the others waiting for it, and they would
    be killed with nothing said.

    Args:
        trainer: All of its processes must call.
        error: What this one cannot go on with.
        notes: What this one has to tell.

    Raises:
        GeosegError: `error`, in the first process.
        TrainingError: Another process has an error: the first of all, in words.
        AgreedError: The same in a process after the first.
    """
    trouble = torch.tensor(float(error is not None or bool(notes)))
    if trainer.world_size > 1:
        on_device = trouble.to(trainer.strategy.root_device)
        trouble = trainer.strategy.reduce(on_device, reduce_op="sum")
    if not trouble:
        return
    # As text: what an error holds need not survive the way.
    every = gathered(trainer, (None if error is None else str(error), list(notes)))
    if trainer.is_global_zero:
        for text in dict.fromkeys(text for _, texts in every for text in texts):
            warnings.warn(text, GeosegWarning, stacklevel=2)
    first = next((found for found, _ in every if found is not None), None)
    if first is not None and trainer.is_global_zero and error is not None:
        raise error
    if first is not None:
        raise (TrainingError if trainer.is_global_zero else AgreedError)(first)
