"""Functions of the native library in plain C, for what has no tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from geoseg.errors import OperatorError


def open_library(arguments: Mapping[str, Sequence[Any]]) -> ctypes.CDLL | None:
    """Load the library; ctypes releases Python's lock while it runs.

    Args:
        arguments: Argument types of each function.

    Returns:
        The library, an own copy of it in each call; None if geoseg runs without native
        operators.

    Raises:
        OperatorError: GEOSEG_OPS asks for what is not there, or the library lacks one
            of the functions.
    """
    # Not above: the scheduler imports who calls this, and needs no torch.
    from geoseg.ops import LIBRARY
    from geoseg.ops._library import LIBRARY as PATH

    if not LIBRARY.loaded:
        return None
    loaded = ctypes.CDLL(str(PATH))
    missing = [name for name in arguments if not hasattr(loaded, name)]
    if missing:
        raise OperatorError(
            f"{PATH} is of another version of geoseg and lacks {missing[0]}; install "
            "geoseg again"
        )
    loaded.geoseg_error.restype = ctypes.c_char_p
    for name, types in arguments.items():
        getattr(loaded, name).argtypes = types
    return loaded
