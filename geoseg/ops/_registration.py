"""What the operators need in Python: shapes without data, gradients, autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAME = "geoseg::ms_deform_attn"

Gradients = tuple[Tensor, Tensor, Tensor]


def register() -> torch.library.Library:
    """Register everything; the result must be kept, or it is undone."""
    torch.library.register_fake(NAME, _fake)
    torch.library.register_fake(f"{NAME}_backward", _fake_backward)
    torch.library.register_fake(f"{NAME}_fused", _fake_fused)
    torch.library.register_autograd(NAME, _backward, setup_context=_keep)
    torch.library.register_autograd(f"{NAME}_backward", _twice)
    library = torch.library.Library("geoseg", "IMPL")
    for device in ("cpu", "cuda"):
        key = f"Autocast{device.upper()}"
        library.impl("ms_deform_attn", _autocast(device), key)
        library.impl("ms_deform_attn_fused", _autocast_fused(device), key)
    return library


def _fake(
    value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor
) -> Tensor:
    batch, _, heads, dim = value.shape
    return value.new_empty((batch, locations.shape[1], heads * dim))


def _fake_fused(
    value: Tensor, shapes: list[int], grid: list[int], offsets: Tensor, logits: Tensor
) -> Tensor:
    return _fake(value, shapes, offsets, logits)


def _fake_backward(
    _: Tensor,
    value: Tensor,
    shapes: list[int],
    locations: Tensor,
    weights: Tensor,
    deterministic: bool = False,
) -> Gradients:
    def like(tensor: Tensor) -> Tensor:
        return tensor.new_empty(tensor.shape)

    return like(value), like(locations), like(weights)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    value, ctx.shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _backward(
    ctx: Any,  # noqa: ANN401 (torch has no type for it)
    grad: Tensor,
) -> tuple[Tensor, None, Tensor, Tensor]:
    value, locations, weights = ctx.saved_tensors
    by_value, by_location, by_weight = torch.ops.geoseg.ms_deform_attn_backward(
        grad,
        value,
        ctx.shapes,
        locations,
        weights,
        torch.are_deterministic_algorithms_enabled(),
    )
    return by_value, None, by_location, by_weight


def _twice(*_: object) -> None:
    raise NotImplementedError(
        "ms_deform_attn has no second derivative; take the PyTorch reference, within "
        "`geoseg.ops.use_reference()`"
    )


def _autocast(device: str) -> Any:  # noqa: ANN401 (a kernel)
    def kernel(
        value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor
    ) -> Tensor:
        if value.dtype != torch.float64:
            value = _reduced(value, device)
            locations, weights = locations.float(), weights.float()
        with _without_autocast(device):
            output: Tensor = torch.ops.geoseg.ms_deform_attn(
                value, shapes, locations, weights
            )
        return output

    return kernel


def _autocast_fused(device: str) -> Any:  # noqa: ANN401 (a kernel)
    def kernel(
        value: Tensor,
        shapes: list[int],
        grid: list[int],
        offsets: Tensor,
        logits: Tensor,
    ) -> Tensor:
        if value.dtype != torch.float64:
            value = _reduced(value, device)
            # Both come from linear layers, so that they are reduced already. Nothing is
            # gained by widening them: the kernel does.
            offsets, logits = (
                tensor if tensor.dtype == value.dtype else tensor.float()
                for tensor in (offsets, logits)
            )
        with _without_autocast(device):
            output: Tensor = torch.ops.geoseg.ms_deform_attn_fused(
                value, shapes, grid, offsets, logits
            )
        return output

    return kernel


def _reduced(value: Tensor, device: str) -> Tensor:
    """Cast values as autocast casts factors of a matrix product.

    Locations never are: at a width of 180 cells, bfloat16 is off by 0.7 of a cell.
    """
    reduced = torch.get_autocast_dtype(device)
    # The CPU has no kernel for float16.
    known = device != "cpu" or reduced != torch.float16
    return value.to(reduced if known else torch.float32)


def _without_autocast(device: str) -> Any:  # noqa: ANN401 (torch has no type for it)
    key = getattr(torch._C.DispatchKey, f"Autocast{device.upper()}")
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key))
