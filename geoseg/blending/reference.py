"""Blending in NumPy: what serves without the native library, and what it must equal.

Every pixel sees the same float32 operations in the same order (tiles by row, then by
column), however the scene is cut into bands and blocks, and however wide a processor's
vectors are. That is why this module has elementwise operations only: sums over an axis,
dot products and einsum round differently when shapes differ. The order is also that of
`ops/csrc/blend/`; a change here is one there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from geoseg.blending.exponential import UNIT, exponential
from geoseg.blending.placing import LogitsArray, PlacedAxis, Placement, check_finite
from geoseg.blending.weights import Float32Array
from geoseg.errors import BlendingError
from geoseg.grid import Window
from geoseg.types import NODATA, BlendSpace

_BLOCK_VALUES = 1 << 24  # float32 values of a block: 64 MB
_CHUNK_PIXELS = 1 << 16  # classified at a time: their float32 planes stay in L2


def blend_rows(
    placement: Placement, space: BlendSpace, *, block_rows: int | None = None
) -> Iterator[tuple[Window, Float32Array, Float32Array]]:
    """Upsample tiles and average them by weight, a block of rows after another.

    A pixel's value is sum(w * logits) / sum(w) over the tiles that hold it, w being the
    product of its row's and its column's weight. Each tile is upsampled bilinearly in
    its own phase (as `torch.nn.functional.interpolate` with `align_corners=False`).

    Args:
        placement: The tiles, and pixels wanted. A tile that is left out counts as empty
            of data.
        space: What to average: logits, or the softmax of each tile's own; the placement
            must be for the same.
        block_rows: Rows at a time, of any the same bytes; None: up to 64, and 64 MB.

    Returns:
        Iterator over blocks from top to bottom: the block's window, the sum of w *
        logits, (K, rows, columns) float32, and the sum of w, (rows, columns) float32,
        both 0 where no tile lies. K is 0 if there are no tiles.

    Raises:
        BlendingError: A tile's logits are NaN or infinite.
    """
    if block_rows is not None and block_rows < 1:
        raise BlendingError(f"{block_rows} rows are no block; give 1 or more")
    check_finite(placement, lambda logits: bool(np.isfinite(logits).all()))
    fitting = _BLOCK_VALUES // (max(1, placement.num_classes) * placement.output.width)
    rows = block_rows or min(64, max(1, fitting))
    return _blend_blocks(placement, space, rows)


def _blend_blocks(
    placement: Placement, space: BlendSpace, block_rows: int
) -> Iterator[tuple[Window, Float32Array, Float32Array]]:
    output = placement.output
    for row in range(output.row, output.row_stop, block_rows):
        height = min(block_rows, output.row_stop - row)
        block = Window(row, output.col, height, output.width)
        yield block, *_blend_block(placement, block, space)


def _blend_block(
    placement: Placement, block: Window, space: BlendSpace
) -> tuple[Float32Array, Float32Array]:
    """Blend one block; returns sums (K, rows, columns) and those of the weights."""
    total = np.zeros((placement.num_classes, block.height, block.width), np.float32)
    weight_sum = np.zeros((block.height, block.width), np.float32)
    add = _add_logits if space == "logits" else _add_softmax
    for a in range(len(placement.rows.numbers)):
        start = max(int(placement.rows.starts[a]), block.row)
        stop = min(int(placement.rows.stops[a]), block.row_stop)
        if start < stop:
            own = slice(start - block.row, stop - block.row)
            add(placement, a, (start, stop), total[:, own], weight_sum[own])
    return total, weight_sum


def divide(totals: Float32Array, weight_sum: Float32Array) -> Float32Array:
    """Return blended values, (K, h, w), of what `blend_rows` yields; 0 for no tiles."""
    return totals * (np.float32(1) / _divisor(weight_sum))


def _divisor(weight_sum: Float32Array) -> Float32Array:
    # 0 / 1, not 0 / 0, where no tile lies.
    return np.where(weight_sum > 0, weight_sum, np.float32(1))


def _add_logits(
    placement: Placement,
    a: int,
    rows: tuple[int, int],
    total: Float32Array,
    weight_sum: Float32Array,
) -> None:
    """Add weight times logits of a row of tiles to rows of the output.

    Args:
        placement: The tiles.
        a: Which of its rows of tiles.
        rows: First row of the scene, and the first past them.
        total: Sums of these rows, shape (K, rows, columns).
        weight_sum: Sums of weights, shape (rows, columns).
    """
    axis = placement.rows
    place = _places(axis, a, rows)
    low = placement.sources[place]
    first, last = int(low[0]), min(int(low[-1]) + 2, placement.size)
    # Columns first: they touch only the few source rows.
    shape = (placement.num_classes, last - first, placement.output.width)
    wide, col_weights = np.zeros(shape, np.float32), np.zeros(shape[2], np.float32)
    for b, logits in enumerate(placement.tiles[a]):
        if logits is not None:
            cols = _widen(placement, b, logits[:, first:last], wide)
            col_weights[cols] += placement.cols.weights[b, _col_places(placement, b)]
    total += _interpolate_rows(placement, a, place, wide)
    weight_sum += axis.weights[a, place, None] * col_weights


def _add_softmax(
    placement: Placement,
    a: int,
    rows: tuple[int, int],
    total: Float32Array,
    weight_sum: Float32Array,
) -> None:
    """Do the same with the softmax of each tile's logits."""
    place = _places(placement.rows, a, rows)
    low = placement.sources[place]
    first, last = int(low[0]), min(int(low[-1]) + 2, placement.size)
    for b, logits in enumerate(placement.tiles[a]):
        if logits is None:
            continue
        shape = (placement.num_classes, last - first, placement.output.width)
        wide = np.zeros(shape, np.float32)
        cols = _widen(placement, b, logits[:, first:last], wide)
        values = _interpolate_rows(placement, a, place, wide[:, :, cols])
        norm = _exp_over_peak(values)
        col_weights = placement.cols.weights[b, _col_places(placement, b)]
        weights = placement.rows.weights[a, place, None] * col_weights
        values *= weights / norm
        total[:, :, cols] += values
        weight_sum[:, cols] += weights


