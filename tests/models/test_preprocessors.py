"""How pixels become input: what a folder's preprocessor declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from model_folders import edit, one_line_error
from transformers import (
    AutoImageProcessor,
    MobileViTConfig,
    MobileViTForSemanticSegmentation,
    MobileViTImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

from geoseg.errors import GeosegWarning
from geoseg.models import read_spec


def test_missing_preprocessor_is_told(ours: Path) -> None:
    (ours / "preprocessor_config.json").unlink()
    with pytest.warns(GeosegWarning, match=r"no preprocessor_config\.json"):
        spec = read_spec(ours)
    assert (spec.mean, spec.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"do_normalize": False}, ((0.0,) * 3, (1.0,) * 3, 255.0)),
        ({"image_mean": [0.5], "image_std": [0.25]}, ((0.5,) * 3, (0.25,) * 3, 255.0)),
        ({"do_rescale": False}, (tiny_models.MEAN, tiny_models.STD, 1.0)),
        ({"rescale_factor": 1e-4}, (tiny_models.MEAN, tiny_models.STD, 1e4)),
    ],
)
def test_preprocessors_are_honoured(
    ours: Path, changes: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    declared = json.loads((ours / "config.json").read_text())["geoseg"]
    del declared["scale"]
    edit(ours / "config.json", geoseg=declared)
    edit(ours / "preprocessor_config.json", **changes)
    spec = read_spec(ours)
    assert (spec.mean, spec.std) == expected[:2]
    assert dict(spec.scale) == pytest.approx({"uint8": expected[2]})


def test_a_processor_that_wants_bgr_gets_it(tmp_path: Path) -> None:
    MobileViTForSemanticSegmentation(
        MobileViTConfig(
            hidden_sizes=[8, 8, 8],
            neck_hidden_sizes=[8] * 7,
            aspp_out_channels=8,
            num_attention_heads=2,
        )
    ).save_pretrained(tmp_path)
    MobileViTImageProcessor(do_flip_channel_order=True).save_pretrained(tmp_path)
    spec = read_spec(tmp_path)
    assert spec.bands == ("blue", "green", "red")
    # It names no mean, so it subtracts none.
    assert (spec.mean, spec.std) == ((0.0,) * 3, (1.0,) * 3)


def test_means_that_do_not_fit_the_bands(ours: Path) -> None:
    edit(ours / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3, 0.4])
    assert "3 bands, but 4 means" in one_line_error(lambda: read_spec(ours))


def test_models_of_other_bands_name_them(tmp_path: Path) -> None:
    SegformerForSemanticSegmentation(
        SegformerConfig(
            depths=[1] * 4,
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            num_channels=4,
        )
    ).save_pretrained(tmp_path)
    SegformerImageProcessor(image_mean=[0.1] * 4, image_std=[0.2] * 4).save_pretrained(
        tmp_path
    )
    assert read_spec(tmp_path).bands == ("band 1", "band 2", "band 3", "band 4")


def test_hugging_faces_processor_loads_from_our_folder(ours: Path) -> None:
    processor = AutoImageProcessor.from_pretrained(ours)
    assert type(processor).__name__.startswith("Mask2FormerImageProcessor")
