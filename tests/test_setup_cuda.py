"""What a build says of an nvcc that cannot serve it, and whether it goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which(os.environ.get("CXX", "c++").split()[0]),
        reason="native operators are absent: no compiler",
    ),
]

# Knows two architectures, and where its libraries are.
NVCC = """#!/bin/sh
case "$*" in
*--version*) echo "Cuda compilation tools, release {version}, V{version}.99" ;;
*compute_100*) echo "nvcc fatal   : Unsupported gpu architecture" >&2; exit 1 ;;
*) echo '#$ LIBRARIES=  "-L{folder}"' >&2 ;;
esac
"""
# As setup.py is called, by a torch for CUDA 13.
CODE = (
    "import runpy, sys, torch; torch.version.cuda = '13.0'; "
    "sys.argv = ['setup.py', '--name']; "
    "runpy.run_path('setup.py', run_name='__main__')"
)


def configure(
    tmp_path: Path, version: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(NVCC.format(version=version, folder=tmp_path))
    nvcc.chmod(0o755)
    (tmp_path / "libcudart_static.a").touch()
    base = {key: value for key, value in os.environ.items() if key != "GEOSEG_OPS"}
    return subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        env={**base, "CUDA_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nvcc_of_another_cuda_than_torch_builds_for_cpus(tmp_path: Path) -> None:
    done = configure(tmp_path, "12.4", GEOSEG_CUDA_ARCHS="80")
    assert done.returncode == 0, done.stderr
    assert "no CUDA kernels, as nvcc fails: it is of CUDA 12.4" in done.stderr
    assert "torch of CUDA 13.0" in done.stderr


def test_nvcc_that_knows_not_all_gpus_builds_for_cpus(tmp_path: Path) -> None:
    done = configure(tmp_path, "13.0")
    assert done.returncode == 0, done.stderr
    assert "Unsupported gpu architecture" in done.stderr
    assert "GEOSEG_CUDA_ARCHS" in done.stderr


@pytest.mark.parametrize(("version", "archs"), [("12.4", "80"), ("13.0", "80 100")])
def test_either_is_an_error_where_cuda_is_asked_for(
    tmp_path: Path, version: str, archs: str
) -> None:
    done = configure(tmp_path, version, GEOSEG_OPS="cuda", GEOSEG_CUDA_ARCHS=archs)
    assert done.returncode != 0
    assert "GEOSEG_OPS=cuda asks for CUDA kernels, and nvcc fails" in done.stderr


def test_nvcc_that_can_serve_is_taken_without_a_word(tmp_path: Path) -> None:
    done = configure(tmp_path, "13.0", GEOSEG_CUDA_ARCHS="80 90")
    assert done.returncode == 0, done.stderr
    assert "no CUDA kernels" not in done.stderr
