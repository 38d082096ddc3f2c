"""The GPU benchmark's own logic, on a CPU that plays the device."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

CPU = torch.device("cpu")


class Event:
    """An event of a device that is never behind."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1e3


class NoGraph:
    def __init__(self) -> None:
        raise RuntimeError("this device captures nothing")


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    gpu_timing = import_module("gpu_timing")

    cache = SimpleNamespace(L2_cache_size=100_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: cache)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(
        gpu_timing, "_captured", lambda jobs: {"geoseg": jobs["geoseg"]}
    )
    return gpu_timing


def small_case(timing: ModuleType) -> Any:  # noqa: ANN401 (of a script)
    levels = ((5, 6), (3, 3))
    return timing.Case("small", levels, levels, heads=2, dim=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_are_timed_in_all_kinds(timing: ModuleType, dtype: torch.dtype) -> None:
    rows = timing.measure_case(small_case(timing), dtype, CPU, repeats=2)
    assert [row["kind"] for row in rows] == ["forward", "both", "fused"]
    for row in rows:
        assert {"geoseg", "hugging face"} <= row["eager_us"].keys()
        assert all(us > 0 for us in row["eager_us"].values())
        assert row["graph_us"].keys() == {"geoseg"}
    assert "geoseg, not fused" in rows[2]["eager_us"]


def test_inputs_rotate_through_four_caches(timing: ModuleType) -> None:
    case = small_case(timing)
    sets = timing.rotating(case.draw, torch.float32, CPU)
    size = sum(tensor.numel() * 4 for tensor in sets[0])
    assert (len(sets) - 1) * size < 400_000 <= len(sets) * size
    assert not torch.equal(sets[0][0], sets[1][0])


def test_a_rival_that_gives_something_else_is_not_timed(timing: ModuleType) -> None:
    case = small_case(timing)
    inputs = case.draw()
    calls = timing.rivals(case, CPU)
    timing.check(calls, inputs)
    timing.check_gradients(calls, inputs)
    right = calls["geoseg"]
    calls["wrong"] = lambda v, p, w: right(v, p, w) * 1.001
    with pytest.raises(SystemExit, match="wrong is off"):
        timing.check(calls, inputs)
    calls["wrong"] = lambda v, p, w: right(v, p.flip(-1), w)
    with pytest.raises(SystemExit, match="a gradient of wrong is off"):
        timing.check_gradients(calls, inputs)


def test_what_cannot_be_captured_is_left_out(
    timing: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", NoGraph)
    assert timing._captured({"geoseg": lambda: None}) == {}
    assert "geoseg cannot be captured: this device" in capsys.readouterr().out


def test_without_a_device_it_says_so(timing: ModuleType) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(SystemExit, match="finds no CUDA device"):
        timing.bench_on_gpu(1)
