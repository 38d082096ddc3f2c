"""The moving average of a model's weights, which is what ships."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def start_average(model: M) -> M:
    """Copy a model to average it; frozen parameters are shared, not copied."""
    shared: dict[int, object] = {
        id(parameter): parameter
        for parameter in model.parameters()
        if not parameter.requires_grad
    }
    average = copy.deepcopy(model, shared)
    average.requires_grad_(False)
    return average.eval()


@torch.no_grad()
def update_average(
    average: nn.Module, model: nn.Module, step: int, decay: float
) -> None:
    """Move the average towards a model's weights, batch norms' statistics included.

    It starts short, so that the first random weights are soon forgotten.

    Args:
        average: What `start_average` made of the model.
        model: The model after an optimiser step.
        step: Number of that step, from zero.
        decay: Share of the average that stays, in the long run.
    """
    decay = min(decay, (1 + step) / (10 + step))
    averaged, current = [], []
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    for old, new in pairs:
        if old.data_ptr() == new.data_ptr():
            continue  # frozen
        if old.dtype.is_floating_point:
            averaged.append(old)
            current.append(new)
        else:
            old.copy_(new)
    torch._foreach_lerp_(averaged, current, 1 - decay)
