"""Every module imports alone; imports point one way; `import geoseg` is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "geoseg"

# Lower numbers depend on none of the higher ones (docs/architecture.md).
LAYERS = {
    "errors": 0,
    "types": 0,
    "grid": 1,
    "tiling": 1,
    "config": 1,
    "layout": 1,
    "_conversion": 1,
    "_heap": 1,
    "ops": 2,
    "_plain_c": 2,
    "blending": 2,
    "inference": 3,
    "vectorize": 3,
    "io": 3,
    "models": 3,
    "data": 3,
    "identity": 4,
    "graph": 4,
    "_lifeline": 4,
    "_processes": 4,
    "cluster": 4,
    "clusters": 4,
    "finish": 4,
    "generalizing": 4,
    "scoring": 4,
    "counting": 4,
    "admission": 4,
    "stopping": 4,
    "tasks": 4,
    "scene_run": 4,
    "stream": 4,
    "archive": 5,
    "discovery": 5,
    "training": 5,
    "evaluation": 5,
    "explain": 5,
    "preview": 5,
    "reporting": 5,
    "pipelines": 6,
    "cli": 7,
    "__main__": 8,
}
PURE = (
    *("errors", "types", "grid", "tiling", "config", "layout"),
    *("_conversion", "_heap"),
)
HEAVY = ("torch", "rasterio", "osgeo", "fiona", "pyogrio", "dask", "transformers")


def modules() -> list[str]:
    """Return the dotted names of all modules of the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return [name.removesuffix(".__init__") for name in dotted]


def imported_names(path: Path) -> set[str]:
    """Return the dotted names that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(dotted: str) -> str | None:
    """Return the part of geoseg that a dotted name belongs to, if any."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "geoseg" and len(parts) > 1 else None


def run(code: str) -> str:
    """Run code in a fresh interpreter away from the checkout; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_point_to_lower_layers_only(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in LAYERS, f"{own} has no place in the layers"
    for name in imported_names(path):
        part = layer_of(name)
        if part in LAYERS and part != own:
            assert LAYERS[part] <= LAYERS[own], f"{path}: {name}"


@pytest.mark.parametrize("part", PURE)
def test_pure_modules_import_no_heavy_library(part: str) -> None:
    path = PACKAGE / f"{part}.py"
    if path.exists():
        heavy = {name.split(".")[0] for name in imported_names(path)} & set(HEAVY)
        assert not heavy


def test_importing_geoseg_loads_nothing_heavy() -> None:
    loaded = run(
        "import sys, geoseg, geoseg.config, geoseg.errors, geoseg.types;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_every_module_imports_alone() -> None:
    # One interpreter, and a fork for each module: loading torch sixty times would take
    # minutes. The parent loads the libraries only, nothing of geoseg.
    code = f"""
import contextlib, importlib, os, sys, traceback
for module, name in {library_imports()!r}:
    with contextlib.suppress(ImportError, AttributeError):
        getattr(importlib.import_module(module), name, None)
assert not [name for name in sys.modules if name.startswith("geoseg")]
failed = []
for name in {modules()!r}:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(f"cannot be imported alone: {{failed}}" if failed else 0)
"""
    run(code)


def library_imports() -> list[tuple[str, str]]:
    """Return (module, name) of all that the package's modules import from libraries."""
    found: set[tuple[str, str]] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                found |= {(alias.name, "") for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                found |= {(node.module, alias.name) for alias in node.names}
    return sorted(pair for pair in found if pair[0].split(".")[0] != "geoseg")
