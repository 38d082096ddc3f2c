"""Shapes of deformable attention in the models, and who else can do them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import cpp_extension
from transformers.models.mask2former import modeling_mask2former

from geoseg.ops import ms_deform_attn, ms_deform_attn_fused, regular_reference_points

PYRAMID = ((23, 23), (45, 45), (90, 90))
PATCHES = ((45, 45),)
STABLE_ABI = "0x020a000000000000"
HUB_KERNEL = "kernels-community/deformable-detr"
Inputs = tuple[Tensor, Tensor, Tensor]
Call = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One shape of a model at 720 pixels."""

    name: str
    levels: tuple[tuple[int, int], ...]
    query_levels: tuple[tuple[int, int], ...]
    heads: int
    dim: int

    def draw_raw(self, seed: int = 0) -> Inputs:
        """Draw value, offsets of some cells and logits."""
        generator = torch.Generator().manual_seed(seed)
        cells, queries = (
            sum(height * width for height, width in levels)
            for levels in (self.levels, self.query_levels)
        )
        value = torch.randn(1, cells, self.heads, self.dim, generator=generator)
        shape = (1, queries, self.heads, len(self.levels), 4)
        offsets = torch.randn(*shape, 2, generator=generator) * 3
        return value, offsets, torch.randn(shape, generator=generator)

    def draw(self, seed: int = 0) -> Inputs:
        """Draw value, locations some cells around each query, and weights."""
        value, offsets, logits = self.draw_raw(seed)
        return value, *self.places_and_weights(offsets, logits)

    def places_and_weights(
        self, offsets: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Do what modules do before they call an operator that is not fused."""
        places = regular_reference_points(self.query_levels, offsets.device)
        sizes = places.new_tensor([(width, height) for height, width in self.levels])
        locations = places[None, :, None, None, None] + offsets / sizes[:, None]
        return locations, logits.flatten(3).softmax(-1).view(logits.shape)


CASES = (
    Case("pixel decoder", PYRAMID, PYRAMID, 8, 32),
    Case("Meta's head", PYRAMID, PYRAMID, 16, 128),
    Case("extractor D 32", PATCHES, PYRAMID, 16, 32),
    Case("extractor D 64", PATCHES, PYRAMID, 16, 64),
    Case("injector D 32", PYRAMID, PATCHES, 16, 32),
    Case("injector D 64", PYRAMID, PATCHES, 16, 64),
)


def rivals(case: Case, device: torch.device, sketch: Any = None) -> dict[str, Call]:  # noqa: ANN401
    """The functions that can do a case there, of those installed; ours first."""
    levels = list(case.levels)
    sizes = torch.tensor(levels, device=device)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])
    hf = modeling_mask2former.multi_scale_deformable_attention
    calls: dict[str, Call] = {
        "geoseg": lambda v, p, w: ms_deform_attn(v, levels, p, w),
        # Its weights have the value's dtype, as those of its modules do.
        "hugging face": lambda v, p, w: hf(v, levels, p.to(v.dtype), w.to(v.dtype)),
    }
    others = _gpu_rivals() if device.type == "cuda" else _cpu_rivals()
    for name, function in others.items():
        calls[name] = _with_sizes(function, sizes, starts)
    if sketch is not None and case.dim == 32:
        calls["sketch"] = lambda v, p, w: sketch(v, sizes, p, w).flatten(2)
    return calls


def fused_rivals(case: Case, device: torch.device) -> dict[str, Call]:
    """From raw projections on: ours in one, and theirs after softmax and places."""
    levels, grid = list(case.levels), list(case.query_levels)

    def after_softmax(call: Call) -> Call:
        def run(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
            points = case.places_and_weights(offsets.float(), logits.float())
            return call(value, *points)

        return run

    calls = rivals(case, device)
    return {
        "geoseg": lambda v, o, w: ms_deform_attn_fused(v, levels, grid, o, w),
        **{
            "geoseg, not fused" if name == "geoseg" else name: after_softmax(call)
            for name, call in calls.items()
        },
    }


def build_sketch(source: Any) -> Any:  # noqa: ANN401 (an operator)
    """Compile a sketch that registers `geoseg_t::msda_fwd`; None for no source."""
    if source is None:
        return None
    cpp_extension.load(
        "geoseg_sketch",
        [str(source)],
        is_python_module=False,
        extra_cflags=["-O3", "-march=native", f"-DTORCH_TARGET_VERSION={STABLE_ABI}"],
    )
    return torch.ops.geoseg_t.msda_fwd


def _with_sizes(function: Callable[..., Tensor], sizes: Tensor, starts: Tensor) -> Call:
    return lambda v, p, w: function(v, sizes, starts, p, w)


def _cpu_rivals() -> dict[str, Callable[..., Tensor]]:
    try:
        from torch_ms_deform_attn import ms_deform_attn as function
    except ImportError:
        return {}
    return {"torch-ms-deform-attn": function}


def _gpu_rivals() -> dict[str, Callable[..., Tensor]]:
    """The kernel of 2020 from the hub, and deformops, where they can be had."""
    found: dict[str, Callable[..., Tensor]] = {}
    try:
        from kernels import get_kernel

        kernel = get_kernel(HUB_KERNEL)
        found["hub kernel"] = lambda v, s, i, p, w: kernel.ms_deform_attn_forward(
            v, s, i, p.to(v.dtype), w.to(v.dtype), 64
        )
    except Exception as error:
        print(f"without the hub kernel: {_first_line(error)}")
    try:
        from deformops.registry import msda

        found["deformops"] = lambda v, s, i, p, w: msda(v, s, i, p, w, method="linear")
    except ImportError as error:
        print(f"without deformops: {_first_line(error)}")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
