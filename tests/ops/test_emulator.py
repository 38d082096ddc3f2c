"""The emulator of GPUs itself: it must see what a GPU would not forgive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from emulated_cuda import FOLDER, SANITIZERS, EmulationError, build, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="g++ is absent"),
]

# A fault of faults.cpp, who sees it, and what is said.
FAULTS = {
    ("unaligned_vector", "memory"): "misaligned address",
    ("beyond_the_end", "memory"): "heap-buffer-overflow",
    ("unaligned_atomic", "memory"): "a vector of atomics is not aligned",
    ("atomic_beyond_the_end", "memory"): "an atomic outside the memory for atomics",
    ("lost_atomic", "memory"): "use-after-poison",
    ("lost_atomic", "races"): "data race",
    ("nan_to_integer", "memory"): "nan is outside the range of representable values",
    ("a_lane_leaves", "memory"): "a lane has left that others wait for",
    ("lanes_part", "memory"): "lanes of a warp wait in different places",
    ("narrow_mask", "memory"): "a mask names less than the whole warp",
    ("nothing_written", "memory"): "AddressSanitizer",
    ("race", "races"): "data race",
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    for watch, flags in SANITIZERS.items():
        build(folder / watch, [FOLDER / "faults.cpp"], "-D__CUDA_ARCH__=900", *flags)
    return folder


@pytest.mark.parametrize(("fault", "watch"), FAULTS)
def test_what_a_gpu_does_not_forgive_ends_the_program(
    programs: Path, fault: str, watch: str
) -> None:
    with pytest.raises(EmulationError, match=FAULTS[fault, watch]):
        run(programs / watch, fault)


@pytest.mark.parametrize("watch", SANITIZERS)
def test_what_is_right_passes(programs: Path, watch: str) -> None:
    run(programs / watch, "no_race")
