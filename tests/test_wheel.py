"""A built wheel runs without the checkout, from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from rasters import write_raster
from running import smooth_image

from geoseg.ops import LIBRARY

ROOT = Path(__file__).parents[1]
SOURCES = ("geoseg", "ops", "configs", "pipelines", "pyproject.toml", "setup.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is left in the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for name in (*SOURCES, "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "_recipes", "*.so")
            shutil.copytree(ROOT / name, tree / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, tree / name)
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(tree)],
        check=True,
    )
    return next(folder.glob("geoseg-*.whl"))


@pytest.mark.slow
def test_a_wheel_carries_every_recipe_and_the_model(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("configs", "pipelines"):
        for path in (ROOT / folder).rglob("*.yaml"):
            assert f"geoseg/_recipes/{path.relative_to(ROOT).as_posix()}" in names
    for path in (ROOT / "geoseg" / "models" / "builtin").glob("[!._]*"):
        assert f"geoseg/models/builtin/{path.name}" in names
    assert "geoseg/py.typed" in names
    assert "geoseg/evaluation/page.html.jinja" in names
    if LIBRARY.loaded:
        assert "geoseg/_C.abi3.so" in names
        assert "-cp311-abi3-" in wheel.name
    assert not [name for name in names if name.startswith(("tests", "configs"))]


@pytest.mark.slow
def test_without_a_compiler_it_installs_and_says_so_once(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in (*SOURCES, "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "_recipes", "*.so")
            shutil.copytree(ROOT / name, tree / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, tree / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    environment = {**os.environ, "CC": "/bin/false", "CXX": "/bin/false"}
    environment.pop("GEOSEG_OPS", None)
    install = [sys.executable, "-m", "pip", "install", *options]
    site = tmp_path / "site"
    subprocess.run(
        [*install, "--target", str(site), str(tree)], env=environment, check=True
    )
    code = (
        "import torch, geoseg.ops as ops; r = torch.rand; print(ops.__file__);"
        "print(ops.ms_deform_attn(r(1, 1, 1, 1), [(1, 1)], r(1, 1, 1, 1, 1, 2),"
        " r(1, 1, 1, 1, 1)).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(site))
    assert done.stderr.count("GeosegWarning") == 1
    assert "installed where no C++ compiler is" in done.stderr


@pytest.mark.slow
def test_a_wheel_runs_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    empty = tmp_path / "empty"
    empty.mkdir()
    scene = write_raster(tmp_path / "scene.tif", smooth_image(96, 96))
    code = (
        "import sys, geoseg, geoseg.config as c; print(geoseg.__file__);"
        "print(c.recipes()); print(c.pipeline_names());"
        "[record] = geoseg.segment(sys.argv[1], 'out', tile_size=64, workers=1,"
        "    set=['cluster.timeout=120']);"
        "print(sum(entry.pixels for entry in record.classes))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(scene)],
        cwd=empty,
        # Before the editable install that the tests themselves run from.
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    package, recipes, known, pixels = done.stdout.splitlines()
    assert Path(package).is_relative_to(site)
    assert Path(recipes) == site / "geoseg" / "_recipes"
    assert "segment" in known
    assert int(pixels) == 48 * 48  # from 0.5 m to the 1 m of the built-in model
    assert [path.name for path in empty.iterdir()] == ["out"]
