"""The CUDA kernels without a GPU: emulated, under sanitizers, against the reference."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
import torch
from emulated_cuda import SOURCES, Emulator, Shapes
from torch import Tensor

from geoseg.ops._reference import cell_centres, ms_deform_attn_reference

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="g++ is absent"),
]

LEVELS: Shapes = [(5, 7), (1, 1), (3, 2)]
PYRAMID: Shapes = [(4, 4), (8, 7), (13, 15)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
# Of the largest |out|.
ALLOWED = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 4e-3,
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("sm_80"), 80)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("sm_90"), 90)


def draw(
    shapes: Shapes,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    queries: int = 37,
    heads: int = 3,
    points: int = 2,
    dim: int = 8,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw value, locations (some outside, on borders, not finite) and weights."""
    generator = torch.Generator().manual_seed(dim + queries)
    exact = torch.promote_types(dtype, torch.float32)
    size = sum(height * width for height, width in shapes)
    value = torch.randn(batch, size, heads, dim, generator=generator, dtype=exact)
    places = (batch, queries, heads, len(shapes), points)
    locations = torch.rand(*places, 2, generator=generator, dtype=exact) * 1.6 - 0.3
    special = [0.0, 1.0, -0.5, 1.5, 1e30, float("nan"), float("inf"), -float("inf")]
    drawn = torch.randint(len(special), locations.shape, generator=generator)
    rare = torch.rand(locations.shape, generator=generator) < 0.1
    locations = torch.where(rare, torch.tensor(special, dtype=exact)[drawn], locations)
    weights = torch.rand(*places, generator=generator, dtype=exact)
    return value.to(dtype), locations, weights


def assert_close(found: Tensor, expected: Tensor, allowed: float) -> None:
    assert found.shape == expected.shape
    if expected.numel():
        error = (found.double() - expected).abs().max()
        assert float(error) <= allowed * max(1.0, float(expected.abs().max()))


def check_all(emulator: Emulator, shapes: Shapes, inputs: tuple[Tensor, ...]) -> None:
    """Forward, backward and deterministic backward against the reference in float64."""
    value, places, weights = inputs
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    expected = ms_deform_attn_reference(exact[0], shapes, exact[1], exact[2])
    found = emulator.forward(value, shapes, places, weights)
    assert_close(found, expected.detach(), ALLOWED[value.dtype])
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(expected.shape, generator=generator).to(value.dtype)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    allowed = 1e-12 if value.dtype == torch.float64 else 1e-4
    for deterministic in (False, True):
        gradients = emulator.backward(
            grad, value, shapes, places, weights, deterministic=deterministic
        )
        for one, other in zip(gradients, wanted, strict=True):
            # The reference puts the slope of a point that is not finite to NaN or 0.
            assert_close(one, other.nan_to_num(0.0), allowed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 8, 32, 33, 64])
def test_equals_the_reference_for_any_head(
    emulator: Emulator, dtype: torch.dtype, dim: int
) -> None:
    check_all(emulator, LEVELS, draw(LEVELS, dtype, dim=dim))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [32, 64, 128])
@pytest.mark.parametrize("shapes", [PYRAMID, PYRAMID[2:]], ids=["L3", "L1"])
def test_equals_the_reference_at_the_models_shapes(
    emulator: Emulator, dtype: torch.dtype, dim: int, shapes: Shapes
) -> None:
    check_all(emulator, shapes, draw(shapes, dtype, dim=dim, points=4, queries=31))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [4, 32, 33, 128])
def test_vectors_of_atomics_equal_the_reference(
    newer: Emulator, dtype: torch.dtype, dim: int
) -> None:
    inputs = draw(PYRAMID, dtype, dim=dim, points=4, queries=17)
    check_all(newer, PYRAMID, inputs)


