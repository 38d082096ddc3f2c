"""The CUDA kernels on a device: `make test-gpu`. Without one, see test_emulation.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from geoseg.ops import LIBRARY, ms_deform_attn, ms_deform_attn_fused, use_reference

pytestmark = pytest.mark.needs_cuda

PYRAMID = [(12, 9), (23, 19), (45, 37)]
GRID = [(31, 17), (5, 3)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
# Of the largest |out|.
ALLOWED = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 4e-3,
}
Inputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def kernels() -> None:
    assert LIBRARY.cuda, f"there is a device, and no kernels for it: {LIBRARY.reason}"


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(
    dtype: torch.dtype = torch.float32,
    *,
    shapes: list[tuple[int, int]] = PYRAMID,
    batch: int = 2,
    queries: int = 542,
    heads: int = 3,
    points: int = 4,
    dim: int = 32,
) -> Inputs:
    """Draw value, locations (some outside) and weights on the device."""
    generator = torch.Generator("cuda").manual_seed(0)
    exact = torch.promote_types(dtype, torch.float32)
    place = {"generator": generator, "dtype": exact, "device": "cuda"}
    size = sum(height * width for height, width in shapes)
    value = torch.randn(batch, size, heads, dim, **place)  # type: ignore[call-overload]
    spots = (batch, queries, heads, len(shapes), points)
    locations = torch.rand(*spots, 2, **place) * 1.4 - 0.2  # type: ignore[call-overload]
    weights = torch.rand(*spots, **place)  # type: ignore[call-overload]
    return value.to(dtype), locations, weights


def outcome(inputs: Inputs, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Return output and gradients by the kernels."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = ms_deform_attn(leaves[0], shapes, leaves[1], leaves[2])
    generator = torch.Generator("cuda").manual_seed(1)
    grad = torch.randn(output.shape, generator=generator, device="cuda")
    grads = torch.autograd.grad(output, leaves, grad.to(output.dtype))
    return [output.detach(), *grads]


def expected(inputs: Inputs, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Return the same by the reference in float64."""
    with use_reference():
        return outcome(tuple(t.double() for t in inputs), shapes)  # type: ignore[arg-type]


def assert_alike(inputs: Inputs, shapes: list[tuple[int, int]]) -> None:
    dtype = inputs[0].dtype
    allowed = [ALLOWED[dtype], ALLOWED[dtype], *[max(1e-4, ALLOWED[dtype])] * 2]
    for one, other, most in zip(
        outcome(inputs, shapes), expected(inputs, shapes), allowed, strict=True
    ):
        assert one.shape == other.shape
        scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        assert not one.numel() or float((one - other).abs().max()) <= most * scale


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 8, 32, 33, 64, 128])
def test_equals_the_reference(dtype: torch.dtype, dim: int) -> None:
    assert_alike(draw(dtype, dim=dim), PYRAMID)
    assert_alike(draw(dtype, dim=dim, shapes=PYRAMID[:1]), PYRAMID[:1])
    assert_alike(draw(dtype, dim=dim, points=3, queries=31), PYRAMID)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [8, 32, 33, 64, 128])
def test_fused_equals_the_reference(dtype: torch.dtype, dim: int) -> None:
    value, places, weights = draw(dtype, dim=dim)
    offsets, logits = places * 8 - 4, weights * 6
    found = ms_deform_attn_fused(value, PYRAMID, GRID, offsets, logits)
    narrow = ms_deform_attn_fused(
        value, PYRAMID, GRID, offsets.to(dtype), logits.to(dtype)
    )
    with use_reference():
        for output, kind in ((found, offsets.dtype), (narrow, dtype)):
            raw = (offsets.to(kind).double(), logits.to(kind).double())
            wanted = ms_deform_attn_fused(value.double(), PYRAMID, GRID, *raw)
            error = float((output - wanted).abs().max())
            assert error <= ALLOWED[dtype] * max(1.0, float(wanted.abs().max()))


def test_empty_inputs_give_nothing() -> None:
    assert_alike(draw(queries=0), PYRAMID)
    assert_alike(draw(batch=0), PYRAMID)


