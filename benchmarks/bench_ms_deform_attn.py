"""Multi-scale deformable attention: ours against its rivals, in one process.

    python benchmarks/bench_ms_deform_attn.py [--device cpu|cuda] [--threads 1 2]
        [--repeats 7] [--json FILE] [--sketch FILE]

Shapes are those of a tile of 720 pixels. Rivals: the function of Hugging Face's
Mask2Former (a loop over `grid_sample`); on a CPU `torch-ms-deform-attn` where it is
installed (`pip install --no-build-isolation torch-ms-deform-attn`) and a C++ sketch
given as a source file; on a GPU the kernel of Deformable DETR from the hub (with
`kernels` installed) and `deformops`, where they can be had. Outputs and gradients are
compared first; then calls alternate and medians count. *Fused* is all from raw offsets
and logits on, which the others turn into places and weights first.

Beside the times on a CPU stands what the second cache allows on one thread: the same
rows summed by a loop that does nothing else. Of times on a GPU, see gpu_timing.py.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from deformable_cases import (
    CASES,
    Call,
    Case,
    Inputs,
    build_sketch,
    fused_rivals,
    rivals,
)
from gpu_timing import bench_on_gpu
from high_water import high_water_mib, reset_high_water, resident_mib
from record import write_results
from torch import Tensor

from geoseg.ops import LIBRARY

CPU = torch.device("cpu")


def main() -> None:
    """Compare, time, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sketch", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--memory-of", nargs=3, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of is not None:
        print(memory_rise(*arguments.memory_of))
        return
    on_gpu = arguments.device == "cuda"
    if not (LIBRARY.cuda if on_gpu else LIBRARY.loaded):
        raise SystemExit(
            f"there are no native {arguments.device} kernels to measure: "
            f"{LIBRARY.reason}"
        )
    if on_gpu:
        figures = bench_on_gpu(arguments.repeats)
    else:
        figures = bench_on_cpu(arguments.threads, arguments.repeats, arguments.sketch)
    if arguments.json is not None:
        write_results(arguments.json, figures)


def bench_on_cpu(
    threads: list[int], repeats: int, sketch_source: Path | None
) -> dict[str, Any]:
    """Compare and time all cases, then measure memory."""
    sketch, gather = build_sketch(sketch_source), build_gather()
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        for case in CASES:
            rows.append(measure(case, count, repeats, sketch, gather))
            print_row(rows[-1])
    return {"times": rows, "memory": measure_memory()}


