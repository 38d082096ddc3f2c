"""The native library: whether it is loaded, and if not, why."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from geoseg.errors import GeosegWarning, OperatorError

VARIABLE = "GEOSEG_OPS"
"""Environment variable: auto, cuda, cpu or none."""

LIBRARY = Path(__file__).parents[1] / "_C.abi3.so"
"""Built by setup.py; registers the operators when it is loaded."""


@dataclass(frozen=True, slots=True)
class Library:
    """What became of the native library."""

    loaded: bool
    """Whether `torch.ops.geoseg` has kernels."""
    cuda: bool
    """Whether it has CUDA kernels."""
    reason: str
    """Why it is as it is, one line."""


def load_library() -> Library:
    """Load the library as GEOSEG_OPS says; without it, the PyTorch reference serves.

    Raises:
        OperatorError: GEOSEG_OPS asks for what is not there, or is misspelt.

    Warns:
        GeosegWarning: With `auto`, the library cannot be loaded.
    """
    mode = os.environ.get(VARIABLE) or "auto"
    if mode not in ("auto", "cuda", "cpu", "none"):
        raise OperatorError(f"{VARIABLE}={mode} is none of auto, cuda, cpu, none")
    if mode == "none":
        return Library(False, False, f"{VARIABLE}=none")
    failure = _try_to_load()
    if failure is None:
        cuda = has_kernel("ms_deform_attn", "CUDA")
        if mode == "cuda" and not cuda:
            raise OperatorError(
                f"{LIBRARY} has no CUDA kernels, and {VARIABLE}=cuda asks for them; "
                "install geoseg where nvcc is, with GEOSEG_OPS=cuda"
            )
        return Library(True, cuda, str(LIBRARY))
    if mode != "auto":
        raise OperatorError(f"{failure}, and {VARIABLE}={mode} asks for it")
    warnings.warn(
        f"geoseg runs without its native operators, many times slower: {failure}; "
        f"{VARIABLE}=none says that this is wanted",
        GeosegWarning,
        stacklevel=2,
    )
    return Library(False, False, failure)


def has_kernel(name: str, device: str) -> bool:
    """Tell whether a loaded operator has a kernel for "CPU" or "CUDA"."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"geoseg::{name}", device)


def _try_to_load() -> str | None:
    """Load the library; return why it cannot be, None if it is."""
    if not LIBRARY.is_file():
        return (
            f"{LIBRARY} is missing: geoseg was installed where no C++ compiler is, or "
            "with GEOSEG_OPS=none"
        )
    try:
        torch.ops.load_library(LIBRARY)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        return (
            f"{LIBRARY} does not load into torch {torch.__version__} ({reason}); "
            "install geoseg again"
        )
    return None
