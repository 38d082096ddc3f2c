"""Builds the native operators and copies the recipes; the rest is in pyproject.toml."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
RECIPES = ("configs", "pipelines")
SOURCES = Path("ops") / "csrc"

# torch's stable ABI as of 2.10: one library for that torch and all newer ones.
STABLE_ABI = "0x020a000000000000"
# Compute capabilities: A100, H100 and B200; newer ones compile the last one's PTX when
# they load it. GEOSEG_CUDA_ARCHS names others, "75 80".
CUDA_ARCHITECTURES = "80 90 100"
# Python's limited API as of 3.11: one wheel for that Python and all newer ones.
WHEEL_TAG = "cp311"


class BuildWithRecipes(build_py):
    """A build that carries configs/ and pipelines/ as `geoseg/_recipes/`.

    A checkout (and an editable install of it) reads the top-level folders instead.
    """

    def run(self) -> None:
        """Copy the Python modules, then the YAML files."""
        super().run()
        if self.editable_mode:
            return
        for folder in RECIPES:
            target = Path(self.build_lib) / "geoseg" / "_recipes" / folder
            # ^ emptied first: build/lib survives builds, a deleted recipe must not.
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(
                ROOT / folder, target, ignore=shutil.ignore_patterns("[!_]*.py*", ".*")
            )


def native() -> dict[str, Any]:
    """Return what setup() needs to build the operators; nothing without a compiler."""
    if os.environ.get("GEOSEG_OPS") == "none":
        return {}
    missing = _missing()
    if missing is not None:
        if os.environ.get("GEOSEG_OPS") in ("cpu", "cuda"):
            sys.exit(f"GEOSEG_OPS asks for native operators, and {missing}")
        sys.stderr.write(f"geoseg: no native operators, as {missing}\n")
        return {}
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    toolkit = _toolkit()
    flags = os.environ.get("GEOSEG_CXXFLAGS", "").split()
    extension: Extension = CppExtension(
        "geoseg._C",
        _sources(with_cuda=toolkit is not None),
        depends=[
            "setup.py",
            *sorted(str(p) for p in SOURCES.glob("**/*") if p.suffix in (".h", ".cuh")),
        ],
        extra_compile_args={
            "cxx": [
                "-O3",
                "-g0",
                "-std=c++20",
                "-fvisibility=hidden",
                # Nobody reads floating-point exceptions, and to keep their order would
                # keep conditional expressions out of vectors.
                "-fno-trapping-math",
                # GCC notes that 64-byte vectors are passed otherwise without AVX-512;
                # ours are passed to inlined functions only.
                "-Wno-psabi",
                f"-DTORCH_TARGET_VERSION={STABLE_ABI}",
                *flags,
            ],
            "nvcc": _nvcc_flags(),
        },
        extra_link_args=[*flags, *_cuda_link_flags(toolkit)],
        py_limited_api=True,
    )
    return {
        "ext_modules": [extension],
        "cmdclass": {"build_ext": BuildExtension.with_options(use_ninja=False)},
        "options": {"bdist_wheel": {"py_limited_api": WHEEL_TAG}},
    }


def _sources(*, with_cuda: bool) -> list[str]:
    """List what is compiled: all of ops/csrc, or all but what needs CUDA."""
    found = [p for p in SOURCES.glob("**/*") if p.suffix in (".cpp", ".cu")]
    return sorted(str(p) for p in found if with_cuda or "cuda" not in p.parts)


def _toolkit() -> Path | None:
    """Find the folder of CUDA's libraries for linking; None builds for CPUs only.

    GEOSEG_OPS=cpu asks for that; with cuda, a missing nvcc is an error.
    """
    asked = os.environ.get("GEOSEG_OPS")
    if asked == "cpu":
        return None
    try:
        return _ask_nvcc()
    except (OSError, LookupError) as error:
        if asked == "cuda":
            sys.exit(f"GEOSEG_OPS=cuda asks for CUDA kernels, and nvcc fails: {error}")
        sys.stderr.write(f"geoseg: no CUDA kernels, as nvcc fails: {error}\n")
        return None


def _ask_nvcc() -> Path:
    """Ask nvcc where its libraries are: the one on PATH may be a wrapper of another."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if torch.version.cuda is None:
        raise LookupError("this torch is for CPUs only")
    if CUDA_HOME is None:
        raise LookupError("there is none; set CUDA_HOME to the folder of the toolkit")
    nvcc = str(Path(CUDA_HOME) / "bin" / "nvcc")
    found = re.search(r"release (\d+)[.]\d+", _output_of(nvcc, "--version"))
    # torch refuses to build with another major version, the CPU's part too.
    if found is not None and found[1] != torch.version.cuda.split(".")[0]:
        version = found[0].removeprefix("release ")
        raise LookupError(
            f"it is of CUDA {version}, torch of CUDA {torch.version.cuda}; set "
            "CUDA_HOME to a toolkit of torch's, or install a torch of this one"
        )
    told = _output_of(nvcc, "--dryrun", "-x", "cu", "/dev/null", *_nvcc_targets())
    for folder in re.findall(r'"-L([^"]+)"', told):
        if (Path(folder) / "libcudart_static.a").is_file():
            return Path(folder).resolve()
    raise LookupError("it names no folder with libcudart_static.a")


def _output_of(*command: str) -> str:
    """Return all that a program says; LookupError if it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    told = done.stdout + done.stderr
    if done.returncode != 0:
        raise LookupError(
            f"{' '.join(told.split())} (GEOSEG_CUDA_ARCHS names the GPUs to build for)"
        )
    return told


def _nvcc_targets() -> list[str]:
    """Flags for nvcc that name the GPUs."""
    names = os.environ.get("GEOSEG_CUDA_ARCHS", CUDA_ARCHITECTURES).split()
    targets = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
    return [*targets, f"-gencode=arch=compute_{names[-1]},code=compute_{names[-1]}"]


def _nvcc_flags() -> list[str]:
    """Flags for nvcc; those of torch's own come on top."""
    return [
        "-O3",
        "-std=c++20",
        "-Xcompiler=-fvisibility=hidden",
        # Architectures side by side, one for each processor.
        "-t=0",
        *_nvcc_targets(),
    ]


def _cuda_link_flags(toolkit: Path | None) -> list[str]:
    """Flags that leave no library of CUDA's to be missed where there is no GPU.

    The runtime is linked statically and finds the driver when it is first called.
    torch's CUDA library is reached through libtorch, which every torch has.
    """
    if toolkit is None:
        return []
    runtime = ["-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    hidden = ["-Wl,--exclude-libs,ALL", "-Wl,--no-as-needed", "-ltorch"]
    return [f"-L{toolkit}", *runtime, *hidden]


def _missing() -> str | None:
    """Say what the build lacks, None if nothing."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch is not installed where geoseg is built"
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.cpp"
        source.write_text("#include <cstdint>\nint answer() { return 42; }\n")
        flags = ["-std=c++20", "-c", str(source), "-o", f"{source}.o"]
        command = [*compiler.split(), *flags]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return f"{compiler.split()[0]} compiles no C++20"
    return None


found = native()
commands = {"build_py": BuildWithRecipes, **found.pop("cmdclass", {})}
setup(cmdclass=commands, **found)
