"""Builds the CUDA kernels for the emulator in tests/ops/emulation/, and calls them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "ops" / "csrc" / "cuda"
FOLDER = ROOT / "tests" / "ops" / "emulation"
SETUP = ROOT / "setup.py"
FLAGS = ("-std=c++20", "-O1", "-g1", "-Wall", "-Werror", "-Wno-unknown-pragmas")
# Undefined behaviour, memory errors and, in a program of their own, races end it.
SANITIZERS = {
    "memory": (
        "-fsanitize=address,undefined,float-cast-overflow",
        "-fno-sanitize-recover=all",
    ),
    "races": ("-fsanitize=thread",),
}
# A variable in a kernel that its threads share, as nm prints it.
SHARED = re.compile(r"^(\w+) (\w+) [bBuV] _ZZN?\w*_kernel\w+$", re.MULTILINE)
START = re.compile(r"^(\w+) \w __executable_start$", re.MULTILINE)
# File of each dtype's kernels, and its C++ type.
TYPES = {
    torch.float32: ("float", "float"),
    torch.float64: ("double", "double"),
    torch.float16: ("half", "Half"),
    torch.bfloat16: ("bfloat16", "BFloat16"),
}

Shapes = Sequence[tuple[int, int]]


class EmulationError(AssertionError):
    """The emulated kernels did something that a GPU must not do."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """The kernels of one architecture, compiled when they are first called."""

    folder: Path
    """Where they are built."""
    architecture: int
    """Compute capability that the sources are compiled for, 80 or 90."""
    order: int = 0
    """Order in which the threads of a block run: 0 ascending, 1 descending, a number
    beyond that random."""
    watch: str = "memory"
    """What ends a program: "memory" errors, or "races" of the threads of a block."""

    def forward(
        self, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
    ) -> Tensor:
        """Call the forward kernel; output (B, Q, M * D) in the value's dtype."""
        arrays = {"value": value, "locations": locations, "weights": weights}
        batch, queries, heads = locations.shape[:3]
        shape = (batch, queries, heads * value.shape[3])
        found = self._call("forward", arrays, shapes, {"output": (shape, value.dtype)})
        return found["output"]

    def backward(
        self,
        grad_output: Tensor,
        value: Tensor,
        shapes: Shapes,
        locations: Tensor,
        weights: Tensor,
        *,
        deterministic: bool = False,
    ) -> list[Tensor]:
        """Call the backward kernels; gradients as float32, or float64 for float64."""
        arrays = {"value": value, "locations": locations, "weights": weights}
        arrays["grad_output"] = grad_output
        results = {
            f"grad_{name}": (tuple(arrays[name].shape), locations.dtype)
            for name in ("value", "locations", "weights")
        }
        found = self._call(
            "backward", arrays, shapes, results, deterministic=deterministic
        )
        return [found[name] for name in results]

    def fused(
        self,
        value: Tensor,
        shapes: Shapes,
        grid: Shapes,
        offsets: Tensor,
        logits: Tensor,
    ) -> Tensor:
        """Call the fused kernel; output (B, Q, M * D) in the value's dtype."""
        arrays = {"value": value, "offsets": offsets, "logits": logits}
        batch, queries, heads = offsets.shape[:3]
        shape = (batch, queries, heads * value.shape[3])
        results = {"output": (shape, value.dtype)}
        return self._call("fused", arrays, shapes, results, grid=grid)["output"]

    def _call(
        self,
        call: str,
        arrays: dict[str, Tensor],
        shapes: Shapes,
        results: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
        *,
        grid: Shapes = (),
        deterministic: bool = False,
    ) -> dict[str, Tensor]:
        value = arrays["value"]
        places = arrays.get("locations", arrays.get("offsets"))
        assert places is not None
        # Of a float32 value, both are read as float32.
        narrow = places.dtype == value.dtype and value.dtype.itemsize == 2
        numbers = [
            *value.shape, places.shape[1], places.shape[4],
            int(deterministic), self.order, int(narrow),
        ]  # fmt: skip
        for levels in (shapes, grid):
            numbers += [len(levels), *(side for level in levels for side in level)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            request = " ".join([call, *map(str, numbers)])
            (folder / "request.txt").write_text(request)
            for key, tensor in arrays.items():
                data = tensor.contiguous().flatten().view(torch.uint8).numpy()
                (folder / f"{key}.bin").write_bytes(data.tobytes())
            run(self._driver(value.dtype), name)
            return {
                key: _read(folder / f"{key}.bin", *kind)
                for key, kind in results.items()
            }

    def _driver(self, dtype: torch.dtype) -> Path:
        """Compile the unmodified sources of a dtype, once; some ten seconds."""
        name, kind = TYPES[dtype]
        driver = self.folder / f"driver-{name}-{self.watch}"
        if not driver.exists():
            define = [f"-D__CUDA_ARCH__={self.architecture}0", f"-DGEOSEG_DTYPE={kind}"]
            kernels = SOURCES / f"ms_deform_attn_{name}.cu"
            sources = [kernels, FOLDER / "driver.cpp", SOURCES / "explain.cu"]
            build(driver, sources, *define, *SANITIZERS[self.watch])
        return driver


def build(program: Path, sources: Sequence[Path], *options: str) -> None:
    """Compile CUDA sources for the emulator, and find what their blocks share."""
    objects = compile_all(program, sources, *options)
    unnamed = program.with_suffix(".unnamed")
    _compile(["g++", *options, *objects, "-o", str(unnamed)])
    names = ["nm", "--print-size", str(unnamed)]
    symbols = subprocess.run(names, capture_output=True, text=True, check=True).stdout
    start = START.search(symbols)
    assert start is not None
    shared = [
        f"{int(place, 16) - int(start[1], 16)} {int(size, 16)}\n"
        for place, size in SHARED.findall(symbols)
    ]
    Path(f"{program}.shared").write_text("".join(shared))
    unnamed.rename(program)


def build_library(library: Path) -> None:
    """Compile the operators and their launch code for tensors on the CPU; a minute."""
    options = ["-fPIC", *SANITIZERS["memory"]]
    stable_abi = re.search(r'^STABLE_ABI = "(\w+)"$', SETUP.read_text(), re.MULTILINE)
    assert stable_abi is not None
    torch_options = [f"-DTORCH_TARGET_VERSION={stable_abi[1]}"]
    torch_options += [f"-isystem{path}" for path in include_paths()]
    hosts = [SOURCES.parent / "library.cpp", SOURCES / "ms_deform_attn.cpp"]
    objects = [
        *compile_all(library, [*hosts, FOLDER / "host.cpp"], *options, *torch_options),
        *compile_all(
            library.with_suffix(".kernels"),
            sorted(SOURCES.glob("*.cu")),
            *("-D__CUDA_ARCH__=900", *options),
        ),
    ]
    folders = [f"-L{path}" for path in library_paths()]
    link = ["-shared", "-Wl,-Bsymbolic", *folders, "-ltorch", "-ltorch_cpu", "-lc10"]
    _compile(["g++", *options, *objects, *link, "-o", str(library)])


def compile_all(program: Path, sources: Sequence[Path], *options: str) -> list[str]:
    """Compile sources, two at a time; return the object files."""
    command = ["g++", *FLAGS, f"-I{FOLDER / 'include'}", *options]

    def compile_one(source: Path) -> str:
        target = f"{program}-{source.stem}.o"
        _compile([*command, "-x", "c++", "-c", str(source), "-o", target])
        return target

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, sources))


def run(program: Path, *arguments: str) -> None:
    """Run a program for the emulator.

    Raises:
        EmulationError: It ended as a GPU must not.
    """
    command = [str(program), *arguments]
    # The thread sanitizer wants its shadow where the kernel may put other things.
    if setarch := shutil.which("setarch"):
        command = [setarch, "--addr-no-randomize", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EmulationError(
            f"{program.name} ended with {done.returncode}:\n{done.stderr[-4000:]}"
        )


def _read(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    data = bytearray(path.read_bytes())
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(shape)


def _compile(command: list[str]) -> None:
    """Run a compiler; its errors are none of the kernels', and no mutant's death."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SyntaxError(done.stderr[-4000:])
