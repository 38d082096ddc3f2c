"""The CUDA launch code without a GPU: how it brings tensors to the kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulated_cuda import FOLDER, ROOT, build_library


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="g++ is absent")
def test_launch_code_serves_tensors_as_they_come(tmp_path: Path) -> None:
    library = tmp_path / "emulated.so"
    build_library(library)
    environment = {
        **os.environ,
        "GEOSEG_EMULATED": str(library),
        # The operators come from there.
        "GEOSEG_OPS": "none",
        "LD_PRELOAD": " ".join(map(_runtime, ("asan", "ubsan", "stdc++"))),
        # What is never written must not look like zeros by chance.
        "ASAN_OPTIONS": f"detect_leaks=0:max_malloc_fill_size={1 << 30}",
        "PYTHONPATH": str(ROOT),
    }
    tests = str(FOLDER / "check_launch.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def _runtime(name: str) -> str:
    """Path of a library of the compiler's own."""
    done = subprocess.run(
        ["g++", f"-print-file-name=lib{name}.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
