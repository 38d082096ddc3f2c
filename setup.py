"""Builds the native operators and copies the recipes; the rest is in pyproject.toml."""

from __future__ import annotations

import os
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

    extension: Extension = CppExtension(
        "geoseg._C",
        sorted(str(path) for path in SOURCES.glob("**/*.cpp")),
        depends=["setup.py", *sorted(str(path) for path in SOURCES.glob("**/*.h"))],
        extra_compile_args=[
            "-O3",
            "-g0",
            "-std=c++20",
            "-fvisibility=hidden",
            # Nobody reads floating-point exceptions, and to keep their order would keep
            # conditional expressions out of vectors.
            "-fno-trapping-math",
            # GCC notes that 64-byte vectors are passed otherwise without AVX-512; ours
            # are passed to inlined functions only.
            "-Wno-psabi",
            f"-DTORCH_TARGET_VERSION={STABLE_ABI}",
            *os.environ.get("GEOSEG_CXXFLAGS", "").split(),
        ],
        extra_link_args=os.environ.get("GEOSEG_CXXFLAGS", "").split(),
        py_limited_api=True,
    )
    return {
        "ext_modules": [extension],
        "cmdclass": {"build_ext": BuildExtension.with_options(use_ninja=False)},
        "options": {"bdist_wheel": {"py_limited_api": WHEEL_TAG}},
    }


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
