"""Validation scores what `geoseg segment` would write."""

from __future__ import annotations

from pathlib import Path

import labelled_files
import numpy as np
import pytest
import rasterio
import tiny_models
import torch
from affine import Affine
from rasters import write_raster
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)
from training_runs import (
    CLASSES,
    SPEC,
    TILE,
    made_model,
    made_scene,
    make_module,
    make_validation,
)

import geoseg
from geoseg.data.coarser import as_processed
from geoseg.data.files import open_file_scene
from geoseg.data.labelled import IGNORE, LabelledSource
from geoseg.errors import GeosegWarning, SceneError
from geoseg.evaluation.counts import Counts, count_confusion
from geoseg.grid import Window
from geoseg.inference import Predictor, PredictorConfig
from geoseg.models import load_model, read_spec
from geoseg.tiling import default_stride
from geoseg.training.fit import fit
from geoseg.training.logs import RunLog
from geoseg.training.progress import Listener
from geoseg.training.validation import Validation, predict_region, score_of


def test_confusion_and_score_are_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (50, 40)).astype(np.uint8)
    predicted = np.where(rng.random((50, 40)) < 0.6, truth, 2).astype(np.uint8)
    truth[:9] = IGNORE
    counts = count_confusion(truth, predicted, (4, 4))
    tensors = torch.from_numpy(predicted).long(), torch.from_numpy(truth).long()
    wanted = multiclass_confusion_matrix(*tensors, num_classes=4, ignore_index=IGNORE)
    assert counts.tolist() == wanted.tolist()
    score = score_of(counts, 7)
    index = multiclass_jaccard_index(*tensors, num_classes=4, ignore_index=IGNORE)
    assert score.miou == pytest.approx(float(index), rel=1e-6)
    known = truth != IGNORE
    assert score.accuracy == pytest.approx((truth == predicted)[known].mean())
    assert score.step == 7


def test_classes_that_are_nowhere_do_not_count() -> None:
    score = score_of(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), 0)
    assert score.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert np.isnan(score.iou[2])
    assert score_of(np.zeros((3, 3), np.int64), 0).miou == 0


@pytest.mark.slow
@pytest.mark.parametrize(("edge", "side"), [(0.5, 150), (0.2, 380)])
def test_a_scene_is_predicted_as_segment_writes_it(
    tmp_path: Path, edge: float, side: int
) -> None:
    folder = tiny_models.save_segmenter(tmp_path / "model", tile_size=64)
    place = Affine(edge, 0, 500000, 0, -edge, 75)
    made = made_scene("scene", side=side)
    path = write_raster(tmp_path / "scene.tif", made.image, transform=place)
    ids = np.ones((side, side), np.uint8)
    mask = write_raster(tmp_path / "mask.tif", ids, transform=place)
    geoseg.segment([path], tmp_path / "out", model=str(folder))
    with rasterio.open(tmp_path / "out" / "scene" / "classes.tif") as raster:
        written = raster.read(1)
    spec = read_spec(folder)
    config = labelled_files.data(tmp_path)
    scene = as_processed(open_file_scene("scene", path, mask, config), spec)
    predictor = Predictor(load_model(folder), spec, PredictorConfig("", "", 64))
    stride = default_stride(spec.tile_size, spec.patch_size)
    found = predict_region(predictor, scene, scene.grid.whole, stride)[2]
    ids = np.array([entry.id for entry in spec.classes], np.uint8)
    np.testing.assert_array_equal(ids[found], written)


def test_a_validation_that_lacks_a_scene_chooses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {2: ["held out"], 6: ["held out", "another"]}
    score_scene = Validation._score_scene

    def flaky(
        self: Validation, one: Predictor, scene: LabelledSource, step: int, stride: int
    ) -> Counts:
        if scene.name in lost.get(step, []):
            raise SceneError(f"{scene.name} does not answer")
        return score_scene(self, one, scene, step, stride)

    monkeypatch.setattr(Validation, "_score_scene", flaky)
    module = make_module(steps=6, validate_every=2)
    log = RunLog(tmp_path, 1, CLASSES, Listener())
    validation = make_validation(tmp_path, log, module.config)
    with pytest.raises(SceneError, match="does not answer"):
        fit(module, tmp_path, log=log, validation=validation)
    validation = make_validation(tmp_path, log, module.config)
    validation.on_bad = "skip"
    with pytest.warns(GeosegWarning) as told:
        outcome = fit(module, tmp_path, log=log, validation=validation)
    last = str(told[-1].message)
    assert last.startswith("step 6: 2 of 2 validation scenes could not be read")
    assert outcome.best_step == 4
    assert validation.misses == 0
    rows = (tmp_path / "validation.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["2", "4"]


def test_scenes_smaller_than_a_tile_are_predicted() -> None:
    predictor = Predictor(made_model(), SPEC, PredictorConfig("", "", TILE))
    scene = made_scene("small", side=40)
    image, labels, found = predict_region(predictor, scene, scene.grid.whole, 32)
    assert found.shape == (40, 40)
    assert np.array_equal(image, scene.image)
    assert np.array_equal(labels, scene.labels)


def test_parts_of_a_scene_are_predicted_as_the_whole_of_it() -> None:
    predictor = Predictor(made_model(), SPEC, PredictorConfig("", "", TILE))
    scene = made_scene("parts", side=130)
    _, _, whole = predict_region(predictor, scene, scene.grid.whole, 32)
    for window in (Window(0, 0, 70, 130), Window(70, 25, 60, 90)):
        image, labels, found = predict_region(predictor, scene, window, 32)
        rows, cols = window.slices
        assert np.array_equal(found, whole[rows, cols])
        assert np.array_equal(image, scene.image[:, rows, cols])
        assert np.array_equal(labels, scene.labels[rows, cols])
