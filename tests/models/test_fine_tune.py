"""A model that starts from the weights of another one of its kind."""

from __future__ import annotations

import dataclasses
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from stubs import save_stub

from geoseg.errors import GeosegWarning, ModelError
from geoseg.models import build_mask2former, read_spec
from geoseg.models.fine_tune import start_from, warn_of_other_input

NAMES = [info.name for info in tiny_models.CLASSES]
HEAD = "class_predictor.weight", "class_predictor.bias"


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Save a model; return its weights before they were rounded to a file's."""
    weights = tiny_models.segmenter(seed=5).state_dict()
    tiny_models.save_segmenter(folder, seed=5)
    return weights


def test_all_weights_are_taken_and_the_model_answers_alike(tmp_path: Path) -> None:
    theirs = stored(tmp_path)
    model = tiny_models.segmenter(seed=8)
    result = start_from(model, str(tmp_path), NAMES)
    assert result.share == 1.0
    assert not result.left
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=2e-3, atol=1e-4)


def test_rows_of_the_class_head_go_by_the_names_of_classes(tmp_path: Path) -> None:
    theirs = stored(tmp_path)
    model = tiny_models.segmenter(seed=8, num_labels=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, str(tmp_path), ["road", "sea", "water"])
    road, water, none = NAMES.index("road"), NAMES.index("water"), len(NAMES)
    for name in HEAD:
        after = model.state_dict()[name]
        torch.testing.assert_close(
            after[[0, 2, 3]], theirs[name][[road, water, none]], rtol=2e-3, atol=1e-4
        )
        assert torch.equal(after[1], before[name][1]), "nobody knows the sea"


def test_what_has_another_shape_stays_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(tmp_path)
    model = tiny_models.segmenter(seed=8, num_queries=5)
    with caplog.at_level(logging.INFO, "geoseg"):
        result = start_from(model, str(tmp_path), ["road", "a", "b", "c"])
    name = "model.transformer_module.queries_embedder.weight"
    assert result.left[name] == "[5, 32] here, [12, 32] there"
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith(f"the model starts from {tmp_path}: ")
    assert told[-1] == f"classes that {tmp_path} knows: road"


def test_models_of_another_kind_are_refused(tmp_path: Path) -> None:
    stored(tmp_path / "same")
    save_stub(tmp_path / "stub", kind="levels")
    model = tiny_models.segmenter(seed=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match="start_from needs a model that geoseg train"):
        start_from(model, str(tmp_path / "stub"), NAMES)
    with pytest.raises(ModelError, match=r"has no config\.json"):
        start_from(model, str(tmp_path), NAMES)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"num_attention_heads": 4}, "model.num_attention_heads 2 -> 4"),
        ({"activation_function": "gelu"}, "model.activation_function relu -> gelu"),
        (
            {
                "backbone_config": tiny_models.adapter_keys(
                    backbone_config=tiny_models.vit_keys(rope_theta=10.0)
                )
            },
            "model.backbone_config.backbone_config.rope_theta 100.0 -> 10.0",
        ),
    ],
)
def test_equal_shapes_that_mean_something_else_are_refused(
    tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    stored(tmp_path)
    model = tiny_models.segmenter(seed=8, **changes)
    with pytest.raises(ModelError, match=re.escape(difference)):
        start_from(model, str(tmp_path), NAMES)


def test_settings_of_the_loss_stay_and_unknown_classes_are_told(tmp_path: Path) -> None:
    stored(tmp_path)
    model = build_mask2former(tiny_models.preset(no_object_weight=0.9))
    with pytest.warns(GeosegWarning, match="knows none of the classes"):
        start_from(model, str(tmp_path), ["a", "b", "c", "d"])
    weights = model.state_dict()["criterion.empty_weight"]
    assert weights.tolist() == pytest.approx([1, 1, 1, 1, 0.9])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"mean": (0.431, 0.41, 0.296), "resolution": 0.6}, None),
        ({"resolution": None}, None),
        ({"mean": (0.485, 0.456, 0.406)}, r"mean is \[0\.485, 0\.456, 0\.406\], not"),
        ({"std": (0.2, 0.2, 0.2)}, r"data\.std is"),
        ({"resolution": 10.0}, r"resolution is 10 m, not 0\.5\)"),
    ],
)
def test_other_pixels_than_the_start_knows_are_told(
    tmp_path: Path, changes: dict[str, Any], told: str | None
) -> None:
    tiny_models.save_segmenter(tmp_path)
    spec = dataclasses.replace(read_spec(tmp_path), **changes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_other_input(str(tmp_path), spec)
    assert [str(one.message) for one in caught if told is None] == []
    if told is not None:
        assert re.search(told, str(caught[0].message))
