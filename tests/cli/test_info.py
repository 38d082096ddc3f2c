"""`geoseg info` names what a bug report needs."""

from __future__ import annotations

import platform
from pathlib import Path

import rasterio
import tiny_models
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
    assert (
        "pipelines evaluate, refine-builtin, segment, train-builtin, train-loveda"
    ) in lines


def test_info_tells_of_the_model_asked_for(tmp_path: Path) -> None:
    folder = tiny_models.save_segmenter(tmp_path / "mine")
    result = geoseg("info", "--model", str(folder))
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "classes 3 water, 1 land, 7 road, 254 roof" in lines
    assert not any(line.startswith("builtin ") for line in lines)
    missing = geoseg("info", "--model", str(tmp_path / "no.ckpt"))
    assert missing.exit_code == 2
    assert "there is no checkpoint" in missing.stderr
