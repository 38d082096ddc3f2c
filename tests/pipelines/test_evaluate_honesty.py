"""What makes figures look better or worse than they are, and what is said of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from evaluations import evaluated
from labelled_rasters import CLASSES
from rasters import NORTH_UP, write_raster
from running import read_band

from geoseg.clusters.config import ClusterConfig
from geoseg.errors import ConfigError
from geoseg.evaluation.results import Resampling, RunResult, notes_of
from geoseg.evaluation.scene import ScoreSettings
from geoseg.pipelines.evaluate import EvaluateConfig, run
from geoseg.pipelines.segment import ModelConfig

Pixels = npt.NDArray[np.uint8]


def test_what_is_right_is_right_beside_what_is_unknown(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    perfect = shutil.copytree(masks, tmp_path / "perfect")
    made = shutil.copytree(root, tmp_path / "data")
    for name in ("north", "south"):
        mask = read_band(perfect / name / "classes.tif")
        # Labels are islands, and parts of the mask are nodata.
        labels = np.where(np.add.outer(*map(np.arange, mask.shape)) % 40 < 20, mask, 0)
        labels[mask == 255] = 1
        write_raster(made / "masks" / f"{name}.tif", labels)
    [result] = evaluated(tmp_path / "out", made, [perfect]).runs
    assert result.metrics.accuracy == 1
    assert result.counts.border.any()
    np.testing.assert_array_equal(result.metrics.boundary_iou, 1)
    mapping = {"class 4": "ignore"}
    [result] = evaluated(tmp_path / "map", made, [perfect], mapping=mapping).runs
    assert result.metrics.mean_boundary_iou == 1


def test_pixels_that_a_mapping_ignores_are_counted_and_told(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    mapping = {"class 4": "ignore"}
    evaluation = evaluated(tmp_path, root, [masks], mapping=mapping)
    [result] = evaluation.runs
    expected = sum(
        np.bincount(
            read_band(root / "masks" / f"{name}.tif")[
                read_band(masks / name / "classes.tif") == 4
            ],
            minlength=CLASSES + 1,
        )[1:]
        for name in ("north", "south")
    )
    np.testing.assert_array_equal(result.counts.uncounted, expected)
    share = int(np.sum(expected)) / int(result.counts.labelled.sum())
    assert (
        f"{np.sum(expected):,} labelled pixels ({share:.2%}) are predicted as what "
        "--map ignores: they count in no metric"
    ) in notes_of(evaluation)
    [told] = json.loads((tmp_path / "evaluation.json").read_text())["runs"]
    assert told["confusion"]["ignored"] == np.asarray(expected).tolist()


def test_a_scene_of_nothing_but_ignored_predictions_has_not_failed(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    silent = shutil.copytree(masks, tmp_path / "silent")
    path = silent / "north" / "classes.tif"
    write_raster(path, np.full_like(read_band(path), 4), nodata=255)
    mapping = {"class 4": "ignore"}
    evaluation = evaluated(tmp_path / "out", root, [silent], mapping=mapping)
    assert not evaluation.failures
    counts = evaluation.runs[0].scores["north"].counts
    assert counts.scored == 0
    np.testing.assert_array_equal(counts.uncounted, counts.labelled)


def test_runs_of_unlike_pixels_are_told_apart(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    assert not any("different parts" in note for note in same(tmp_path, root, masks))
    silent = shutil.copytree(masks, tmp_path / "silent")
    for name in ("north", "south"):
        truth = read_band(root / "masks" / f"{name}.tif")
        path = silent / name / "classes.tif"
        mask = read_band(path)
        write_raster(path, np.where(mask == truth, mask, 255), nodata=255)
    evaluation = evaluated(tmp_path / "out", root, [masks, silent])
    assert evaluation.runs[1].metrics.accuracy == 1
    [note] = [note for note in notes_of(evaluation) if "different parts" in note]
    assert f"{silent}: {evaluation.runs[1].scored_share:.1%}" in note


def test_parts_as_large_that_lie_elsewhere_are_told(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    """One run is silent where the other one speaks: the same share of all scenes."""
    silent = [shutil.copytree(masks, tmp_path / name) for name in ("one", "two")]
    truth = read_band(root / "masks" / "north.tif")
    first, second = (np.argwhere(truth == value) for value in (1, 2))
    count = min(len(first), len(second))
    for folder, places in zip(silent, (first[:count], second[:count]), strict=True):
        mask = read_band(folder / "north" / "classes.tif")
        mask[tuple(places.T)] = 255
        write_raster(folder / "north" / "classes.tif", mask, nodata=255)
    evaluation = evaluated(tmp_path / "out", root, silent)
    one, two = evaluation.runs
    assert one.scored_share == pytest.approx(two.scored_share, abs=0.005)
    [note] = [note for note in notes_of(evaluation) if "different parts" in note]
    assert "most of all in north" in note


def test_whole_masks_of_unlike_grids_leave_nothing_out(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    """A coarse one meets some classes more often than others, by chance."""
    runs = []
    for factor in (2, 10):
        runs.append(shutil.copytree(masks, tmp_path / f"coarse{factor}"))
        place = NORTH_UP @ Affine.scale(factor)
        for path in runs[-1].glob("*/c*.tif"):
            pixels = read_band(path)[::factor, ::factor]
            whole = np.where(pixels == 255, 1, pixels)
            write_raster(path, whole, nodata=255, transform=place)
    evaluation = evaluated(tmp_path / "out", root, runs)
    shares = np.array([one.scored_parts for one in evaluation.runs])
    assert np.ptp(shares, axis=0).max() > 0.02
    assert not any("different parts" in note for note in notes_of(evaluation))


def same(folder: Path, root: Path, masks: Path) -> list[str]:
    return notes_of(evaluated(folder / "same", root, [masks, masks]))


def test_masks_of_a_part_of_the_labels_are_told(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    part = shutil.copytree(masks, tmp_path / "part")
    mask = read_band(part / "north" / "classes.tif")[:50, :85]
    for name, pixels in (("classes", mask), ("confidence", mask.clip(max=100))):
        write_raster(part / "north" / f"{name}.tif", pixels, nodata=255)
    evaluation = evaluated(tmp_path / "out", root, [masks, part])
    whole, partly = evaluation.runs
    assert partly.scores["north"].covered == pytest.approx(1 / 6)
    assert partly.scored_share < 0.7 < whole.scored_share
    told = "\n".join(notes_of(evaluation))
    assert "1 of 2 scenes cover a part of their labels only, 16.7%" in told
    assert "different parts of the labelled scenes" in told


def test_masks_of_other_grids_are_told_apart(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    coarse = shutil.copytree(masks, tmp_path / "coarse")
    for name in ("classes", "confidence"):
        path = coarse / "north" / f"{name}.tif"
        twice = NORTH_UP @ Affine.scale(2)
        write_raster(path, read_band(path)[::2, ::2], nodata=255, transform=twice)
    told = "\n".join(notes_of(evaluated(tmp_path / "out", root, [masks, coarse])))
    assert "each run is compared on the grid of its own masks" in told
    assert "1 of 2 scenes are of another resolution" in told


def test_calibration_of_a_part_is_said_to_be_of_a_part(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    partly = shutil.copytree(masks, tmp_path / "partly")
    item = partly / "south" / "item.json"
    content = json.loads(item.read_text())
    del content["assets"]["confidence"]
    item.write_text(json.dumps(content))
    evaluation = evaluated(tmp_path / "out", root, [partly])
    assert any("calibration is that of 5" in note for note in notes_of(evaluation))


def test_chips_are_no_slivers(tmp_path: Path, root: Path, masks: Path) -> None:
    # 150 rows are one chip of 146 and one of 4.
    scoring = ScoreSettings(border=3, chip=146, worst=20)
    [result] = evaluated(tmp_path / "a", root, [masks], scoring=scoring).runs
    assert shapes_of(result) == [(146, 146)] * 2
    # A scene below a chip's size is one all the same.
    scoring = ScoreSettings(border=3, chip=600)
    [result] = evaluated(tmp_path / "b", root, [masks], scoring=scoring).runs
    assert shapes_of(result) == [(150, 170)] * 2


def shapes_of(result: RunResult) -> list[tuple[int, int]]:
    """Heights and widths of the worst chips."""
    windows = [chip.window for _, chip in result.worst_chips]
    return [(window.height, window.width) for window in windows]


def test_ids_that_mean_different_classes_are_refused(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    other = shutil.copytree(masks, tmp_path / "other")
    for item in other.glob("*/item.json"):
        text = (
            item.read_text().replace("class 1", "was 1").replace("class 2", "class 1")
        )
        item.write_text(text.replace("was 1", "class 2"))
    shouted = shutil.copytree(masks, tmp_path / "shouted")
    for item in shouted.glob("*/item.json"):
        item.write_text(item.read_text().replace('"class 1"', '"CLASS 1"'))
    assert evaluated(tmp_path / "out", root, [masks, shouted]).ok
    with pytest.raises(ConfigError, match=r"ids .* mean different things"):
        evaluated(tmp_path / "out", root, [masks, other])
    table = [
        {"id": n, "name": f"class {n}", "color": [n, 0, 0], "mask": [n]}
        for n in range(1, 5)
    ]
    data = {"classes": table}
    assert evaluated(tmp_path / "out", root, [masks, other], data=data).ok


def test_notes_do_not_claim_what_is_not_so(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    table = [
        {"id": n, "name": f"class {n}" if n < 5 else "snow", "color": [n, 0, 0]}
        for n in range(1, 6)
    ]
    evaluation = evaluated(tmp_path, root, [masks], data={"classes": table})
    # Nothing is snow, so it counts in no mean.
    notes = notes_of(evaluation)
    assert not any("has no class for" in note for note in notes)
    assert any("no labelled pixel is snow" in note for note in notes)
    assert np.isnan(evaluation.runs[0].metrics.iou[4])
    evaluation = evaluated(tmp_path, root, [masks], leave_out=("class 4",))
    assert any(
        "classes that no label stands for which counts (class 4)" in note
        for note in notes_of(evaluation)
    )


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        (ScoreSettings, {"border": 0}),
        (ScoreSettings, {"chip": 0}),
        (ScoreSettings, {"worst": -1}),
        (Resampling, {"resamples": -5}),
        (Resampling, {"seed": -1}),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    section: Any,  # noqa: ANN401 (a class)
    wrong: dict[str, int],
) -> None:
    with pytest.raises(
        ConfigError, match=rf"{next(iter(wrong))} is .*; use \d or more"
    ):
        section(**wrong)


@pytest.mark.slow
def test_a_setting_that_fails_leaves_the_others(
    tmp_path: Path, root: Path, model: Path, scheduler: str
) -> None:
    config = EvaluateConfig(
        tmp_path,
        {"root": str(root), "ignore": [0]},
        compare=("input.bands=null,[4,5,6]",),
        model=ModelConfig(str(model), ("stubs",), device="cpu"),
        cluster=ClusterConfig(scheduler=scheduler, timeout=300),
    )
    evaluation = run(config)
    assert [dict(result.settings) for result in evaluation.runs] == [
        {"input.bands": "null"}
    ]
    [failure] = evaluation.failures
    assert failure.what == "input.bands=[4, 5, 6]"
    assert "no scene could be segmented" in failure.reason
    assert failure.what in (tmp_path / "evaluation.html").read_text()
    assert list(evaluation.runs[0].scores) == ["north", "south"]