def measure(
    case: Case,
    threads: int,
    repeats: int,
    sketch: Any,  # noqa: ANN401 (an operator)
    gather: Callable[..., int],
) -> dict[str, Any]:
    """Time one case: forward of all, forward and backward of those that have one."""
    inputs = case.draw()
    calls = rivals(case, CPU, sketch)
    check(calls, inputs)
    forward = alternate(
        {name: _forward(call, inputs) for name, call in calls.items()}, repeats
    )
    trained = {name: call for name, call in calls.items() if name != "sketch"}
    both = alternate(
        {name: _backward(call, inputs) for name, call in trained.items()},
        max(3, repeats // 2),
    )
    fused = measure_fused(case, repeats)
    gathered = inputs[1].numel() // 2 * 4 * case.dim * 4
    limit = gather_limit(case, inputs, repeats, gather) if threads == 1 else None
    return {
        "case": case.name,
        "threads": threads,
        "forward_ms": forward,
        "both_ms": both,
        "fused_ms": fused,
        "gathered_mb": round(gathered / 1e6),
        "gather_limit_ms": limit,
        "gather_gb_per_s": limit and round(gathered / limit / 1e6, 1),
    }


def measure_fused(case: Case, repeats: int) -> dict[str, float]:
    """Time all from raw offsets and logits on."""
    inputs, calls = case.draw_raw(), fused_rivals(case, CPU)
    with torch.inference_mode():
        expected = calls["hugging face"](*inputs)
        for call in calls.values():
            torch.testing.assert_close(call(*inputs), expected, rtol=1e-4, atol=1e-4)
    return alternate(
        {name: _forward(call, inputs) for name, call in calls.items()}, repeats
    )


def check(calls: dict[str, Call], inputs: Inputs) -> None:
    """All must give what Hugging Face's function gives, or no time means anything."""
    expected, gradients = _outcome(calls["hugging face"], inputs)
    for name, call in calls.items():
        if name == "sketch":
            found, own = call(*inputs), gradients
        else:
            found, own = _outcome(call, inputs)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        for one, other in zip(own, gradients, strict=True):
            # As a whole: at the few points that lie within rounding of a cell's
            # centre, where the slope jumps, two sides are right.
            assert float((one - other).norm()) < 5e-3 * float(other.norm()), name


def alternate(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, called in turn, the first round apart."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                seen[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(t) * 1e3, 2) for name, t in seen.items()}


def gather_limit(
    case: Case,
    inputs: Inputs,
    repeats: int,
    gather: Callable[..., int],
) -> float:
    """Milliseconds on one thread in which a loop sums the same rows in our order.

    It reads a row of D numbers for each corner of each point, as the operator must,
    from values that lie head by head already; it has no locations to work out, no
    weights, and no output. What the operator takes more is arithmetic and its copy.
    """
    value, locations, _ = inputs
    table = value[0].permute(1, 0, 2).contiguous()  # (M, S, D)
    rows, start = [], 0
    for level, (height, width) in enumerate(case.levels):
        place = locations[0, :, :, level]  # (Q, M, P, 2)
        col = (place[..., 0] * width - 0.5).floor().int().clamp(0, width - 2)
        row = (place[..., 1] * height - 0.5).floor().int().clamp(0, height - 2)
        first = start + row * width + col
        corners = [first, first + 1, first + width, first + width + 1]
        rows.append(torch.stack(corners, -1).flatten(2))
        start += height * width
    index = torch.cat(rows, -1).permute(1, 0, 2).contiguous().int()  # (M, Q, L*P*4)
    sums = torch.zeros(case.dim)

    def run() -> None:
        for head in range(case.heads):
            arguments = (table[head].data_ptr(), index[head].data_ptr())
            sizes = (*index.shape[1:], case.dim)
            if gather(*arguments, *sizes, sums.data_ptr()):
                raise SystemExit(f"gather.cpp knows no rows of {case.dim}")

    return alternate({"gather": run}, repeats)["gather"]


def build_gather() -> Callable[..., int]:
    """Compile gather.cpp for this processor."""
    folder = Path(tempfile.mkdtemp())
    source, library = Path(__file__).with_name("gather.cpp"), folder / "gather.so"
    flags = ["-O3", "-march=native", "-shared", "-fPIC", "-Wno-psabi"]
    subprocess.run(["c++", *flags, str(source), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).gather
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer, pointer, count, count, count, pointer]
    return function


def print_row(row: dict[str, Any]) -> None:
    """Print one case: our milliseconds, and how many times ours the others take."""
    cells = [f"{row['case']:<15} {row['threads']} threads"]
    for kind in ("forward_ms", "both_ms", "fused_ms"):
        own = row[kind]["geoseg"]
        ratios = [
            f"{name} {value / own:.1f}x"
            for name, value in row[kind].items()
            if name != "geoseg"
        ]
        cells.append(f"{kind[:-3]} {own:.1f} ms: {', '.join(ratios)}")
    if row["gather_limit_ms"] is not None:
        limit, speed = row["gather_limit_ms"], row["gather_gb_per_s"]
        cells.append(f"the same rows alone {limit:.1f} ms ({speed:.0f} GB/s)")
    print(" | ".join(cells), flush=True)


def measure_memory() -> dict[str, dict[str, dict[str, float]]]:
    """MiB by which VmHWM rises over the inputs', each in a process of its own."""
    rises: dict[str, dict[str, dict[str, float]]] = {}
    for case in CASES:
        for kind in ("forward", "both"):
            seen = {}
            for name in ("geoseg", "hugging face"):
                done = subprocess.run(
                    [sys.executable, __file__, "--memory-of", case.name, name, kind],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                seen[name] = float(done.stdout)
            rises.setdefault(case.name, {})[kind] = seen
            own, other = seen["geoseg"], seen["hugging face"]
            print(
                f"{case.name:<15} {kind:<7} memory rises by {own:.0f} MiB, "
                f"{other:.0f} with Hugging Face: {other / max(own, 1.0):.1f}x",
                flush=True,
            )
    return rises


def memory_rise(case_name: str, name: str, kind: str) -> float:
    """MiB by which the peak of this process rises over the inputs'."""
    torch.set_num_threads(1)
    [case] = [case for case in CASES if case.name == case_name]
    inputs = case.draw()
    make = _forward if kind == "forward" else _backward
    call = rivals(case, CPU)[name]
    value, *places = inputs
    # Libraries are loaded and warm.
    make(call, (value, *(tensor[:, :1] for tensor in places)))()
    before = resident_mib(os.getpid())
    reset_high_water(os.getpid())
    make(call, inputs)()
    return high_water_mib(os.getpid()) - before


def _forward(call: Call, inputs: Inputs) -> Callable[[], object]:
    def run() -> None:
        with torch.inference_mode():
            call(*inputs)

    return run


def _backward(call: Call, inputs: Inputs) -> Callable[[], object]:
    return lambda: _outcome(call, inputs)


def _outcome(call: Call, inputs: Inputs) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = call(*leaves)
    return output.detach(), torch.autograd.grad(output, leaves, torch.ones_like(output))


if __name__ == "__main__":
    main()
