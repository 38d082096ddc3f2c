"""How much memory a step takes, and how many chips fit."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import torch
from distributed.system import MEMORY_LIMIT
from torch import Tensor, nn

from geoseg.errors import TrainingError
from geoseg.training.config import LoopConfig
from geoseg.training.module import SegmentationModule

MARGIN = 1.3
"""Peak of a step over what its forward pass keeps: gradients of it, work space."""

_STATES = 4
"""Values for each one that is trained: itself counted apart, gradient, two moments of
AdamW, average."""


def activation_bytes(module: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, parameters apart.

    Args:
        module: Whose parameters they are.
        forward: Runs it; what it returns is held until all is counted.
    """
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values())


def check_memory(module: SegmentationModule, *, cuda: bool) -> None:
    """Refuse chips that will not fit, before hours are spent on those that do.

    One chip of each size goes through the model on the CPU.

    Args:
        module: What will be trained.
        cuda: Whether on GPUs, one a process, instead of in main memory.

    Raises:
        TrainingError: They do not fit; says how many do.
    """
    config = module.config
    free = _free_bytes(cuda=cuda)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    fixed = 4 * _STATES * trained
    if cuda:
        fixed += sum(4 * p.numel() for p in module.parameters())
    sharing = 1 if cuda else config.devices
    for count, side in sorted(config.phases(module.chip_size)):
        chips = min(count // config.devices, config.micro_batch_size or count)
        each = MARGIN * activation_bytes(module, lambda side=side: module.probe(side))  # type: ignore[misc]
        if fixed + chips * each > free / sharing:
            fitting = int((free / sharing - fixed) // each)
            raise TrainingError(_advice(config, chips, side, each, fitting, free))


def _free_bytes(*, cuda: bool) -> float:
    if cuda:
        return float(torch.cuda.mem_get_info()[0])
    # A container may have less than the machine.
    return float(min(psutil.virtual_memory().available, MEMORY_LIMIT))


def _advice(
    config: LoopConfig, chips: int, side: int, each: float, fitting: int, free: float
) -> str:
    needs = (
        f"{chips} chips of {side} pixels in a forward pass need about "
        f"{chips * each / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    )
    if fitting < 1:
        return (
            f"{needs}: not one fits; set smaller chips, chips.size and "
            "train.final_chip_size"
        )
    return (
        f"{needs}: {fitting} fit; set train.micro_batch_size={fitting}, which gives "
        "the same gradients, batch norms apart, in more passes"
    )