def test_strided_tensors_give_the_same() -> None:
    value, places, weights = draw()
    strided = (
        value.transpose(1, 2).contiguous().transpose(1, 2),
        places.flip(0).flip(0).expand(places.shape),
        weights.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
    )
    found = ms_deform_attn(strided[0], PYRAMID, strided[1], strided[2])
    assert torch.equal(found, ms_deform_attn(value, PYRAMID, places, weights))


def test_an_address_that_is_not_aligned_is_read() -> None:
    value, places, weights = draw()
    shifted = torch.empty(value.numel() + 1, device="cuda")[1:].view(value.shape)
    shifted.copy_(value)
    found = ms_deform_attn(shifted, PYRAMID, places, weights)
    assert torch.equal(found, ms_deform_attn(value, PYRAMID, places, weights))


def test_runs_on_the_current_stream() -> None:
    value, places, weights = draw()
    wanted = ms_deform_attn(value, PYRAMID, places, weights)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    late = torch.zeros_like(value)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(value)
        found = ms_deform_attn(late, PYRAMID, places, weights)
    stream.synchronize()
    assert torch.equal(found, wanted)


def test_a_graph_captures_and_replays_it() -> None:
    value, places, weights = draw()
    offsets, logits = places * 8 - 4, weights * 6
    ms_deform_attn_fused(value, PYRAMID, GRID, offsets, logits)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = ms_deform_attn(value, PYRAMID, places, weights)
        fused = ms_deform_attn_fused(value, PYRAMID, GRID, offsets, logits)
    value.normal_()
    graph.replay()
    assert torch.equal(found, ms_deform_attn(value, PYRAMID, places, weights))
    again = ms_deform_attn_fused(value, PYRAMID, GRID, offsets, logits)
    assert torch.equal(fused, again)


@pytest.mark.parametrize("deterministic_too", [False, True])
def test_a_graph_captures_and_replays_gradients(deterministic_too: bool) -> None:
    value, places, weights = draw()
    sides = [side for shape in PYRAMID for side in shape]
    grad = torch.randn(2, 542, 96, device="cuda")
    arguments = (grad, value, sides, places, weights, deterministic_too)
    call = torch.ops.geoseg.ms_deform_attn_backward
    call(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(*arguments)
    value.normal_()
    for _ in range(2):  # What is added up must be zeroed each time.
        graph.replay()
    for one, other in zip(found, call(*arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no CUDA device: a second")
def test_runs_on_the_device_of_its_tensors() -> None:
    inputs = draw()
    wanted = outcome(inputs, PYRAMID)
    elsewhere = [tensor.to("cuda:1").requires_grad_() for tensor in inputs]
    found = ms_deform_attn(elsewhere[0], PYRAMID, elsewhere[1], elsewhere[2])
    assert found.device == torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    assert torch.equal(found.to("cuda:0"), wanted[0])
    torch.autograd.grad(found.sum(), elsewhere)
    torch.cuda.synchronize(1)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("dtype", DTYPES)
def test_deterministic_gradients_are_the_same_bits(dtype: torch.dtype) -> None:
    inputs = draw(dtype)
    first = outcome(inputs, PYRAMID)
    assert_alike(inputs, PYRAMID)
    for _ in range(5):
        assert all(map(torch.equal, first, outcome(inputs, PYRAMID)))


def test_autocast_reduces_values_and_never_locations() -> None:
    value, places, weights = draw()
    with torch.autocast("cuda", dtype=torch.float16):
        found = ms_deform_attn(value, PYRAMID, places, weights)
    wanted = ms_deform_attn(value.half(), PYRAMID, places, weights)
    assert found.dtype == torch.float16
    assert torch.equal(found, wanted)


def test_tensors_on_different_devices_are_refused() -> None:
    value, places, weights = draw()
    with pytest.raises(ValueError, match="is on cpu, expected cuda"):
        ms_deform_attn(value, PYRAMID, places.cpu(), weights)
    with pytest.raises(RuntimeError, match="move them there"):
        torch.ops.geoseg.ms_deform_attn(
            value, [s for p in PYRAMID for s in p], places.cpu(), weights
        )
