"""Times of deformable attention on a GPU; `bench_ms_deform_attn.py --device cuda`.

Each call runs in two ways. *Graph*: as many calls as there are sets of inputs, captured
as one CUDA graph, so that only the device's time counts; what cannot be captured has
none. *Eager*: the same calls one by one, as a model makes them. Between two uses of a
set, others of four times the L2 cache in size have passed. Rivals alternate, after
warming up, and medians count.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from deformable_cases import CASES, Call, Case, Inputs, fused_rivals, rivals
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Of the largest number of the output: rivals compute in the value's dtype."""

WARM_UP = 5
Job = Callable[[], object]


def bench_on_gpu(repeats: int) -> dict[str, Any]:
    """Compare and time all cases and dtypes; print as it goes, return the rows."""
    if not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch finds no CUDA device on this machine")
    device = torch.device("cuda", torch.cuda.current_device())
    properties = torch.cuda.get_device_properties(device)
    print(f"{properties.name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    rows = []
    for case in CASES:
        for dtype in DTYPES:
            rows.extend(measure_case(case, dtype, device, repeats))
    return {"device": properties.name, "cuda": torch.version.cuda, "times": rows}


def measure_case(
    case: Case, dtype: torch.dtype, device: torch.device, repeats: int
) -> list[dict[str, Any]]:
    """Time one case in one dtype: forward, forward and backward, fused."""
    given = rotating(case.draw, dtype, device)
    raw = rotating(case.draw_raw, dtype, device)
    calls, fused = rivals(case, device), fused_rivals(case, device)
    check(calls, given[0])
    check(fused, raw[0])
    trained = {name: call for name, call in calls.items() if name != "hub kernel"}
    check_gradients(trained, given[0])
    jobs = {
        "forward": {name: _inference(call, given) for name, call in calls.items()},
        "both": {name: _training(call, given) for name, call in trained.items()},
        "fused": {name: _inference(call, raw) for name, call in fused.items()},
    }
    rows = []
    for kind, named in jobs.items():
        sets = len(raw if kind == "fused" else given)
        rows.append(
            {
                "case": case.name,
                "dtype": str(dtype).removeprefix("torch."),
                "kind": kind,
                "eager_us": alternate(named, sets, repeats),
                "graph_us": alternate(_captured(named), sets, repeats),
            }
        )
        print_row(rows[-1])
    return rows


def rotating(
    draw: Callable[[int], Inputs], dtype: torch.dtype, device: torch.device
) -> list[Inputs]:
    """Draw sets of inputs that together are four times the L2 cache, two at least."""
    first = draw(0)
    size = sum(tensor.numel() * tensor.element_size() for tensor in first)
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    count = max(2, min(64, -(-4 * cache // size)))
    sets = []
    for seed in range(count):
        value, points, weights = draw(seed)
        sets.append((value.to(device, dtype), points.to(device), weights.to(device)))
    return sets


def check(calls: dict[str, Call], inputs: Inputs) -> None:
    """All must give what Hugging Face's function gives, or no time means anything."""
    exact: Inputs = (inputs[0].float(), *inputs[1:])
    expected = calls["hugging face"](*exact)
    scale = max(1.0, float(expected.abs().max()))
    for name, call in calls.items():
        found = call(*inputs).float()
        off = float((found - expected).abs().max()) / scale
        if not off <= ALLOWED[inputs[0].dtype]:
            raise SystemExit(f"{name} is off by {off:.1e} of the largest number")


def check_gradients(calls: dict[str, Call], inputs: Inputs) -> None:
    """The same for gradients, each as a whole: slopes jump at cells' centres."""
    exact: Inputs = (inputs[0].float(), *inputs[1:])
    expected = _gradients(calls["hugging face"], exact)
    for name, call in calls.items():
        for one, other in zip(_gradients(call, inputs), expected, strict=True):
            off = float((one.float() - other).norm() / other.norm())
            if not off <= 10 * ALLOWED[inputs[0].dtype] + 5e-3:
                raise SystemExit(f"a gradient of {name} is off by {off:.1e}")


def alternate(jobs: dict[str, Job], calls: int, repeats: int) -> dict[str, float]:
    """Median microseconds of a call; each job makes `calls` of them."""
    for job in jobs.values():
        for _ in range(WARM_UP):
            job()
    seen: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            started.record()
            job()
            ended.record()
            ended.synchronize()
            seen[name].append(started.elapsed_time(ended) * 1e3 / calls)
    return {name: round(statistics.median(t), 2) for name, t in seen.items()}


def print_row(row: dict[str, Any]) -> None:
    """Print one row: our microseconds, and how many times ours the others take."""
    cells = [f"{row['case']:<15} {row['dtype']:<8} {row['kind']:<7}"]
    for kind in ("graph", "eager"):
        times = row[f"{kind}_us"]
        own = times.get("geoseg")
        if own is None:
            cells.append(f"{kind} not captured")
            continue
        ratios = [f"{n} {t / own:.1f}x" for n, t in times.items() if n != "geoseg"]
        cells.append(f"{kind} {own:.1f} us: {', '.join(ratios)}")
    print(" | ".join(cells), flush=True)


def _inference(call: Call, sets: Sequence[Inputs]) -> Job:
    def run() -> None:
        with torch.inference_mode():
            for inputs in sets:
                call(*inputs)

    return run


def _training(call: Call, sets: Sequence[Inputs]) -> Job:
    leaves = [[t.detach().requires_grad_() for t in inputs] for inputs in sets]
    grads: list[Tensor] = [torch.ones_like(call(*inputs)) for inputs in sets[:1]] * len(
        sets
    )

    def run() -> None:
        for inputs, grad in zip(leaves, grads, strict=True):
            torch.autograd.grad(call(*inputs), inputs, grad)

    return run


def _gradients(call: Call, inputs: Inputs) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = call(*leaves)
    return torch.autograd.grad(output, leaves, torch.ones_like(output))


def _captured(jobs: dict[str, Job]) -> dict[str, Job]:
    """Capture each as a CUDA graph; leave out what cannot be."""
    graphs: dict[str, Job] = {}
    for name, job in jobs.items():
        try:
            graph = torch.cuda.CUDAGraph()
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                job()  # What is set up once must be before the capture.
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                job()
        except RuntimeError as error:
            print(f"{name} cannot be captured: {(str(error).splitlines() or ['?'])[0]}")
            continue
        graphs[name] = graph.replay
    return graphs
