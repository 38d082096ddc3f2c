"""Loading the native library: what GEOSEG_OPS asks for, and what is said without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geoseg.errors import GeosegWarning, OperatorError
from geoseg.ops import LIBRARY, _library
from geoseg.ops._library import load_library


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_library, "LIBRARY", tmp_path / "_C.abi3.so")


@pytest.mark.usefixtures("missing")
def test_without_the_library_auto_warns_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GEOSEG_OPS", raising=False)
    with pytest.warns(GeosegWarning, match="without its native operators, many times"):
        found = load_library()
    assert not found.loaded
    assert "is missing" in found.reason


@pytest.mark.usefixtures("missing")
def test_without_the_library_its_absence_is_an_error_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GEOSEG_OPS", "cpu")
    with pytest.raises(OperatorError, match=r"is missing.* and GEOSEG_OPS=cpu asks"):
        load_library()


def test_a_library_that_does_not_load_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "_C.abi3.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(_library, "LIBRARY", broken)
    monkeypatch.setenv("GEOSEG_OPS", "auto")
    with pytest.warns(GeosegWarning, match=r"does not load into torch .*install"):
        assert not load_library().loaded


def test_other_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSEG_OPS", "gpu")
    with pytest.raises(OperatorError, match="is none of auto, cuda, cpu, none"):
        load_library()


@pytest.mark.skipif(not LIBRARY.loaded, reason="native operators are absent")
def test_cuda_is_an_error_without_cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "has_kernel", lambda *_: False)
    monkeypatch.setenv("GEOSEG_OPS", "cuda")
    with pytest.raises(OperatorError, match="has no CUDA kernels"):
        load_library()


def test_none_takes_the_reference_without_a_word() -> None:
    code = "import geoseg.ops as o; print(o.LIBRARY.loaded, o.LIBRARY.reason)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "GEOSEG_OPS": "none"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False GEOSEG_OPS=none\n"


@pytest.mark.skipif(not LIBRARY.loaded, reason="native operators are absent")
def test_the_library_asks_for_no_library_of_cuda() -> None:
    # One that is missing would stop it where there is no GPU, the CPU's part too.
    done = subprocess.run(
        ["readelf", "--wide", "--dynamic", "--dyn-syms", str(_library.LIBRARY)],
        capture_output=True,
        text=True,
        check=True,
    )
    needed = [line for line in done.stdout.splitlines() if "(NEEDED)" in line]
    assert needed
    assert not [line for line in needed if "cuda" in line or "cudart" in line]
    # What torch for CPUs lacks must be allowed to be missing.
    streams = [line for line in done.stdout.splitlines() if "cuda_stream" in line]
    assert len(streams) == int(LIBRARY.cuda)
    assert all(" WEAK " in line and " UND " in line for line in streams)
