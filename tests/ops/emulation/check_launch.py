"""Tests of the CUDA launch code on a CPU; built and run by test_emulated_launch.py.

The library holds the unmodified sources of ops/csrc/cuda/ and host.cpp, which makes
them take tensors on the CPU for tensors on the device, all under sanitizers.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from geoseg.ops._reference import cell_centres, ms_deform_attn_reference
from geoseg.ops._registration import register

PATH = os.environ["GEOSEG_EMULATED"]
SHAPES = [(5, 7), (1, 1), (3, 2)]
SIDES = [side for shape in SHAPES for side in shape]
GRID = [(3, 4), (1, 2)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
# Of the largest |out|.
ALLOWED = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 4e-3,
}
Inputs = tuple[Tensor, Tensor, Tensor]

torch.ops.load_library(PATH)
HOST = ctypes.CDLL(PATH)
REGISTERED = register()
ON_CPU = torch.library.Library("geoseg", "IMPL")


def _to_cuda(name: str) -> Any:  # noqa: ANN401 (a kernel)
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    operator = getattr(torch.ops.geoseg, name).default
    return lambda *arguments: operator.redispatch(keys, *arguments)


for each in ("ms_deform_attn", "ms_deform_attn_fused", "ms_deform_attn_backward"):
    ON_CPU.impl(each, _to_cuda(each), "CPU")


@pytest.fixture(autouse=True)
def atomics() -> None:
    HOST.allow_atomics(True)


@pytest.fixture
def deterministic() -> Iterator[None]:
    HOST.allow_atomics(False)  # one would end the program
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(dtype: torch.dtype, dim: int = 8, shapes: Any = SHAPES) -> Inputs:  # noqa: ANN401
    generator = torch.Generator().manual_seed(dim)
    exact = torch.promote_types(dtype, torch.float32)
    size = sum(height * width for height, width in shapes)
    places = (2, 14, 3, len(shapes), 4)
    value = torch.randn(2, size, 3, dim, generator=generator, dtype=exact)
    locations = torch.rand(*places, 2, generator=generator, dtype=exact) * 1.4 - 0.2
    weights = torch.rand(*places, generator=generator, dtype=exact)
    return value.to(dtype), locations, weights


def outcome(inputs: Inputs, sides: list[int], grad: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = torch.ops.geoseg.ms_deform_attn(leaves[0], sides, leaves[1], leaves[2])
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]


def assert_equals_the_reference(inputs: Inputs, shapes: Any = SHAPES) -> None:  # noqa: ANN401
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    wanted = ms_deform_attn_reference(exact[0], shapes, exact[1], exact[2])
    generator = torch.Generator().manual_seed(1)
    dtype = inputs[0].dtype
    grad = torch.randn(wanted.shape, generator=generator).to(dtype)
    found = outcome(inputs, [side for shape in shapes for side in shape], grad)
    gradients = torch.autograd.grad(wanted, exact, grad.double())
    kinds = [dtype, *[tensor.dtype for tensor in inputs]]
    assert [tensor.dtype for tensor in found] == kinds
    allowed = [ALLOWED[dtype], ALLOWED[dtype], *[min(1e-4, ALLOWED[dtype] * 10)] * 2]
    for one, other, most in zip(
        found, [wanted.detach(), *gradients], allowed, strict=True
    ):
        scale = max(1.0, float(other.abs().max()))
        assert float((one.double() - other).abs().max()) <= most * scale


def beside(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor whose address 16 bytes at once cannot be read from."""
    room = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape)
    return room.copy_(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [8, 32, 33])
def test_equals_the_reference(dtype: torch.dtype, dim: int) -> None:
    assert_equals_the_reference(draw(dtype, dim))


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("dtype", DTYPES)
def test_deterministic_gradients_take_no_atomics(dtype: torch.dtype) -> None:
    inputs = draw(dtype)
    assert_equals_the_reference(inputs)
    grad = torch.ones(2, 14, 24, dtype=dtype)
    first, again = (outcome(inputs, SIDES, grad) for _ in range(2))
    assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [8, 32])
def test_addresses_that_are_not_aligned_give_the_same(
    dtype: torch.dtype, dim: int
) -> None:
    inputs = draw(dtype, dim)
    HOST.allow_atomics(False)
    torch.use_deterministic_algorithms(True)
    grad = torch.randn(2, 14, 3 * dim).to(dtype)
    wanted = outcome(inputs, SIDES, grad)
    moved = tuple(map(beside, inputs))
    found = outcome(moved, SIDES, beside(grad))  # type: ignore[arg-type]
    torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, wanted, found))


@pytest.mark.usefixtures("deterministic")
def test_strides_give_the_same() -> None:
    value, locations, weights = draw(torch.float32)
    grad = torch.randn(1, 1, 24).expand(2, 14, 24)
    strided = (
        value.transpose(1, 3).contiguous().transpose(1, 3),
        locations.flip(1).contiguous().flip(1).transpose(2, 4).transpose(2, 4),
        weights.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
    )
    wanted = outcome((value, locations, weights), SIDES, grad.contiguous())
    assert all(map(torch.equal, outcome(strided, SIDES, grad), wanted))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("raw", DTYPES)
