"""`geoseg info` names what a bug report needs."""

from __future__ import annotations

import platform

import rasterio
import torch
from commands import geoseg

from geoseg import __version__


def test_info_names_versions_devices_operators_drivers_models_and_recipes() -> None:
    result = geoseg("info")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    titles = ["Versions", "Devices", "Operators", "GDAL drivers", "Models", "Recipes"]
    assert [line for line in lines if line in titles] == titles
    assert f"geoseg {__version__}" in lines
    assert f"python {platform.python_version()}" in lines
    assert f"torch {torch.__version__}" in lines
    assert f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}" in lines
    assert "COG yes (rasterio)" in lines
    assert "GPKG yes (rasterio, pyogrio)" in lines
    assert any(line.startswith("ms_deform_attn ") for line in lines)
    assert any(line.startswith("cuda") for line in lines)
    assert any(line.startswith("builtin ") for line in lines)
    assert "pipelines segment, train-builtin" in lines
