"""Blending in the native library, called by ctypes; see ops/csrc/blend/blend.h."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg._plain_c import open_library
from geoseg.blending.placing import LogitsArray, PlacedAxis, Placement, check_finite
from geoseg.errors import OperatorError
from geoseg.types import NODATA, BlendSpace

Int64 = ctypes.c_int64
Pointer = ctypes.c_void_p

_PADDING = 16
_ARGUMENTS: dict[str, list[Any]] = {
    "geoseg_blend": [Pointer, Pointer],
    "geoseg_all_finite": [Pointer, Int64, ctypes.c_bool, Pointer],
}


class _Axis(ctypes.Structure):
    _fields_ = [
        ("count", Int64),
        *(
            (name, Pointer)
            for name in (
                *("origins", "starts", "stops"),
                *("low_shares", "high_shares", "weights"),
            )
        ),
    ]


class _Problem(ctypes.Structure):
    _fields_ = [
        ("rows", _Axis),
        ("cols", _Axis),
        ("sources", Pointer),
        ("length", Int64),
        ("tiles", Pointer),
        *((name, Int64) for name in ("classes", "side")),
        *((name, Int64) for name in ("row", "col", "height", "width")),
        *((name, Pointer) for name in ("keep", "ids", "mask", "confidence", "scores")),
        ("nodata", ctypes.c_uint8),
        ("half", ctypes.c_bool),
        ("probabilities", ctypes.c_bool),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """Load the library, None if geoseg runs without native operators.

    Raises:
        OperatorError: GEOSEG_OPS asks for what is not there, or the library is older
            than this file.
    """
    return open_library(_ARGUMENTS)


def blend_classes(
    native: ctypes.CDLL,
    placement: Placement,
    space: BlendSpace,
    keep: npt.NDArray[np.bool_],
    ids: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8] | None,
    scores: npt.NDArray[np.uint8] | None,
) -> bool:
    """Blend tiles, and write class and confidence of the pixels that are wanted.

    Args:
        native: The library.
        placement: The tiles, one or more.
        space: What to average.
        keep: Which pixels are wanted, shape (height, width).
        ids: What stands for each class in the mask, shape (K,).
        mask: Result, shape (height, width); nodata where nothing is wanted.
        confidence: The same in percent; None: not wanted.
        scores: The same of each class, shape (K, height, width), contiguous; None: not
            wanted.

    Returns:
        Whether each pixel wanted lies in a tile.

    Raises:
        BlendingError: A tile's logits are NaN or infinite.
        MemoryError: There was not enough.
        OperatorError: GEOSEG_CPU names instructions that the processor lacks.
    """
    check_finite(placement, lambda logits: _all_finite(native, logits))
    addresses = np.array(
        [
            [0 if tile is None else tile.ctypes.data for tile in row]
            for row in placement.tiles
        ],
        np.uintp,
    )
    keep, ids = np.ascontiguousarray(keep), np.ascontiguousarray(ids)
    rows, cols = _padded(placement.rows), _padded(placement.cols)
    sources = np.pad(placement.sources, _PADDING, mode="edge")
    output = placement.output
    problem = _Problem(
        _axis(rows),
        _axis(cols),
        sources.ctypes.data,
        len(sources),
        addresses.ctypes.data,
        placement.num_classes,
        placement.size,
        *(output.row, output.col, output.height, output.width),
        *(array.ctypes.data for array in (keep, ids, mask)),
        None if confidence is None else confidence.ctypes.data,
        None if scores is None else scores.ctypes.data,
        NODATA,
        placement.dtype == np.float16,
        space == "probabilities",
    )
    covered = ctypes.c_bool()
    code = native.geoseg_blend(ctypes.byref(problem), ctypes.byref(covered))
    _check(native, code)
    return covered.value


def _padded(axis: PlacedAxis) -> PlacedAxis:
    """Pad the tables by pixel: whole vectors read past both of their ends."""
    width = ((0, 0), (_PADDING, _PADDING))
    return replace(
        axis,
        low_shares=np.pad(axis.low_shares, width),
        high_shares=np.pad(axis.high_shares, width),
        weights=np.pad(axis.weights, width),
    )


def _axis(axis: PlacedAxis) -> _Axis:
    """Describe an axis; its arrays must live as long as what is returned is used."""
    arrays = (axis.origins, axis.starts, axis.stops)
    tables = (axis.low_shares, axis.high_shares, axis.weights)
    return _Axis(len(axis.numbers), *(a.ctypes.data for a in (*arrays, *tables)))


def _all_finite(native: ctypes.CDLL, logits: LogitsArray) -> bool:
    finite = ctypes.c_bool()
    code = native.geoseg_all_finite(
        logits.ctypes.data,
        logits.size,
        logits.dtype == np.float16,
        ctypes.byref(finite),
    )
    _check(native, code)
    return finite.value


def _check(native: ctypes.CDLL, code: int) -> None:
    """Raise what a native call failed with."""
    if code == errno.ENOMEM:
        raise MemoryError("blending tiles")
    if code:
        raise OperatorError(native.geoseg_error().decode())
