"""Lightning checkpoints that are accepted where a model folder is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models

from geoseg.errors import ModelError
from geoseg.models.checkpoint import checkpoint_payload
from geoseg.models.export import declare

RESOLUTION = 0.5


def test_payload_is_plain_and_says_what_a_folder_says(tmp_path: Path) -> None:
    model = tiny_models.segmenter()
    with pytest.raises(ModelError, match="call declare on it first"):
        checkpoint_payload(model)
    declare(
        model,
        classes=tiny_models.CLASSES,
        mean=tiny_models.MEAN,
        std=tiny_models.STD,
        tile_size=64,
        resolution=RESOLUTION,
    )
    payload = checkpoint_payload(model)
    assert json.loads(json.dumps(payload)) == payload
    folder = tiny_models.save_segmenter(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    declared = config.pop("geoseg")
    assert payload["config"] == config
    assert payload["declaration"] == declared | {
        "mean": list(tiny_models.MEAN),
        "std": list(tiny_models.STD),
    }
