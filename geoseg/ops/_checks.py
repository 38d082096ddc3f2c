"""Checks of the operators' arguments, and words that say what does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

Shapes = Sequence[tuple[int, int]]
"""(height, width) of feature levels."""


def as_pairs(
    spatial_shapes: Shapes | Tensor, name: str = "spatial_shapes"
) -> list[tuple[int, int]]:
    """Turn level sizes, a tensor (L, 2) of them too, into a list of pairs."""
    if isinstance(spatial_shapes, Tensor):
        if spatial_shapes.ndim != 2 or spatial_shapes.shape[1] != 2:
            raise ValueError(
                f"{name} has shape {tuple(spatial_shapes.shape)}, expected "
                "(L, 2): height and width of each level"
            )
        spatial_shapes = spatial_shapes.tolist()
    pairs = [(height, width) for height, width in spatial_shapes]
    for height, width in pairs:
        if height < 1 or width < 1:
            raise ValueError(f"{name} {pairs} holds an empty level")
    return pairs


def check_tensors(value: Tensor, **others: Tensor) -> None:
    """Check that all are of a floating dtype and on the device of `value`."""
    for name, tensor in {"value": value, **others}.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype}, expected a floating dtype")
        if tensor.device != value.device:
            raise ValueError(
                f"{name} is on {tensor.device}, expected {value.device}, where value is"
            )


def check_shapes(value: Tensor, spatial_shapes: Shapes, **points: Tensor) -> None:
    """Check that points and their weights, named and in this order, fit `value`.

    Shapes are (B, S, M, D), (B, Q, M, L, P, 2) and (B, Q, M, L, P).
    """
    (name, places), (weight_name, weights) = points.items()
    if value.ndim != 4 or places.ndim != 6:
        raise ValueError(
            f"value has shape {tuple(value.shape)} and {name} {tuple(places.shape)}; "
            "expected (B, S, M, D) and (B, Q, M, L, P, 2)"
        )
    batch, size, heads, _ = value.shape
    total = sum(height * width for height, width in spatial_shapes)
    if total != size:
        raise ValueError(
            f"value has {size} positions but spatial_shapes {list(spatial_shapes)} "
            f"add up to {total}; flatten exactly these levels"
        )
    queries, count = places.shape[1], places.shape[4]
    expected = (batch, queries, heads, len(spatial_shapes), count)
    for named, found, wanted in (
        (name, places.shape, (*expected, 2)),
        (weight_name, weights.shape, expected),
    ):
        if tuple(found) != wanted:
            raise ValueError(f"{named} has shape {tuple(found)}, expected {wanted}")
