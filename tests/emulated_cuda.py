"""Builds the CUDA kernels for the emulator in tests/ops/emulation/, and calls them."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "ops" / "csrc" / "cuda"
FOLDER = ROOT / "tests" / "ops" / "emulation"
# Undefined behaviour and memory errors end the program.
FLAGS = (
    *("-std=c++20", "-O1", "-g1", "-Wall", "-Werror", "-Wno-unknown-pragmas"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
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
    descending: bool = False
    """Order in which the lanes of a block run."""

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
            int(deterministic), int(self.descending), int(narrow),
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
            _run([str(self._driver(value.dtype)), name])
            return {
                key: _read(folder / f"{key}.bin", *kind)
                for key, kind in results.items()
            }

    def _driver(self, dtype: torch.dtype) -> Path:
        """Compile the unmodified sources of a dtype, once; some ten seconds."""
        name, kind = TYPES[dtype]
        driver = self.folder / f"driver-{name}"
        if driver.exists():
            return driver
        define = f"-D__CUDA_ARCH__={self.architecture}0"
        include = f"-I{FOLDER / 'include'}"

        def compile_one(source: Path, *options: str) -> str:
            target = str(self.folder / f"{name}-{source.stem}.o")
            command = ["g++", *FLAGS, define, include, *options, "-x", "c++"]
            _compile([*command, "-c", str(source), "-o", target])
            return target

        kernels = SOURCES / f"ms_deform_attn_{name}.cu"
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(compile_one, kernels),
                pool.submit(
                    compile_one, FOLDER / "driver.cpp", f"-DGEOSEG_DTYPE={kind}"
                ),
                pool.submit(compile_one, SOURCES / "explain.cu"),
            ]
            objects = [job.result() for job in jobs]
        _compile(["g++", *FLAGS, *objects, "-o", str(driver)])
        return driver


def _read(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    data = bytearray(path.read_bytes())
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(shape)


def _compile(command: list[str]) -> None:
    """Run a compiler; its errors are none of the kernels', and no mutant's death."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SyntaxError(done.stderr[-4000:])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EmulationError(
            f"{Path(command[0]).name} ended with {done.returncode}:\n"
            f"{done.stderr[-4000:]}"
        )