def _places(axis: PlacedAxis, number: int, pixels: tuple[int, int]) -> slice:
    """Pixels of a tile, of pixels of the scene."""
    origin = int(axis.origins[number])
    return slice(pixels[0] - origin, pixels[1] - origin)


def _col_places(placement: Placement, b: int) -> slice:
    """Pixels of a tile that lie in the output's columns."""
    axis = placement.cols
    return _places(axis, b, (int(axis.starts[b]), int(axis.stops[b])))


def _widen(
    placement: Placement, b: int, strip: LogitsArray, wide: Float32Array
) -> slice:
    """Add source rows (K, n, h) of a tile, enlarged, to (K, n, columns) of the output.

    Returns:
        The columns of the output that they reach.
    """
    axis, place = placement.cols, _col_places(placement, b)
    low = placement.sources[place]
    high = np.minimum(low + 1, placement.size - 1)
    strip = strip.astype(np.float32)
    enlarged = strip.take(low, axis=2)
    enlarged *= axis.low_shares[b, place]
    other = strip.take(high, axis=2)
    other *= axis.high_shares[b, place]
    enlarged += other
    start = int(axis.starts[b]) - placement.output.col
    cols = slice(start, start + len(low))
    wide[:, :, cols] += enlarged
    return cols


def _interpolate_rows(
    placement: Placement, a: int, place: slice, wide: Float32Array
) -> Float32Array:
    """Interpolate rows of a row of tiles from its source rows (K, n, columns)."""
    low = placement.sources[place]
    high = np.minimum(low + 1, placement.size - 1)
    values: Float32Array = wide.take(low - low[0], axis=1)
    values *= placement.rows.low_shares[a, place, None]
    other = wide.take(high - low[0], axis=1)
    other *= placement.rows.high_shares[a, place, None]
    values += other
    return values


def _exp_over_peak(values: Float32Array) -> Float32Array:
    """Replace values (K, h, w) by exp(value - largest); return their sum (h, w)."""
    peak = values[0].copy()
    for value in values[1:]:
        np.maximum(peak, value, out=peak)
    norm: Float32Array = np.zeros_like(peak)
    for value in values:
        # Far below the peak, the difference may leave float32's range: no matter.
        with np.errstate(over="ignore"):
            value[:] = exponential((value - peak) * UNIT, degree=5)
        norm += value
    return norm