@pytest.mark.parametrize("dim", [8, 300])
def test_equals_the_reference_where_a_head_is_wider_than_a_warp(
    emulator: Emulator, dim: int
) -> None:
    inputs = draw(LEVELS, torch.float32, dim=dim + 1, points=5, queries=7)
    check_all(emulator, LEVELS, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_points_exactly_on_cells_and_borders(
    emulator: Emulator, dtype: torch.dtype
) -> None:
    # Powers of two, so that places are exact: cells -1, -0.5, 0, ... up to the width.
    shapes = [(4, 8), (2, 1)]
    value, locations, weights = draw(shapes, dtype, queries=19 * 11, points=1, dim=8)
    x, y = torch.meshgrid(torch.arange(19) - 2, torch.arange(11) - 2, indexing="ij")
    for level, (height, width) in enumerate(shapes):
        locations[:, :, :, level, 0, 0] = (x.reshape(-1, 1) / 2 + 0.5) / width
        locations[:, :, :, level, 0, 1] = (y.reshape(-1, 1) / 2 + 0.5) / height
    check_all(emulator, shapes, (value, locations, weights))


@pytest.mark.parametrize("empty", ["batch", "queries", "heads", "points", "dim"])
def test_empty_tensors_give_zeros_or_nothing(emulator: Emulator, empty: str) -> None:
    check_all(emulator, LEVELS, draw(LEVELS, torch.float32, **{empty: 0}))


def test_a_batch_may_be_longer_than_a_grid(emulator: Emulator) -> None:
    inputs = draw([(2, 1)], torch.float32, batch=65537, queries=1, heads=1, dim=1)
    # Those of the blocks that run, of which the first two have two each.
    items = torch.tensor([0, 1, 65534, 65535, 65536])
    exact = [tensor[items].double().requires_grad_() for tensor in inputs]
    expected = ms_deform_attn_reference(exact[0], [(2, 1)], exact[1], exact[2])
    wanted = torch.autograd.grad(expected.sum(), exact)
    found = emulator.forward(inputs[0], [(2, 1)], inputs[1], inputs[2])
    assert_close(found[items], expected.detach(), 1e-5)
    grad = torch.ones_like(found)
    for deterministic in (False, True):
        gradients = emulator.backward(
            grad, inputs[0], [(2, 1)], *inputs[1:], deterministic=deterministic
        )
        for one, other in zip(gradients, wanted, strict=True):
            assert_close(one[items], other.nan_to_num(0.0), 1e-4)


@pytest.mark.parametrize("order", [1, 7], ids=["descending", "random"])
def test_the_order_of_lanes_changes_no_bit(emulator: Emulator, order: int) -> None:
    shapes = PYRAMID
    value, places, weights = draw(shapes, torch.float32, dim=32, points=4)
    grad = torch.randn(2, 37, 96, generator=torch.Generator().manual_seed(1))
    otherwise = replace(emulator, order=order)
    one, other = (
        [
            each.forward(value, shapes, places, weights),
            *each.backward(grad, value, shapes, places, weights, deterministic=True),
        ]
        for each in (emulator, otherwise)
    )
    assert all(map(torch.equal, one, other))
    check_all(otherwise, shapes, (value, places, weights))


@pytest.mark.parametrize(
    ("dim", "points", "shapes"),
    # Groups of 8 lanes, of 2, and of a whole warp; points for more than one turn.
    [(32, 4, PYRAMID), (8, 2, LEVELS), (33, 13, LEVELS)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_lane_reads_what_another_may_still_write(
    emulator: Emulator, dtype: torch.dtype, dim: int, points: int, shapes: Shapes
) -> None:
    watched = replace(emulator, watch="races")
    inputs = draw(shapes, dtype, dim=dim, points=points, queries=5)
    check_all(watched, shapes, inputs)
    grid = [(3, 2)]
    value, offsets, logits = raw(dtype, shapes, grid, dim, narrow=False)
    watched.fused(value, shapes, grid, offsets, logits)


def test_a_point_out_of_reach_does_not_see_what_is_not_finite(
    emulator: Emulator,
) -> None:
    value, places, weights = draw(PYRAMID, torch.float32, dim=32, points=4)
    places.fill_(-3.0)
    value.fill_(float("nan"))
    found = emulator.forward(value, PYRAMID, places, weights)
    assert torch.equal(found, torch.zeros_like(found))


def raw(
    dtype: torch.dtype, shapes: Shapes, grid: Shapes, dim: int, *, narrow: bool
) -> tuple[Tensor, Tensor, Tensor]:
    queries = sum(height * width for height, width in grid)
    value, places, weights = draw(shapes, dtype, queries=queries, dim=dim, points=4)
    kind = dtype if narrow else torch.promote_types(dtype, torch.float32)
    offsets = (places.nan_to_num(0.5, 0.5, 0.5).clamp(-1, 2) * 6 - 3).to(kind)
    return value, offsets, (weights * 8 - 4).to(kind)


def fused_reference(
    value: Tensor, shapes: Shapes, grid: Shapes, offsets: Tensor, logits: Tensor
) -> Tensor:
    centres = cell_centres(grid, torch.float64, torch.device("cpu"))
    sizes = torch.tensor([(width, height) for height, width in shapes])
    places = centres[None, :, None, None, None] + offsets.double() / sizes[:, None]
    weights = logits.double().flatten(3).softmax(-1).view(logits.shape)
    return ms_deform_attn_reference(value.double(), shapes, places, weights)


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [5, 8, 32, 64, 128])
def test_fused_equals_the_reference(
    emulator: Emulator, dtype: torch.dtype, dim: int, narrow: bool
) -> None:
    # Levels whose sides are no multiples of a tile of queries, and less than one.
    for shapes, grid in ((PYRAMID, [(9, 17), (3, 2)]), (PYRAMID[2:], [(11, 3)])):
        inputs = raw(dtype, shapes, grid, dim, narrow=narrow)
        found = emulator.fused(inputs[0], shapes, grid, inputs[1], inputs[2])
        expected = fused_reference(inputs[0], shapes, grid, inputs[1], inputs[2])
        assert_close(found, expected, ALLOWED[dtype])


def test_no_cuda_source_knows_of_the_emulator() -> None:
    for path in [*SOURCES.glob("*"), SOURCES.parent / "deform_point.h"]:
        assert not re.search("emul", path.read_text(), re.IGNORECASE), path
