"""Which parameters are trained, and how fast each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from geoseg.training.config import LoopConfig

_BLOCK = re.compile(r"(?:^|\.)(?:layers?|blocks)\.([0-9]+)\.")
"""Number of a transformer's block in a parameter's name, HF's way and timm's."""

SCALE = "scale"
"""Key of a parameter group: what its learning rate is of the schedule's."""


def parameter_groups(
    modules: Sequence[nn.Module], vit: nn.Module | None, config: LoopConfig
) -> list[dict[str, Any]]:
    """Group the parameters that are trained by weight decay and learning rate.

    What has two axes or more decays, embeddings among them; norms and biases do not.
    Layers of the ViT learn the slower the nearer they are to its input: the last block
    at `layer_decay` of the schedule's rate, the one before at its square (Clark et al.,
    ELECTRA, 2020; Bao et al., BEiT, 2022).

    Args:
        modules: What holds all parameters.
        vit: The pretrained part of them, if it has blocks.
        config: Weight decay and layer decay.

    Returns:
        Groups for an optimiser, those without parameters left out.
    """
    scales = {} if vit is None else dict(_layer_scales(vit, config.layer_decay))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                decay = config.weight_decay if parameter.ndim > 1 else 0.0
                scale = scales.get(id(parameter), 1.0)
                groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay, SCALE: scale}
        for (scale, decay), members in sorted(groups.items(), reverse=True)
    ]


def _layer_scales(vit: nn.Module, decay: float) -> Iterator[tuple[int, float]]:
    """Pair the id of each parameter with what its learning rate is scaled by."""
    named = list(vit.named_parameters())
    blocks = [_block(name) for name, _ in named]
    depth = 1 + max((block for block in blocks if block is not None), default=-1)
    after = False  # what follows the blocks, in order of definition, as the last norm
    for (_, parameter), block in zip(named, blocks, strict=True):
        after = after or block is not None
        level = block if block is not None else (depth if after else -1)
        yield id(parameter), decay ** (depth - level)


def _block(name: str) -> int | None:
    found = _BLOCK.search(name)
    return None if found is None else int(found[1])