def classify(
    totals: Float32Array, weight_sum: Float32Array, space: BlendSpace
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Pick each pixel's class and say how sure it is.

    Args:
        totals: Weighted sums as `blend_rows` yields them, shape (K, h, w), float32,
            finite, K <= 255.
        weight_sum: Their divisor, shape (h, w), >= 0.
        space: What was blended there.

    Returns:
        Index of the largest value, the first of equals, shape (h, w), uint8, and its
        confidence, shape (h, w), uint8 percent 0..100: the largest softmax, or the
        largest blended probability over their sum. Values that mean nothing where no
        tile lies (0 and 0 for probabilities).
    """
    _, height, width = totals.shape
    index = np.zeros((height, width), np.uint8)
    confidence = np.zeros((height, width), np.uint8)
    step = max(1, _CHUNK_PIXELS // max(1, width))
    for row in range(0, height, step):
        rows = slice(row, row + step)
        scale = UNIT / _divisor(weight_sum[rows]) if space == "logits" else None
        _classify_rows(totals[:, rows], scale, index[rows], confidence[rows])
    return index, confidence


def _classify_rows(
    values: Float32Array,
    scale: Float32Array | None,
    index: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8],
) -> None:
    """Write class index and confidence of values (K, rows, columns).

    With a scale, they are logits, whose differences are to be multiplied by it.
    """
    best = values[0].copy()
    for number, value in enumerate(values[1:], start=1):
        np.copyto(index, np.uint8(number), where=value > best)
        np.maximum(best, value, out=best)
    share = np.zeros_like(best)
    if scale is not None:
        # The largest softmax is 1 / sum(exp(logit - largest)).
        for value in values:
            share += _exp_of_logits(value, best, scale)
        np.divide(np.float32(100), share, out=share)
    else:
        share = best * _percent_of_one(values)
    np.rint(share, out=share)
    np.copyto(confidence, share, casting="unsafe")


def rate(
    totals: Float32Array, weight_sum: Float32Array, space: BlendSpace
) -> npt.NDArray[np.uint8]:
    """Return the percent of each class, of what `blend_rows` yields.

    Args:
        totals: Weighted sums, shape (K, h, w), float32, finite.
        weight_sum: Their divisor, shape (h, w), >= 0.
        space: What was blended there.

    Returns:
        Softmax of the blended logits, or blended probabilities over their sum, shape
        (K, h, w), uint8 percent.
    """
    values = totals
    if space == "logits":
        scale, best = UNIT / _divisor(weight_sum), totals.max(axis=0)
        values = np.stack([_exp_of_logits(value, best, scale) for value in totals])
    percent: npt.NDArray[np.uint8] = np.rint(values * _percent_of_one(values)).astype(
        np.uint8
    )
    return percent


def _percent_of_one(values: Float32Array) -> Float32Array:
    """Return 100 over the sum of values (K, h, w), 0 if that is 0."""
    total: Float32Array = np.zeros_like(values[0])
    for value in values:
        total += value
    total[total <= 0] = np.inf
    return np.float32(100) / total


def _exp_of_logits(
    value: Float32Array, best: Float32Array, scale: Float32Array
) -> Float32Array:
    # Far below the best, the difference may leave float32's range: no matter.
    with np.errstate(over="ignore"):
        return exponential((value - best) * scale, degree=4)


def blend_classes(
    placement: Placement,
    space: BlendSpace,
    keep: npt.NDArray[np.bool_],
    ids: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8] | None,
    scores: npt.NDArray[np.uint8] | None,
) -> bool:
    """Do what `geoseg.blending.native.blend_classes` does."""
    covers = True
    if scores is not None:
        scores[:] = NODATA
    for window, totals, weight_sum in blend_rows(placement, space):
        place = window.relative_to(placement.output).slices
        own = keep[place]
        if not own.any():
            continue
        covers = covers and bool((weight_sum[own] > 0).all())
        index, percent = classify(totals, weight_sum, space)
        mask[place][own] = ids[index[own]]
        if confidence is not None:
            confidence[place][own] = percent[own]
        if scores is not None:
            rated = rate(totals, weight_sum, space)
            scores[:, *place] = np.where(own, rated, NODATA)
    return covers
