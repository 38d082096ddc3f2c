"""The native operators under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geoseg.ops import LIBRARY

ROOT = Path(__file__).parents[2]
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -g1"
SOURCES = ("geoseg", "ops", "configs", "pipelines", "tests", "pyproject.toml")


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARY.loaded, reason="native operators are absent")
def test_no_byte_is_read_or_written_out_of_bounds(tmp_path: Path) -> None:
    for name in (*SOURCES, "setup.py", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, tmp_path / name)
    environment = {**os.environ, "GEOSEG_CXXFLAGS": FLAGS, "GEOSEG_OPS": "cpu"}
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(build, cwd=tmp_path, env=environment, check=True)
    library = (tmp_path / "geoseg" / "_C.abi3.so").read_bytes()
    assert b"__asan_report_load" in library
    assert b"__ubsan_handle" in library

    environment |= {
        # The interpreter is not built with them, so they must be there before it.
        "LD_PRELOAD": " ".join(map(_runtime, ("asan", "ubsan", "stdc++"))),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(tmp_path),
    }
    code = "import geoseg.ops; print(geoseg.ops.LIBRARY.reason)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == str(tmp_path / "geoseg" / "_C.abi3.so")
    tests = [f"tests/ops/test_native{name}.py" for name in ("", "_sizes", "_fused")]
    tests.append("tests/test_blending_native.py")
    # Sanitizers need memory of their own.
    chosen = ["-m", "not slow", "-k", "not memory_is_bounded"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *chosen, *tests],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def _runtime(name: str) -> str:
    """Path of a library of the compiler's own."""
    compiler = os.environ.get("CXX", "g++").split()[0]
    done = subprocess.run(
        [compiler, f"-print-file-name=lib{name}.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
