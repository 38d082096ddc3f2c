"""The full preset with random weights runs one tile of 720 x 720 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from geoseg.inference import Predictor, PredictorConfig, TileInput
from geoseg.models import build_mask2former, load_model, read_spec
from geoseg.models.export import save_model
from geoseg.types import ClassInfo

PRESET = "configs/models/dinov3-vitl16-sat493m-loveda.yaml"


@pytest.mark.slow
def test_full_preset_runs_a_tile(tmp_path: Path) -> None:
    keys = yaml.safe_load((Path(__file__).parents[2] / PRESET).read_text())
    declared = keys["geoseg"]
    torch.manual_seed(0)
    classes = [
        ClassInfo(entry["id"], entry["name"], tuple(entry["color"]))
        for entry in declared.pop("classes")
    ]
    save_model(
        build_mask2former({**keys, "pretrained_backbone": None}),
        tmp_path,
        classes=classes,
        **declared,
    )
    spec = read_spec(tmp_path)
    assert (spec.tile_size, spec.resolution) == (720, 0.3)
    assert [entry.id for entry in spec.classes] == list(range(1, 8))
    assert (spec.mean, spec.std) == ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
    config = PredictorConfig(str(tmp_path), spec.weights_sha256, spec.tile_size)
    predictor = Predictor(load_model(tmp_path), spec, config)
    (tmp_path / "model.safetensors").unlink()  # 0.7 GB that pytest would keep
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (3, 720, 720), np.uint8)
    (logits,) = predictor.predict([TileInput(values, np.ones((720, 720), bool))], 255.0)
    assert logits.shape == (7, 180, 180)
    assert logits.dtype == np.float16
    np.testing.assert_allclose(np.exp(logits.astype(np.float64)).sum(0), 1.0, atol=5e-3)
    assert np.ptp(logits) > 0
