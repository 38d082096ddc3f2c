"""Copies the recipes into the built package; everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
RECIPES = ("configs", "pipelines")


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


setup(cmdclass={"build_py": BuildWithRecipes})
