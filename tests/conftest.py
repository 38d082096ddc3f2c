"""Fixtures and rules for every test: threads, hypothesis, CUDA, shared data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before numpy and torch load: tests share their cores with Dask's worker processes.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Without a compiler the tests run on the reference; where GEOSEG_OPS says cpu, the
# library's absence is an error.
if not (Path(__file__).parents[1] / "geoseg" / "_C.abi3.so").exists():
    os.environ.setdefault("GEOSEG_OPS", "none")

from functools import cache  # noqa: E402 - the environment comes first

import hypothesis  # noqa: E402
import pytest  # noqa: E402

if TYPE_CHECKING:
    from distributed import Client

ROOT = Path(__file__).parents[1]

# deadline: a shared machine may stall any example. The everyday profile draws the same
# examples each time, so that a red run is somebody's change; with
# HYPOTHESIS_PROFILE=ci new ones are looked for.
hypothesis.settings.register_profile(
    "fast", max_examples=50, deadline=None, derandomize=True
)
hypothesis.settings.register_profile(
    "ci", max_examples=300, deadline=None, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scenes: GEOSEG_SHARED_DATA, else ../shared/data of a checkout."""
    path = Path(os.environ.get("GEOSEG_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("shared data is absent; GEOSEG_SHARED_DATA names its folder")
    return path


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Client of workers in this process, as many as the module's WORKERS, else one."""
    # Not above: it takes a second to import.
    from thread_workers import thread_workers

    with thread_workers(getattr(request.module, "WORKERS", 1)) as client:
        yield client


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip CUDA tests without a device, or fail them where one is promised."""
    if item.get_closest_marker("needs_cuda") is None or _has_cuda():
        return
    if os.environ.get("GEOSEG_REQUIRE_CUDA") == "1":
        pytest.fail("no CUDA device, and GEOSEG_REQUIRE_CUDA=1 promises one")
    pytest.skip("no CUDA device")


@cache
def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