@pytest.mark.parametrize("logits_too", [True, False])
def test_fused_takes_raw_points_of_any_dtype(
    dtype: torch.dtype, raw: torch.dtype, logits_too: bool
) -> None:
    value, places, weights = draw(dtype)
    offsets = beside((places * 6 - 3).to(raw))
    logits = (weights * 8 - 4).to(raw if logits_too else torch.float32)
    sides = [side for shape in GRID for side in shape]
    found = torch.ops.geoseg.ms_deform_attn_fused(value, SIDES, sides, offsets, logits)
    sizes = torch.tensor([(width, height) for height, width in SHAPES])
    centres = cell_centres(GRID, torch.float64, torch.device("cpu"))
    where = centres[:, None, None, None] + offsets.double() / sizes[:, None]
    shares = logits.double().flatten(3).softmax(-1).view(logits.shape)
    wanted = ms_deform_attn_reference(value.double(), SHAPES, where, shares)
    assert found.dtype == dtype
    # Of a float64 value too, float16 logits are what they are.
    scale = max(1.0, float(wanted.abs().max()))
    assert float((found.double() - wanted).abs().max()) <= ALLOWED[dtype] * scale


def test_32_levels_are_taken_and_33_refused_with_what_to_do() -> None:
    assert_equals_the_reference(
        draw(torch.float32, shapes=[(2, 1)] * 32), [(2, 1)] * 32
    )
    value, locations, weights = draw(torch.float32, shapes=[(2, 1)] * 33)
    with pytest.raises(RuntimeError, match=r"33 levels.*take 32, .*use_reference"):
        torch.ops.geoseg.ms_deform_attn(value, [2, 1] * 33, locations, weights)


@pytest.mark.parametrize(
    ("batch", "points", "dim", "message"),
    [
        # Steps of a kernel's loops from there would leave 32 bits.
        ((1 << 31) - 1, 1, 1, "value or points are too many"),
        (1, (1 << 31) - 1, 1, "value or points are too many"),
        # One block of the deterministic backward has 32 channels.
        (1, 1, 1 << 21, "more than 2097120 channels"),
    ],
)
def test_what_32_bits_cannot_count_is_refused(
    batch: int, points: int, dim: int, message: str
) -> None:
    one = torch.zeros(())
    value = one.expand(batch, 1, 1, dim)
    locations, weights = (
        one.expand(batch, 1, 1, 1, points, *more) for more in ((2,), ())
    )
    with pytest.raises(RuntimeError, match=message):
        torch.ops.geoseg.ms_deform_attn(value, [1, 1], locations, weights)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (98, r"GPU is older than .* GEOSEG_CUDA_ARCHS .*use_reference"),
        (209, r"GPU is older than .* GEOSEG_CUDA_ARCHS .*use_reference"),
        (35, r"driver is older .* install a newer driver, .*use_reference"),
        (222, r"driver is older .* install a newer driver, .*use_reference"),
        (2, "did not start: an error of CUDA's own"),
    ],
)
def test_what_does_not_start_is_told_with_what_to_do(error: int, message: str) -> None:
    value, locations, weights = draw(torch.float32)
    grad = torch.ones(2, 14, 24)
    calls = torch.ops.geoseg
    HOST.let_launches_give(error)
    try:
        with pytest.raises(RuntimeError, match=message):
            calls.ms_deform_attn(value, SIDES, locations, weights)
        with pytest.raises(RuntimeError, match=message):
            calls.ms_deform_attn_fused(value, SIDES, [14, 1], locations, weights)
        with pytest.raises(RuntimeError, match=message):
            calls.ms_deform_attn_backward(grad, value, SIDES, locations, weights, False)
    finally:
        HOST.let_launches_give(0)


def test_tensors_on_different_devices_are_refused() -> None:
    value, locations, weights = draw(torch.float32)
    forward = _to_cuda("ms_deform_attn")
    with pytest.raises(RuntimeError, match="device of value, cuda:0; move them there"):
        forward(value, SIDES, locations.to("meta"), weights)
    backward = _to_cuda("ms_deform_attn_backward")
    grad = torch.ones(2, 14, 24, device="meta")
    with pytest.raises(RuntimeError, match="device of value, cuda:0; move them there"):
        backward(grad, value, SIDES, locations, weights, False)
    fused = _to_cuda("ms_deform_attn_fused")
    with pytest.raises(RuntimeError, match="device of value, cuda:0; move them there"):
        fused(value, SIDES, [14, 1], locations, weights.to("meta"))


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ([5, 7, 1, 1, 3], "height and width of each level"),
        ([], "height and width of each level"),
        ([5, 7, 1, 1, 3, 3], "adds up to 45 cells, not 42"),
        ([5, 7, 1, 1, -3, -2], "holds an empty level"),
        ([1 << 24, 7, 1, 1, 3, 2], "more than 2\\^23 cells"),
        ([1 << 20, 1 << 20, 1, 1, 3, 2], "2\\^31 cells or more"),
        ([6, 7], "do not fit value"),
    ],
)
def test_levels_that_do_not_fit_are_refused(sides: list[int], message: str) -> None:
    value, locations, weights = draw(torch.float32)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.geoseg.ms_deform_attn(value, sides, locations, weights)


def test_dtypes_that_do_not_fit_are_refused() -> None:
    value, locations, weights = draw(torch.float32)
    call = torch.ops.geoseg.ms_deform_attn
    with pytest.raises(RuntimeError, match="must be float32, or float64 for a"):
        call(value.double(), SIDES, locations, weights)
    with pytest.raises(RuntimeError, match="must be float32, or float64 for a"):
        call(value.half(), SIDES, locations.half(), weights)
    with pytest.raises(RuntimeError, match="value must be float32, float64, float16"):
        call(value.int(), SIDES, locations, weights)
