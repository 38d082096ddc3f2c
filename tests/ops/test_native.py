"""The native operator: every instruction set, dtype and shape against the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deformable import SHAPES, Inputs, Shapes, assert_alike, draw, outcome
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from geoseg.ops import LIBRARY, ms_deform_attn, use_reference

pytestmark = pytest.mark.skipif(
    not LIBRARY.loaded, reason=f"native operators are absent: {LIBRARY.reason}"
)

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 3, 8, 32, 33, 64])
def test_equals_the_reference_for_any_head(dtype: torch.dtype, dim: int) -> None:
    assert_alike(draw(dtype=dtype, dim=dim), SHAPES)


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4
    ),
    batch=st.integers(0, 3),
    queries=st.sampled_from([0, 1, 2, 13, 31]),
    heads=st.integers(1, 4),
    points=st.integers(1, 5),
    dim=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_equals_the_reference_for_any_shape(
    shapes: Shapes,
    batch: int,
    queries: int,
    heads: int,
    points: int,
    dim: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    inputs = draw(
        shapes,
        dtype=dtype,
        batch=batch,
        queries=queries,
        heads=heads,
        points=points,
        dim=dim,
        seed=seed,
    )
    assert_alike(inputs, shapes)


@pytest.mark.parametrize("name", ["portable", "avx2", "avx512"])
def test_every_instruction_set_equals_the_reference(name: str) -> None:
    # In a process of its own: the choice is made once. The best one runs in this one.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-m", "not slow"),
            *("-k", "any_head or not_finite or any_logits or test_native_sizes"),
            *(
                __file__,
                *(str(FOLDER / f"test_native_{n}.py") for n in ("sizes", "fused")),
            ),
        ],
        env={**os.environ, "GEOSEG_CPU": name},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    flag = {"portable": "", "avx2": " avx2 ", "avx512": " avx512vl "}[name]
    if flag not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {name}")
    assert done.returncode == 0, done.stdout


def test_an_unknown_instruction_set_is_refused() -> None:
    code = "import torch; from geoseg.ops import ms_deform_attn as f; r = torch.rand; "
    code += "f(r(1, 1, 1, 1), [(1, 1)], r(1, 1, 1, 1, 1, 2), r(1, 1, 1, 1, 1))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "GEOSEG_CPU": "mmx"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "use portable, avx2 or avx512" in done.stderr


def test_gradients_equal_finite_differences() -> None:
    shapes = [(3, 2), (1, 2)]
    value, locations, weights = draw(
        shapes, dtype=torch.float64, batch=1, queries=3, heads=2, dim=5
    )
    # Away from cell centres, where bilinear interpolation has a kink.
    locations = torch.rand(locations.shape, dtype=torch.float64) * 0.02 + 0.3
    inputs = [t.requires_grad_() for t in (value, locations, weights)]
    assert torch.autograd.gradcheck(
        lambda v, p, w: ms_deform_attn(v, shapes, p, w), inputs
    )


# opcheck looks at gradients of tensors of its own that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_operator_keeps_torch_s_rules(dtype: torch.dtype) -> None:
    value, locations, weights = draw(dtype=dtype)
    flat = [side for shape in SHAPES for side in shape]
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    torch.library.opcheck(
        torch.ops.geoseg.ms_deform_attn.default, (inputs[0], flat, *inputs[1:])
    )
    grad = torch.randn(2, 17, 24).to(dtype)
    torch.library.opcheck(
        torch.ops.geoseg.ms_deform_attn_backward.default,
        (grad, value.detach(), flat, locations.detach(), weights.detach()),
    )


def attend(value: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
    return ms_deform_attn(value, shapes, places, weights).sin()


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_compiles_whole_and_at_most_twice_for_three_sizes(backend: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled: Callable[..., Tensor] = torch.compile(
        attend, fullgraph=True, backend=counter
    )
    for size in (4, 6, 7):
        shapes = [(size, size + 1), (size // 2, size)]
        outcomes = []
        for function in (compiled, attend):
            leaves = [tensor.requires_grad_() for tensor in draw(shapes)]
            output = function(leaves[0], shapes, *leaves[1:])
            outcomes.append([output, *torch.autograd.grad(output.sum(), leaves)])
        for found, expected in zip(*outcomes, strict=True):
            torch.testing.assert_close(found, expected)
    assert counter.frame_count <= 2
    torch._dynamo.reset()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_locations_that_are_not_finite_count_as_nothing(bad: float) -> None:
    value, locations, weights = draw()
    broken = locations.clone()
    broken[0, 3, 1, 0, 1, 0] = bad
    broken[1, 5, 2, 2, 0, 1] = bad
    gone = weights.clone()
    gone[0, 3, 1, 0, 1] = gone[1, 5, 2, 2, 0] = 0
    found = outcome((value, broken, weights), SHAPES, native=True)
    expected = outcome((value, locations, gone), SHAPES, native=True)
    for one, other in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(one, other)
    for gradient in found[2:]:
        assert gradient.isfinite().all()
        assert (gradient[0, 3, 1, 0, 1] == 0).all()
        assert (gradient[1, 5, 2, 2, 0] == 0).all()
    with use_reference():
        reference = ms_deform_attn(value, SHAPES, broken, weights)
    torch.testing.assert_close(found[0].float(), reference)


def test_results_are_the_same_bits_for_any_number_of_threads() -> None:
    shapes = [(23, 23), (12, 12)]
    inputs = draw(shapes, queries=301, heads=6, dim=32, points=4)
    before = torch.get_num_threads()
    try:
        seen = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            seen.append(outcome(inputs, shapes, native=True))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(map(torch.equal, seen[0], other))


def test_strided_tensors_give_the_same() -> None:
    value, locations, weights = draw()
    strided = (
        value.transpose(1, 2).contiguous().transpose(1, 2),
        locations.flip(0).flip(0).expand(locations.shape),
        weights.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
    )
    assert not strided[0].is_contiguous()
    assert not strided[2].is_contiguous()
    for one, other in zip(
        outcome(strided, SHAPES, native=True),
        outcome((value, locations, weights), SHAPES, native=True),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_autocast_reduces_values_and_never_locations() -> None:
    value, locations, weights = draw([(1, 180)], batch=1, dim=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ms_deform_attn(value, [(1, 180)], locations, weights)
    expected = ms_deform_attn(value.bfloat16(), [(1, 180)], locations, weights)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_autocast_to_float16_computes_in_float32_on_a_cpu() -> None:
    value, locations, weights = draw()
    with torch.autocast("cpu", dtype=torch.float16):
        found = ms_deform_attn(value, SHAPES, locations, weights)
    assert torch.equal(found, ms_deform_attn(value, SHAPES, locations, weights))


def test_a_second_derivative_is_refused_and_not_zero() -> None:
    value, locations, weights = (t.requires_grad_() for t in draw())
    output = ms_deform_attn(value, SHAPES, locations, weights)
    [grad] = torch.autograd.grad(output.square().sum(), value, create_graph=True)
    with pytest.raises(NotImplementedError, match="use_reference"):
        grad.sum().backward()


def test_level_sizes_may_be_a_tensor() -> None:
    inputs = draw()
    sizes = torch.tensor(SHAPES)
    assert torch.equal(
        ms_deform_attn(inputs[0], sizes, *inputs[1:]),
        ms_deform_attn(inputs[0], SHAPES, *inputs[1:]),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, p, w: (v.long(), p, w), "value is torch.int64"),
        (lambda v, p, w: (v, p.int(), w), "sampling_locations is torch.int32"),
        (lambda v, p, w: (v, p, w.to("meta")), "attention_weights is on meta"),
    ],
)
def test_dtypes_and_devices_that_do_not_fit_are_refused(
    change: Callable[..., Inputs], message: str
) -> None:
    value, locations, weights = change(*draw())
    with pytest.raises(ValueError, match=message):
        ms_deform_attn(value, SHAPES, locations, weights)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(5, 7), (0, 1)], "empty level"),
        (torch.ones(3), r"expected \(L, 2\)"),
    ],
)
def test_level_sizes_that_are_none_are_refused(
    shapes: Shapes | Tensor, message: str
) -> None:
    value, locations, weights = draw()
    with pytest.raises(ValueError, match=message):
        ms_deform_attn(value, shapes, locations, weights)


def test_the_raw_operator_guards_its_memory() -> None:
    value, locations, weights = draw()
    flat = [side for shape in SHAPES for side in shape]
    op = torch.ops.geoseg.ms_deform_attn
    for broken in (
        (value[:, :-1], flat, locations, weights),
        (value, flat[:-2], locations, weights),
        (value, [-5, -7, *flat[2:]], locations, weights),
        (value, [1 << 32, 1 << 32, *flat[2:]], locations, weights),
        (value, flat, locations.to(torch.int32), weights.to(torch.int32)),
        (value, flat, locations, weights[:, :-1]),
        (value, flat, locations.double(), weights),
        (value[:1], flat, locations, weights),
    ):
        with pytest.raises(RuntimeError):
            op(*broken)
