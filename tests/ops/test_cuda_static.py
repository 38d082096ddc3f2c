"""The machine code of the CUDA kernels: registers, spills, loads, atomics."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import cuda_static_report
import pytest
from cuda_static_report import ARCHITECTURES, Kernel, gaps

from geoseg.ops import LIBRARY

FORWARD = (
    "_ZN6geoseg4cuda14forward_kernelIfNS0_11GivenPointsIfEENS0_5FixedILi32ELi3ELi4EEE"
    "Lb1EEEvNS0_16ForwardArgumentsIT_T0_EE"
)
BACKWARD = (
    "_ZN6geoseg4cuda15backward_kernelINS0_8BFloat16ENS0_5FixedILi64ELi1ELi4EEELb1ELb1EEE"
    "vNS0_17BackwardArgumentsIT_EE"
)


@pytest.mark.slow
@pytest.mark.skipif(
    not LIBRARY.cuda, reason="native operators are absent: those for CUDA"
)
def test_every_kernel_is_as_designed() -> None:
    script = str(Path(cuda_static_report.__file__))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Each architecture has 72 fast kernels, 32 general ones and 4 of owner.cuh.
    assert f"{len(ARCHITECTURES) * 108} kernels, 0 faults" in done.stdout


def faults(symbol: str, architecture: int, registers: int, **found: int) -> str:
    usage = {"REG": registers, "STACK": 0}
    names = {name.replace("__", "."): count for name, count in found.items()}
    kernel = Kernel(symbol, architecture, usage, Counter(names))
    return "; ".join(kernel.faults())


def test_the_report_sees_what_is_not_as_designed() -> None:
    loads = {"LDG__E__128__CONSTANT": 16}
    assert faults(FORWARD, 90, 64, **loads) == ""
    assert "more than 64 registers" in faults(FORWARD, 90, 65, **loads)
    assert "it spills" in faults(FORWARD, 90, 64, STL=1, **loads)
    assert "four 16-byte loads" in faults(FORWARD, 90, 64, LDG__E__64=16)
    vectors = {"REDG__E__ADD__F32x4__FTZ__RN__STRONG__GPU": 4}
    scalars = {"REDG__E__ADD__F32__FTZ__RN__STRONG__GPU": 16}
    assert faults(BACKWARD, 90, 64, **vectors) == ""
    assert faults(BACKWARD, 80, 64, **scalars) == ""
    assert "not 4 additions of vectors" in faults(BACKWARD, 90, 64, **scalars)


def test_the_report_sees_what_is_missing() -> None:
    forward = [Kernel(FORWARD, architecture) for architecture in ARCHITECTURES]
    missing = list(gaps(forward, []))
    assert len(missing) == len(ARCHITECTURES) * (4 * 3 * 3 * 2 - 1) + 1
    assert f"sm_{ARCHITECTURES[0]} lacks forward bfloat16 D 32 L 3" in missing
    assert not [gap for gap in missing if "forward float32 D 32 L 3" in gap]
    assert missing[-1].startswith("there is no PTX of ")
    assert not [gap for gap in gaps(forward, [ARCHITECTURES[-1]]) if "PTX" in gap]
